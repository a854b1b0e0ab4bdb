"""U²-Net and its small variant U²-Net† (Qin, Zhang, Huang, Dehghan, Zaiane, Jagersand 2020).

*U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection*, Pattern Recognition 106,
arXiv:2005.09007. A U of eleven stages each of which is itself a small U-Net, with a residual connection around it
(`blocks.rsu`). Every stage of the decoder, and the deepest of the encoder, gives a mask of its own, up-sampled to the
photo's size; a 1×1 convolution fuses the six. All seven are trained against the truth.

::

    photo (H, W, 3), float in [0, 255]
    └─ encoder1 RSU-7 ────────────────────► decoder1 RSU-7  ─ side1 ─┐
       └─ encoder2 RSU-6 ─────────────────► decoder2 RSU-6  ─ side2 ─┤
          └─ encoder3 RSU-5 ──────────────► decoder3 RSU-5  ─ side3 ─┼─ fuse ─► mask (H, W, classes) in [0, 1]
             └─ encoder4 RSU-4 ───────────► decoder4 RSU-4  ─ side4 ─┤
                └─ encoder5 RSU-4F ───────► decoder5 RSU-4F ─ side5 ─┤
                   └─ encoder6 RSU-4F ──────────────────────── side6 ─┘

The outputs are a list: ``mask`` (fused) first, then ``side1`` … ``side6``, each float32 (B, H, W, classes).
``u2net`` has 44,009,869 trainable weights for one class (176.3 MB with the averages of batch normalization),
``u2net-lite`` 1,131,181 (4.7 MB).

As in the authors' implementation (PyTorch, xuebinqin/U-2-Net): convolutions have a bias; batch normalization has
epsilon 1e-5 and momentum 0.9 in Keras' sense; pooling rounds odd sides up; bilinear resizing aligns the corners of
pixels and is done on scores, before the sigmoid; weights are drawn as PyTorch does by default (the paper says
Xavier). Any size works, down to one pixel; the authors train at 288×288 and test at 320×320.

Where it differs, and why:

- The photo is divided by 255, then normalized by ImageNet's mean and deviation. The authors divide by the photo's
  brightest level, which makes a dark photo another one; for a photo with a white pixel in it the two are the same.
- Keras' moving variance is that of the batch, PyTorch's is corrected by n / (n − 1), with n the pixels of a batch.
- More than one class gets a softmax in place of the sigmoid, for each of the seven.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from training.errors import ModelOptionsError
from training.models.blocks.initial import torch_bias, torch_kernel
from training.models.blocks.probabilities import probabilities
from training.models.blocks.resizing import resize_bilinear
from training.models.blocks.rsu import ResidualUBlock, halve
from training.models.blocks.scaling import normalize_as_imagenet, require_rgb
from training.models.family import ModelFamily, Shape

#: (levels, features inside, features out of it) of encoder1 … encoder6, then of decoder5 … decoder1.
_Filters = tuple[tuple[int, int, int], ...]
_FULL: _Filters = (
    *((7, 32, 64), (6, 32, 128), (5, 64, 256), (4, 128, 512), (4, 256, 512), (4, 256, 512)),
    *((4, 256, 512), (4, 128, 256), (5, 64, 128), (6, 32, 64), (7, 16, 64)),
)
_LITE: _Filters = tuple((levels, 16, 64) for levels, _, _ in _FULL)
_STAGES = 6
#: From this stage on features are too small to be halved inside a stage.
_DILATED_FROM = 5


@dataclass(frozen=True)
class U2NetOptions:
    """``width`` > 0, at most 4: all numbers of features are multiplied by it and rounded, to 1 at least."""

    width: float = 1.0

    def __post_init__(self) -> None:
        if type(self.width) not in (int, float) or not 0 < self.width <= 4:
            raise ModelOptionsError(f"width is above 0 and at most 4, not {self.width!r}")


def check(name: str, input_shape: Shape, _classes: int, _options: U2NetOptions) -> None:
    """Raise `ModelShapeError` for fewer than three channels; every size fits."""
    require_rgb(name, input_shape)


def build(name: str, filters: _Filters, input_shape: Shape, classes: int, options: U2NetOptions) -> Any:
    """The functional ``keras.Model``: input (B, *input_shape) in [0, 255], outputs ``mask`` and ``side1`` … ``side6``,
    each (B, H, W, classes) in [0, 1].
    """
    import keras

    height, width, _ = input_shape
    encoder, decoder = _blocks(filters, options.width)
    photo = keras.Input(input_shape, name="photo")
    x = normalize_as_imagenet(photo)
    skips = []
    for stage, block in enumerate(encoder, start=1):
        if stage > 1:
            x = halve(x, f"encoder{stage - 1}_pool")
        x = block(x, f"encoder{stage}")  # (B, ⌈H/2^(stage − 1)⌉, ⌈W/2^(stage − 1)⌉, filters)
        skips.append(x)
    deep = [x]
    for stage, block in zip(range(_STAGES - 1, 0, -1), decoder, strict=True):
        skip = skips[stage - 1]
        x = resize_bilinear(x, skip.shape[1:3], f"decoder{stage}_resize")
        x = keras.layers.Concatenate(name=f"decoder{stage}_skip")([x, skip])
        x = block(x, f"decoder{stage}")
        deep.append(x)
    sides = [
        resize_bilinear(_scores(x, classes, 3, f"side{stage}_scores"), (height, width), f"side{stage}_resize")
        for stage, x in enumerate(reversed(deep), start=1)
    ]
    fused = _scores(keras.layers.Concatenate(name="fuse")(sides), classes, 1, "mask_scores")
    outputs = [probabilities(fused, classes)]
    outputs += [probabilities(side, classes, f"side{stage}") for stage, side in enumerate(sides, start=1)]
    return keras.Model(photo, outputs, name=name)


def _blocks(filters: _Filters, width: float) -> tuple[list[ResidualUBlock], list[ResidualUBlock]]:
    """The six of the encoder and the five of the decoder."""
    stages = [*range(1, _STAGES + 1), *range(_STAGES - 1, 0, -1)]
    blocks = [
        ResidualUBlock(levels, max(1, round(middle * width)), max(1, round(out * width)), stage >= _DILATED_FROM)
        for stage, (levels, middle, out) in zip(stages, filters, strict=True)
    ]
    return blocks[:_STAGES], blocks[_STAGES:]


def _scores(x: Any, classes: int, kernel: int, name: str) -> Any:
    """(B, h, w, c) → (B, h, w, classes), any number."""
    from keras import layers

    return layers.Conv2D(
        classes,
        kernel,
        padding="same",
        kernel_initializer=torch_kernel(),
        bias_initializer=torch_bias(kernel * kernel * x.shape[-1]),
        name=name,
    )(x)


def torch_names(layers: Sequence[str]) -> dict[str, str]:
    """What xuebinqin/U-2-Net calls each layer that has weights; ``layers`` are those of a model of ours."""
    names = {"mask_scores": "outconv"} | {f"side{stage}_scores": f"side{stage}" for stage in range(1, _STAGES + 1)}
    for layer in layers:
        stage, _, rest = layer.partition("_")
        unit, _, kind = rest.rpartition("_")
        if stage.startswith(("encoder", "decoder")) and kind in _KINDS:
            theirs = f"stage{stage[len('encoder') :]}{'d' if stage.startswith('decoder') else ''}"
            names[layer] = f"{theirs}.{_unit(unit)}.{_KINDS[kind]}"
    return names


_KINDS = {"conv": "conv_s1", "norm": "bn_s1"}


def _unit(name: str) -> str:
    """in → rebnconvin, down3 → rebnconv3, up3 → rebnconv3d."""
    if name.startswith("up"):
        return f"rebnconv{name.removeprefix('up')}d"
    return f"rebnconv{name.removeprefix('down')}"


def _family(name: str, filters: _Filters) -> ModelFamily:
    return ModelFamily(
        options=U2NetOptions,
        check=partial(check, name),
        build=partial(build, name, filters),
        torch_names=torch_names,
    )


FAMILIES = {"u2net": _family("u2net", _FULL), "u2net-lite": _family("u2net-lite", _LITE)}
