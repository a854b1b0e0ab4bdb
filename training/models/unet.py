"""A compact U-Net (Ronneberger, Fischer, Brox 2015).

*U-Net: Convolutional Networks for Biomedical Image Segmentation*, MICCAI 2015, arXiv:1505.04597. A
contracting path of ``depth`` levels, a bottom, and an expanding path that takes each level's features back
through a skip connection. Each level is two 3×3 convolutions; features double on the way down and halve on
the way up.

::

    photo (H, W, C), float in [0, 255]
    └─ level 0   (H, W, F) ───────────────────────► level 0   (H, W, F) ─ 1×1 ─► (H, W, classes) in [0, 1]
       └─ level 1   (⌈H/2⌉, ⌈W/2⌉, 2F) ───────────► level 1
          └─ …                                      …
             └─ bottom   (⌈H/2^depth⌉, ⌈W/2^depth⌉, 2^depth F)

Where it differs from the paper, and why:

- The padding is 'same', so that the output has the size of the photo (the paper's is 184 pixels smaller).
- Each convolution is followed by batch normalization (Ioffe and Szegedy 2015), not known to the paper,
  without which the network learns slowly from scratch. Momentum is 0.9, not Keras' 0.99: after a few hundred
  steps the averages must already be usable.
- ``base_filters`` is 16, where the paper has 64: 1.94 instead of 31 million weights, for training in
  minutes.
- A side that is odd is pooled up (⌈n/2⌉) and the one pixel too much is cropped off on the way back. Any size
  of at least 2**depth works, and nothing is resampled; the paper asks for even sizes.
- The paper's dropout is left out. He initialization and 2×2 transposed convolutions for up-sampling are the
  paper's.
"""

from dataclasses import dataclass
from typing import Any

from training.errors import ModelOptionsError, ModelShapeError
from training.models.family import ModelFamily, Shape

_MAX_FILTERS = 4096


@dataclass(frozen=True)
class UNetOptions:
    """``base_filters`` F ≥ 1 of level 0; ``depth`` in [1, 8] levels above the bottom; at most 4096 filters
    there.
    """

    base_filters: int = 16
    depth: int = 4

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

    photo = keras.Input(input_shape, name="photo")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(photo)  # [-1, 1]
    skips = []
    for level in range(options.depth):
        x = _block(x, options.base_filters * 2**level, f"down{level}")  # (B, ⌈H/2^level⌉, ⌈W/2^level⌉, 2^level F)
        skips.append(x)
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"down{level}_pool")(x)
    x = _block(x, options.base_filters * 2**options.depth, "bottom")
    for level in reversed(range(options.depth)):
        filters = options.base_filters * 2**level
        x = keras.layers.Conv2DTranspose(
            filters, 2, strides=2, kernel_initializer="he_normal", name=f"up{level}_upsample"
        )(x)
        x = _crop_to(x, skips[level], f"up{level}_crop")
        x = keras.layers.Concatenate(name=f"up{level}_skip")([skips[level], x])
        x = _block(x, filters, f"up{level}")
    x = keras.layers.Conv2D(classes, 1, name="classify")(x)
    # The probabilities stay float32 where mixed precision computes the rest in less.
    activation = "sigmoid" if classes == 1 else "softmax"
    probabilities = keras.layers.Activation(activation, dtype="float32", name="mask")(x)
    return keras.Model(photo, probabilities, name="unet")


def _block(x: Any, filters: int, name: str) -> Any:
    """Two times 3×3 convolution, batch normalization, ReLU: (B, h, w, c) → (B, h, w, filters)."""
    from keras import layers

    for part in (1, 2):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,  # normalization brings its own
            kernel_initializer="he_normal",
            name=f"{name}_conv{part}",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm{part}")(x)
        x = layers.ReLU(name=f"{name}_relu{part}")(x)
    return x


def _crop_to(x: Any, target: Any, name: str) -> Any:
    """Cut off the last row and column where pooling had rounded up."""
    from keras import layers

    extra = [x.shape[axis] - target.shape[axis] for axis in (1, 2)]
    if not any(extra):
        return x
    return layers.Cropping2D(((0, extra[0]), (0, extra[1])), name=name)(x)


FAMILY = ModelFamily(options=UNetOptions, check=check, build=build)
