"""MobileNetV2 with dilation (Sandler et al. 2018).

*MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018, arXiv:1801.04381, up to the last bottleneck:
1,811,712 weights that are learned. The 1×1 convolution to 1,280 features after it belongs to the classifier, as in the
paper's own segmentation models. Where a stage keeps its size for the sake of ``output_stride`` it is dilated by the
rule of `training.models.encoders.resnet`. Layers are named as in torchvision.
"""

from typing import Any

from training.models.encoders.convolution import convolution, depthwise, fan_out, normalization

#: Expansion, filters, blocks and stride of each stage: the paper's table 2.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(x: Any, *, output_stride: int) -> dict[str, Any]:
    """``features_17``: (B, ⌈H/s⌉, ⌈W/s⌉, 320) with s = min(32, ``output_stride``)."""
    x = _normalized(convolution(x, 32, 3, "features_0_0", stride=2, initializer=fan_out()), "features_0_1")
    index, reached, dilation = 1, 2, 1
    for expansion, filters, blocks, stage_stride in _STAGES:
        stride, before = stage_stride, dilation
        if reached * stride > output_stride:
            stride, dilation = 1, dilation * stride
        reached *= stride
        for block in range(blocks):
            first = block == 0
            x = _inverted_residual(
                x,
                expansion,
                filters,
                f"features_{index}",
                stride=stride if first else 1,
                dilation=before if first else dilation,
            )
            index += 1
    return {f"features_{index - 1}": x}


def _inverted_residual(x: Any, expansion: int, filters: int, name: str, *, stride: int, dilation: int) -> Any:
    """Expand, filter each channel, project: (B, h, w, c) → (B, ⌈h/stride⌉, ⌈w/stride⌉, filters)."""
    from keras import layers

    shortcut, channels, part = x, x.shape[-1], 0
    if expansion != 1:
        x = convolution(x, expansion * channels, 1, f"{name}_conv_0_0", initializer=fan_out())
        x = _normalized(x, f"{name}_conv_0_1")
        part = 1
    wide = expansion * channels
    x = depthwise(x, 3, f"{name}_conv_{part}_0", stride=stride, dilation=dilation, initializer=fan_out(wide))
    x = _normalized(x, f"{name}_conv_{part}_1")
    x = convolution(x, filters, 1, f"{name}_conv_{part + 1}", initializer=fan_out())
    x = normalization(x, f"{name}_conv_{part + 2}")
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _normalized(x: Any, name: str) -> Any:
    """Batch normalization and ReLU6."""
    from keras import layers

    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(normalization(x, name))
