"""ResNet-50 and ResNet-101 with dilation (He et al. 2016; Yu et al. 2017).

*Deep Residual Learning for Image Recognition*, CVPR 2016, arXiv:1512.03385, without the classifier: 23,508,032 and
42,500,160 weights that are learned. As in torchvision, the stride of a stage sits in the 3×3 convolution of its first
block ("v1.5"), and where a stage keeps its size for the sake of ``output_stride``, its convolutions are dilated
instead, its first block by the dilation of the stage before.
"""

from typing import Any

from training.models.encoders.convolution import convolution, fan_out, max_pooling_after_relu, normalization

#: Blocks per stage.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_EXPANSION = 4


def resnet(x: Any, *, depth: int, output_stride: int) -> dict[str, Any]:
    """``layer1`` … ``layer4``: (B, ⌈H/s⌉, ⌈W/s⌉, c), s = 4, 8, 16, 32 but at most ``output_stride``, c = 256, 512,
    1024, 2048.
    """
    from keras import layers

    x = normalization(convolution(x, 64, 7, "conv1", stride=2, initializer=fan_out()), "bn1")
    x = layers.ReLU(name="relu")(x)
    x = max_pooling_after_relu(x, "maxpool", padding=1)
    features, reached, dilation = {}, 4, 1
    for stage, blocks in enumerate(DEPTHS[depth], start=1):
        stride, before = 1 if stage == 1 else 2, dilation
        if reached * stride > output_stride:
            stride, dilation = 1, dilation * stride
        reached *= stride
        for block in range(blocks):
            first = block == 0
            x = _bottleneck(
                x,
                64 << (stage - 1),
                f"layer{stage}_{block}",
                stride=stride if first else 1,
                dilation=before if first else dilation,
            )
        features[f"layer{stage}"] = x
    return features


def _bottleneck(x: Any, filters: int, name: str, *, stride: int, dilation: int) -> Any:
    """1×1, 3×3 and 1×1 convolution around a shortcut: (B, h, w, c) → (B, ⌈h/stride⌉, ⌈w/stride⌉, 4 · filters)."""
    from keras import layers

    wide = _EXPANSION * filters
    shortcut = x
    if x.shape[-1] != wide:
        shortcut = convolution(x, wide, 1, f"{name}_downsample_0", stride=stride, initializer=fan_out())
        shortcut = normalization(shortcut, f"{name}_downsample_1")
    x = normalization(convolution(x, filters, 1, f"{name}_conv1", initializer=fan_out()), f"{name}_bn1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = convolution(x, filters, 3, f"{name}_conv2", stride=stride, dilation=dilation, initializer=fan_out())
    x = layers.ReLU(name=f"{name}_relu2")(normalization(x, f"{name}_bn2"))
    x = normalization(convolution(x, wide, 1, f"{name}_conv3", initializer=fan_out()), f"{name}_bn3")
    return layers.ReLU(name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([x, shortcut]))
