"""VGG16's convolutions (Simonyan and Zisserman 2015).

*Very Deep Convolutional Networks for Large-Scale Image Recognition*, ICLR 2015, arXiv:1409.1556, configuration D: 13
convolutions 3×3 with bias in five blocks, each followed by 2×2 max-pooling; 14,714,688 weights. Layers are named as in
the authors' Caffe model. An odd side is pooled up, as Caffe does.
"""

from typing import Any

#: Convolutions per block, and their filters as multiples of the first block's.
_BLOCKS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


def vgg16(x: Any, *, base_filters: int = 64, first_padding: int = 1, input_deviation: float = 1.0) -> dict[str, Any]:
    """``pool1`` … ``pool5``: (B, ⌈h/2^k⌉, ⌈w/2^k⌉, c), where h, w are H, W + 2 · (first_padding − 1).

    ``first_padding`` zeros are put around the photo before the first convolution. ``input_deviation`` is that of ``x``:
    the first kernel is drawn as much smaller, so that what follows is of unit size.
    """
    from keras import initializers, layers

    if first_padding != 1:
        x = layers.ZeroPadding2D(first_padding, name="conv1_1_pad")(x)
    features = {}
    for block, (convolutions, multiple) in enumerate(_BLOCKS, start=1):
        for part in range(1, convolutions + 1):
            first = (block, part) == (1, 1)
            scale = 2.0 / input_deviation**2 if first else 2.0  # He et al. 2015
            x = layers.Conv2D(
                base_filters * multiple,
                3,
                padding="valid" if first and first_padding != 1 else "same",
                activation="relu",
                kernel_initializer=initializers.VarianceScaling(scale, distribution="untruncated_normal"),
                name=f"conv{block}_{part}",
            )(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"pool{block}")(x)
        features[f"pool{block}"] = x
    return features
