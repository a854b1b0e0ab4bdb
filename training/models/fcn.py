"""Fully convolutional networks: FCN-32s, FCN-16s, FCN-8s (Long, Shelhamer, Darrell 2015).

*Fully Convolutional Networks for Semantic Segmentation*, CVPR 2015, arXiv:1411.4038. VGG16 with its fully connected
layers read as convolutions scores each class at a 32nd of the photo's size. FCN-16s doubles these scores and adds those
of ``pool4``, FCN-8s does so once more with ``pool3``; what results is enlarged 32-, 16- or 8-fold.

::

    photo (H, W, C) ─ VGG16 ─► pool3 (1/8) ─► pool4 (1/16) ─► pool5 (1/32) ─ fc6 7×7 ─ fc7 ─ score
                               └ score ──┐    └ score ──┐                                    │ ×2
                                         │              └──────────── + ◄────────────────────┘ (16s, 8s)
                                         └── + ◄── ×2 ────────────────┘                        (8s)
                                             └─ ×8 ─► (H, W, classes) in [0, 1]

As in the authors' Caffe models: 100 zeros around the photo and an unpadded fc6, by which even a photo of one pixel has
a score; pooling rounds up; scores begin at 0; enlarging is by transposed convolutions that begin as bilinear
interpolation; what is added or given back is cropped so that the pixels' centers agree (skips at 5 and 9, the mask at
19, 27 and 31). Dropout of a half after fc6 and fc7. 134 million weights.

Where it differs, and why:

- Photos are RGB, not BGR: turn the input channels of conv1_1 around to take over the Caffe weights. Channels after the
  photo's three, such as clicks, are taken as they are, in [0, 255].
- The transposed convolutions between the levels are learned, as the paper says; the released models fix them.
- The last one is fixed in both, so here it is the interpolation that it stands for, with zeros around it: as a dense
  kernel of 64×64 for every pair of classes it takes gigabytes in training.
- The paper begins with VGG16's trained weights. Where there are none, He et al.'s initialization (2015) is what makes
  training possible; a learning rate of 1e-4 for Adam suits it.
- ``padding="same"`` pads each convolution by half its kernel instead of the photo by 100: at 224×224 that is a third of
  the work, at 64×64 a twentieth. The weights mean the same, the masks are not those of the paper.
- ``base_filters`` and ``head_filters`` below 64 and 4096 make smaller networks, for training without VGG16's weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from training.errors import ModelOptionsError
from training.models.blocks.probabilities import probabilities
from training.models.blocks.scaling import require_rgb
from training.models.encoders.vgg import vgg16
from training.models.family import ModelFamily, Shape

#: What the authors' models take off red, green and blue.
_MEAN = (122.67892, 116.66877, 104.00699)
#: About the deviation of what is left, for the initialization.
_DEVIATION = 58.0
_PAPER_PADDING = 100
_FC6 = 7


@dataclass(frozen=True)
class FCNOptions:
    """``base_filters`` in [1, 512] of VGG16's first block; ``head_filters`` ≥ 1 of fc6 and fc7; ``dropout`` in [0, 1);
    ``padding`` "paper" or "same".
    """

    base_filters: int = 64
    head_filters: int = 4096
    dropout: float = 0.5
    padding: str = "paper"

    def __post_init__(self) -> None:
        if type(self.base_filters) is not int or not 1 <= self.base_filters <= 512:
            raise ModelOptionsError(f"base_filters is a whole number from 1 to 512, not {self.base_filters!r}")
        if type(self.head_filters) is not int or self.head_filters < 1:
            raise ModelOptionsError(f"head_filters is a whole number of at least 1, not {self.head_filters!r}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ModelOptionsError(f"dropout is a share of at least 0 and below 1, not {self.dropout!r}")
        if self.padding not in ("paper", "same"):
            raise ModelOptionsError(f"padding is 'paper' or 'same', not {self.padding!r}")


def check(name: str, input_shape: Shape, _classes: int, _options: FCNOptions) -> None:
    """Raise `ModelShapeError` for fewer than three channels; any height and width will do."""
    require_rgb(name, input_shape)


def build(stride: int, input_shape: Shape, classes: int, options: FCNOptions) -> Any:
    """The functional ``keras.Model`` that predicts at ``stride`` 32, 16 or 8: input (B, *input_shape) in [0, 255],
    output (B, H, W, classes) in [0, 1].
    """
    import keras
    from keras import layers

    padding = _PAPER_PADDING if options.padding == "paper" else 1
    photo = keras.Input(input_shape, name="photo")
    further = [0.0] * (input_shape[2] - 3)
    x = layers.Rescaling([1.0] * input_shape[2], [*(-mean for mean in _MEAN), *further], name="center")(photo)
    pools = vgg16(x, base_filters=options.base_filters, first_padding=padding, input_deviation=_DEVIATION)
    x = pools["pool5"]
    for name, kernel in (("fc6", _FC6), ("fc7", 1)):
        x = layers.Conv2D(
            options.head_filters,
            kernel,
            padding="valid" if options.padding == "paper" else "same",
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = layers.Dropout(options.dropout, name=f"drop{name[-1]}")(x)
    x = _score(x, classes, "score_fr")
    # Score i lies over pool5's i + 3 where fc6 is not padded.
    reached, trimmed = 32, _FC6 // 2 if options.padding == "paper" else 0
    for level in (4, 3):
        if reached == stride:
            break
        x = _double(x, classes, "upscore2" if level == 4 else "upscore_pool4")
        skip = _score(pools[f"pool{level}"], classes, f"score_pool{level}")
        # Doubled, score i has its center at 2i + 1½; in the skip's numbers it is 2 · (i + trimmed) + ½.
        offset = 2 * trimmed - 1
        x = layers.Add(name=f"fuse_pool{level}")(_meet(x, skip, offset, level))
        reached, trimmed = reached // 2, max(offset, 0)
    x = _enlarge(x, reached, "upscore" if stride == 32 else f"upscore{stride}")
    # Likewise, where the photo's first pixel is number padding − 1 of what conv1_1 puts out.
    start = reached // 2 - reached * trimmed + padding - 1
    x = _cut(x, start, *input_shape[:2], name="score")
    return keras.Model(photo, probabilities(x, classes), name=f"fcn-{stride}")


def _score(x: Any, classes: int, name: str) -> Any:
    """One score per class, 0 at first: (B, h, w, c) → (B, h, w, classes)."""
    from keras import layers

    return layers.Conv2D(classes, 1, kernel_initializer="zeros", name=name)(x)


def _double(x: Any, classes: int, name: str) -> Any:
    """Transposed convolution that begins as bilinear interpolation: (B, h, w, k) → (B, 2h + 2, 2w + 2, k)."""
    from keras import layers

    layer = layers.Conv2DTranspose(classes, 4, strides=2, use_bias=False, name=name)
    x = layer(x)
    layer.set_weights([_bilinear(classes)])
    return x


def _bilinear(classes: int) -> Any:
    """The kernel, float32 (4, 4, classes, classes): each class by itself, a tent over two pixels per axis."""
    import numpy as np

    tent = np.array([0.25, 0.75, 0.75, 0.25])
    return (np.outer(tent, tent)[..., None, None] * np.eye(classes)).astype(np.float32)


def _enlarge(x: Any, factor: int, name: str) -> Any:
    """What a transposed convolution with a bilinear kernel gives: (B, h, w, k) → (B, (h + 1)·f, (w + 1)·f, k)."""
    from keras import layers

    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    height, width = (side * factor for side in x.shape[1:3])
    x = layers.Resizing(height, width, interpolation="bilinear", name=name)(x)
    return layers.Cropping2D(factor // 2, name=f"{name}_crop")(x)


def _meet(x: Any, skip: Any, offset: int, level: int) -> tuple[Any, Any]:
    """What both share, where row and column 0 of ``x`` lie over number ``offset`` of ``skip``."""
    own, its = max(-offset, 0), max(offset, 0)
    height, width = (min(one - own, other - its) for one, other in zip(x.shape[1:3], skip.shape[1:3], strict=True))
    return _cut(x, own, height, width, f"upscore_to_pool{level}c"), _cut(
        skip, its, height, width, f"score_pool{level}c"
    )


def _cut(x: Any, start: int, height: int, width: int, name: str) -> Any:
    """``height`` × ``width`` from row and column ``start`` on."""
    from keras import layers

    ends = (x.shape[1] - start - height, x.shape[2] - start - width)
    return layers.Cropping2D(((start, ends[0]), (start, ends[1])), name=name)(x)


def torch_names(layers: Sequence[str]) -> Mapping[str, str]:
    """wkentaro/pytorch-fcn, whose names are those of the authors' Caffe models, and ours; its photos are BGR, too."""
    return {name: name for name in layers}


def _family(stride: int) -> ModelFamily:
    name = f"fcn-{stride}"
    return ModelFamily(
        options=FCNOptions,
        check=partial(check, name),
        build=partial(build, stride),
        torch_names=torch_names,
        torch_fixed=("upscore.weight", "upscore16.weight", "upscore8.weight"),
    )


FAMILIES = {f"fcn-{stride}": _family(stride) for stride in (32, 16, 8)}
