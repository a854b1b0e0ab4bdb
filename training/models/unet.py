"""U-Net (Ronneberger, Fischer, Brox 2015), compact by default, as wide as the paper's on request.

*U-Net: Convolutional Networks for Biomedical Image Segmentation*, MICCAI 2015, arXiv:1505.04597. A
contracting path of ``depth`` levels, a bottom, and an expanding path that takes each level's features back
through a skip connection. Each level is two 3×3 convolutions; features double on the way down and halve on
the way up.

::

    photo (H, W, C), float in [0, 255]
    └─ level 0   (H, W, F) ───────────────────────► level 0   (H, W, F) ─ 1×1 ─► (H, W, classes) in [0, 1]
       └─ level 1   (⌊H/2⌋, ⌊W/2⌋, 2F) ───────────► level 1
          └─ …                                      …
             └─ bottom   (⌊H/2^depth⌋, ⌊W/2^depth⌋, 2^depth F)

The reference is its widespread form in PyTorch (milesial/Pytorch-UNet), whose weights can be taken over with
``base_filters=64, depth=4``: 31,037,633 trainable weights for one class, 17,262,977 with
``upsampling="bilinear"``. With it this differs from the paper:

- The padding is 'same', so that the output has the size of the photo (the paper's is 184 pixels smaller).
- Each convolution is followed by batch normalization (Ioffe and Szegedy 2015), not known to the paper,
  without which the network learns slowly from scratch; epsilon 1e-5, momentum 0.9 in Keras' sense.
- Of a side that is odd the last row is left out by the pooling, and a row of zeros takes its place on the way
  back. Any size of at least 2**depth works; the paper asks for even sizes.
- ``upsampling="bilinear"`` doubles the size without weights, corner centers aligned, and halves the features
  of the level above; the paper's 2×2 transposed convolution is the default.

From the reference it differs in two things: weights are drawn as the paper says (He: normal, variance 2 /
fan-in; those of the last 1×1 convolution, which no ReLU follows, uniformly after Glorot), where PyTorch's default
has a sixth of that variance, and ``base_filters`` is 16 by default, 1.94 instead of 31 million weights, for
training in minutes. The paper's dropout is left out by both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from training.errors import ModelOptionsError, ModelShapeError
from training.models.blocks.probabilities import probabilities
from training.models.blocks.resizing import double_bilinear_aligned, pad_to
from training.models.blocks.scaling import scale_to_unit
from training.models.family import ModelFamily, Shape

_MAX_FILTERS = 4096

Upsampling = Literal["transposed", "bilinear"]


@dataclass(frozen=True)
class UNetOptions:
    """``base_filters`` F ≥ 1 of level 0, even where the up-sampling is bilinear; ``depth`` in [1, 8] levels above
    the bottom; at most 4096 filters there; ``upsampling`` 'transposed' or 'bilinear'.
    """

    base_filters: int = 16
    depth: int = 4
    upsampling: Upsampling = "transposed"

    def __post_init__(self) -> None:
        if type(self.base_filters) is not int or self.base_filters < 1:
            raise ModelOptionsError(f"base_filters is a whole number of at least 1, not {self.base_filters!r}")
        if type(self.depth) is not int or not 1 <= self.depth <= 8:
            raise ModelOptionsError(f"depth is a whole number from 1 to 8, not {self.depth!r}")
        if self.base_filters << self.depth > _MAX_FILTERS:
            raise ModelOptionsError(
                f"base_filters {self.base_filters} at depth {self.depth} makes "
                f"{self.base_filters << self.depth} filters at the bottom; {_MAX_FILTERS} are the most: "
                "lower one of them"
            )
        if self.upsampling not in get_args(Upsampling):
            raise ModelOptionsError(f"upsampling is 'transposed' or 'bilinear', not {self.upsampling!r}")


def check(input_shape: Shape, _classes: int, options: UNetOptions) -> None:
    """Raise `ModelShapeError` where the photo would vanish before the bottom."""
    smallest = 1 << options.depth
    if min(input_shape[:2]) < smallest:
        deepest = min(input_shape[:2]).bit_length() - 1
        remedy = f", or depth {deepest} or less" if deepest >= 1 else ""
        raise ModelShapeError(
            f"a U-Net of depth {options.depth} takes photos of at least {smallest}×{smallest} pixels, "
            f"not {input_shape[0]}×{input_shape[1]}: use larger photos{remedy}"
        )


def build(input_shape: Shape, classes: int, options: UNetOptions) -> Any:
    """The functional ``keras.Model``: input (B, *input_shape) in [0, 255], output (B, H, W, classes) in [0,
    1].
    """
    import keras

    bilinear = options.upsampling == "bilinear"
    photo = keras.Input(input_shape, name="photo")
    x = scale_to_unit(photo)
    skips = []
    for level in range(options.depth):
        filters = options.base_filters * 2**level
        x = _block(x, filters, filters, f"down{level}")  # (B, ⌊H/2^level⌋, ⌊W/2^level⌋, 2^level F)
        skips.append(x)
        x = keras.layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    # Bilinear up-sampling keeps the number of features, so that the block before it has to halve them.
    filters = options.base_filters * 2**options.depth // (2 if bilinear else 1)
    x = _block(x, filters, filters, "bottom")
    for level in reversed(range(options.depth)):
        filters = options.base_filters * 2**level
        if bilinear:
            x = double_bilinear_aligned(x, f"up{level}_upsample")
        else:
            x = keras.layers.Conv2DTranspose(
                filters, 2, strides=2, kernel_initializer="he_normal", name=f"up{level}_upsample"
            )(x)
        x = pad_to(x, skips[level], f"up{level}_pad")
        x = keras.layers.Concatenate(name=f"up{level}_skip")([skips[level], x])
        x = _block(x, filters, filters // 2 if bilinear and level else filters, f"up{level}")
    scores = keras.layers.Conv2D(classes, 1, name="classify")(x)
    return keras.Model(photo, probabilities(scores, classes), name="unet")


def _block(x: Any, middle: int, filters: int, name: str) -> Any:
    """Two times 3×3 convolution, batch normalization, ReLU: (B, h, w, c) → (B, h, w, filters)."""
    from keras import layers

    for part, width in ((1, middle), (2, filters)):
        x = layers.Conv2D(
            width,
            3,
            padding="same",
            use_bias=False,  # normalization brings its own
            kernel_initializer="he_normal",
            name=f"{name}_conv{part}",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm{part}")(x)
        x = layers.ReLU(name=f"{name}_relu{part}")(x)
    return x


def torch_names(layers: Sequence[str]) -> dict[str, str]:
    """What milesial/Pytorch-UNet calls each layer that has weights; ``layers`` are those of a model of ours."""
    depth = sum(name.startswith("down") and name.endswith("_conv1") for name in layers)
    names = {"classify": "outc.conv"}
    for level in range(depth + 1):
        ours = f"down{level}" if level < depth else "bottom"
        theirs = f"down{level}.maxpool_conv.1" if level else "inc"
        names |= {f"{ours}_{part}": f"{theirs}.double_conv.{index}" for part, index in _PARTS.items()}
    for level in range(depth):
        theirs = f"up{depth - level}"
        names[f"up{level}_upsample"] = f"{theirs}.up"
        names |= {f"up{level}_{part}": f"{theirs}.conv.double_conv.{index}" for part, index in _PARTS.items()}
    return names


#: Positions in the reference's blocks; the activations between them have no weights.
_PARTS = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}

FAMILY = ModelFamily(options=UNetOptions, check=check, build=build, torch_names=torch_names)
