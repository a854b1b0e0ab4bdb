"""FC-DenseNet, the "hundred layers Tiramisu" (Jégou, Drozdzal, Vazquez, Romero, Bengio 2017).

*The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation*, CVPR workshops
2017, arXiv:1611.09326. A U-shape of dense blocks: each layer (batch normalization, ReLU, 3×3 convolution, dropout)
sees all features before it in its block and adds ``growth_rate`` of its own. On the way up only what the block
itself has made is up-sampled, without which features would multiply with every level.

::

    photo (H, W, C), float in [0, 255]
    └─ 3×3, 48 ─ dense ──────────────────────────► dense ─ 1×1 ─► (H, W, classes) in [0, 1]
                 └─ 1×1, pool ─ dense ───────────► dense ─ 3×3 transposed, stride 2
                                └─ … ─ bottom (⌊H/32⌋, ⌊W/32⌋) ─┘

=============  ===========  =========================================  ==========================
model          growth rate  layers in each block                       weights for 11 classes
=============  ===========  =========================================  ==========================
tiramisu-56    12           4 in all eleven                            1.4 million (paper: 1.5)
tiramisu-67    16           5 in all eleven                            3.5 million
tiramisu-103   16           4, 5, 7, 10, 12 – 15 – 12, 10, 7, 5, 4     9.4 million
=============  ===========  =========================================  ==========================

As in the authors' implementation (Theano and Lasagne, SimJeg/FC-DenseNet): convolutions have a bias and He's
uniform weights; batch normalization has epsilon 1e-4 and momentum 0.9 in Keras' sense; dropout of 0.2 takes single
values, after every convolution of blocks and transitions; photos come as [0, 1]; pooling leaves the last row of an
odd side out, and the transposed convolution, unpadded and so one row too large or just right, is cropped around its
center, which cuts at the end.

Where it differs, and why:

- When it predicts, batch normalization uses its moving averages. The authors normalize by the statistics of the
  batch that is predicted, so that a photo's mask depends on its neighbours.
- One class gets a sigmoid in place of the softmax.
- Weight decay (1e-4 there) belongs to the optimizer, not to the model.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from training.errors import ModelOptionsError, ModelShapeError
from training.models.blocks.probabilities import probabilities
from training.models.blocks.resizing import crop_to
from training.models.blocks.scaling import scale_to_unit
from training.models.family import ModelFamily, Shape


@dataclass(frozen=True)
class TiramisuOptions:
    """What makes one FC-DenseNet.

    ``layers`` of each dense block, from the photo's size down to the bottom and up again: an odd number of blocks
    from 3 to 17, each of at least 1; with n of them there are (n − 1) / 2 poolings. ``growth_rate`` ≥ 1 features
    that each layer adds; ``first_filters`` ≥ 1 of the first convolution; ``dropout`` in [0, 1).
    """

    growth_rate: int = 16
    layers: tuple[int, ...] = (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4)
    first_filters: int = 48
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("growth_rate", "first_filters"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ModelOptionsError(f"{name} is a whole number of at least 1, not {value!r}")
        layers = tuple(self.layers) if isinstance(self.layers, (list, tuple)) else ()
        if not 3 <= len(layers) <= 17 or len(layers) % 2 == 0 or any(type(n) is not int or n < 1 for n in layers):
            raise ModelOptionsError(
                "layers has an odd number of blocks, 3 to 17, each a whole number of at least 1 (down, bottom, up), "
                f"not {self.layers!r}"
            )
        object.__setattr__(self, "layers", layers)  # a list in a TOML file is meant as this
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ModelOptionsError(f"dropout is at least 0 and less than 1, not {self.dropout!r}")

    @property
    def poolings(self) -> int:
        """How often the size is halved."""
        return len(self.layers) // 2


@dataclass(frozen=True)
class Tiramisu56Options(TiramisuOptions):
    """FC-DenseNet56."""

    growth_rate: int = 12
    layers: tuple[int, ...] = (4,) * 11


@dataclass(frozen=True)
class Tiramisu67Options(TiramisuOptions):
    """FC-DenseNet67."""

    layers: tuple[int, ...] = (5,) * 11


def check(name: str, input_shape: Shape, _classes: int, options: TiramisuOptions) -> None:
    """Raise `ModelShapeError` where the photo would vanish before the bottom."""
    smallest = 1 << options.poolings
    if min(input_shape[:2]) < smallest:
        raise ModelShapeError(
            f"{name} halves a photo {options.poolings} times and takes at least {smallest}×{smallest} pixels, "
            f"not {input_shape[0]}×{input_shape[1]}: use larger photos, or an option 'layers' of fewer blocks"
        )


def build(name: str, input_shape: Shape, classes: int, options: TiramisuOptions) -> Any:
    """The functional ``keras.Model``: input (B, *input_shape) in [0, 255], output (B, H, W, classes) in [0,
    1].
    """
    import keras

    down, bottom, up = _split(options.layers)
    photo = keras.Input(input_shape, name="photo")
    stack = keras.layers.Conv2D(
        options.first_filters, 3, padding="same", kernel_initializer="he_uniform", name="first_conv"
    )(scale_to_unit(photo))
    skips = []
    for level, layers in enumerate(down):
        stack = _dense_block(stack, layers, options, f"down{level}")[0]  # (B, ⌊H/2^level⌋, ⌊W/2^level⌋, m)
        skips.append(stack)
        stack = _layer(stack, stack.shape[-1], 1, options.dropout, f"down{level}_transition")
        stack = keras.layers.MaxPooling2D(2, name=f"down{level}_pool")(stack)
    stack, made = _dense_block(stack, bottom, options, "bottom")
    for level, layers in zip(reversed(range(len(down))), up, strict=True):
        x = _join(made, f"up{level}_made")
        x = keras.layers.Conv2DTranspose(
            x.shape[-1], 3, strides=2, padding="valid", kernel_initializer="he_uniform", name=f"up{level}_upsample"
        )(x)  # (B, 2h + 1, 2w + 1, growth rate × layers of the block below)
        x = crop_to(x, skips[level], f"up{level}_crop")
        x = keras.layers.Concatenate(name=f"up{level}_skip")([x, skips[level]])
        stack, made = _dense_block(x, layers, options, f"up{level}")
    scores = keras.layers.Conv2D(classes, 1, kernel_initializer="he_uniform", name="classify")(stack)
    return keras.Model(photo, probabilities(scores, classes), name=name)


def _split(layers: tuple[int, ...]) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Down, bottom and up."""
    middle = len(layers) // 2
    return layers[:middle], layers[middle], layers[middle + 1 :]


def _dense_block(stack: Any, layers: int, options: TiramisuOptions, name: str) -> tuple[Any, list[Any]]:
    """What went in with all that was made, (B, h, w, m + layers × growth rate), and what was made, one by one."""
    made: list[Any] = []
    for index in range(1, layers + 1):
        made.append(_layer(stack, options.growth_rate, 3, options.dropout, f"{name}_layer{index}"))
        stack = _join([stack, made[-1]], f"{name}_stack{index}")
    return stack, made


def _layer(x: Any, filters: int, kernel: int, dropout: float, name: str) -> Any:
    """Batch normalization, ReLU, convolution, dropout: (B, h, w, c) → (B, h, w, filters)."""
    from keras import layers

    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-4, name=f"{name}_norm")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Conv2D(filters, kernel, padding="same", kernel_initializer="he_uniform", name=f"{name}_conv")(x)
    return layers.Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x


def _join(parts: list[Any], name: str) -> Any:
    """All features one after another; Keras refuses to concatenate one."""
    from keras import layers

    return layers.Concatenate(name=name)(parts) if len(parts) > 1 else parts[0]


def _family(name: str, options: type[TiramisuOptions]) -> ModelFamily:
    return ModelFamily(options=options, check=partial(check, name), build=partial(build, name))


FAMILIES = {
    "tiramisu-56": _family("tiramisu-56", Tiramisu56Options),
    "tiramisu-67": _family("tiramisu-67", Tiramisu67Options),
    "tiramisu-103": _family("tiramisu-103", TiramisuOptions),
}
