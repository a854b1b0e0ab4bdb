"""SharpMask: refinement of a coarse mask, on SqueezeNet, with clicks (Pinheiro, Lin, Collobert, Dollár 2016).

*Learning to Refine Object Segments*, ECCV 2016, arXiv:1603.08695. A network for classification sees the photo; from its
last features comes a coarse encoding of the mask, which refinement modules sharpen with the features of the layers
before, each doubling its size. Channels after the photo's three are what a user has clicked: two maps of the distance
to the nearest click on the subject and to the nearest beside it, in pixels, at most 255 (Xu et al. 2016; `clicks` in
datasets of ours). Without them it is a network for photos alone.

::

    photo, clicks (H, W, C) ─► conv1 (1/2) ─► fire3 (1/4) ─► fire5 (1/8) ─► fire9 (1/16) ─ 1×1 ─► mask encoding
                                 │              │              │              │                      │
                                 R4 ◄────────── R3 ◄────────── R2 ◄────────── R1 ◄───────────────────┘
                                 └─ 3×3 ─► (H, W, classes) in [0, 1]

A refinement module is the paper's refactored one, layers and widths as in the authors' released model: the features go
through three 3×3 convolutions to half of k filters, the mask encoding through two, their sum through a ReLU, and is
enlarged twofold. k is ``mask_filters`` in the first module and halves with each. Borders are mirrored, not filled with
zeros. 1.33 million weights.

Where it differs, and why:

- SqueezeNet 1.1 (Iandola et al. 2016) in place of ResNet-50: 0.7 million weights, small enough to answer a click.
- The paper proposes one mask per window of a photo; here all of the photo gets one. So the mask encoding is made by a
  1×1 convolution at each place, where the paper's window has a fully connected layer, and there is no objectness score.
- A module enlarges bilinearly, as the paper says (the released code repeats pixels), to the very size of the features
  that are next: SqueezeNet's unpadded layers are a little smaller than a half, and odd sizes remain possible.
"""

from dataclasses import dataclass
from typing import Any

from training.errors import ModelOptionsError, ModelShapeError
from training.models.blocks.probabilities import probabilities
from training.models.blocks.resizing import resize_bilinear
from training.models.blocks.scaling import normalize_as_imagenet, require_rgb
from training.models.encoders.squeezenet import squeezenet
from training.models.family import ModelFamily, Shape

#: What each module refines with, and the filters of the first convolution there (the released model's nhu2).
_MODULES = (("fire9", 64), ("fire5", 64), ("fire3", 64), ("conv1", 32))
#: Below this, SqueezeNet's last pooling has no window.
_SMALLEST = 17


@dataclass(frozen=True)
class SharpMaskOptions:
    """``mask_filters``: a multiple of 16 from 16 to 512, the k of the first refinement module."""

    mask_filters: int = 32

    def __post_init__(self) -> None:
        if type(self.mask_filters) is not int or self.mask_filters % 16 or not 16 <= self.mask_filters <= 512:
            raise ModelOptionsError(f"mask_filters is a multiple of 16 from 16 to 512, not {self.mask_filters!r}")


def check(input_shape: Shape, _classes: int, _options: SharpMaskOptions) -> None:
    """Raise `ModelShapeError` for fewer than three channels, or where SqueezeNet has nothing left to pool."""
    require_rgb("sharpmask", input_shape)
    if min(input_shape[:2]) < _SMALLEST:
        raise ModelShapeError(
            f"sharpmask takes photos of at least {_SMALLEST}×{_SMALLEST} pixels, "
            f"not {input_shape[0]}×{input_shape[1]}: use larger photos"
        )


def build(input_shape: Shape, classes: int, options: SharpMaskOptions) -> Any:
    """The functional ``keras.Model``: input (B, *input_shape) in [0, 255], output (B, H, W, classes) in [0, 1]."""
    import keras
    from keras import layers

    photo = keras.Input(input_shape, name="photo")
    features = squeezenet(normalize_as_imagenet(photo))
    x = layers.Conv2D(options.mask_filters, 1, kernel_initializer="he_normal", name="encode")(features["fire9"])
    for index, (place, squeezed) in enumerate(_MODULES):
        x = _refine(x, features[place], squeezed, f"refine{index + 1}")
        last = index + 1 == len(_MODULES)
        size = input_shape[:2] if last else features[_MODULES[index + 1][0]].shape[1:3]
        x = resize_bilinear(x, size, f"refine{index + 1}_enlarge")
    x = _convolve(x, classes, "classify")
    return keras.Model(photo, probabilities(x, classes), name="sharpmask")


def _refine(x: Any, features: Any, squeezed: int, name: str) -> Any:
    """(B, h, w, k) of the mask's encoding and (B, h, w, c) → (B, h, w, k / 2)."""
    from keras import layers

    k = x.shape[-1]
    skip = _convolve(features, squeezed, f"{name}_horizontal1", relu=True)
    skip = _convolve(skip, k, f"{name}_horizontal2", relu=True)
    skip = _convolve(skip, k // 2, f"{name}_horizontal3")
    x = _convolve(x, k, f"{name}_vertical1", relu=True)
    x = _convolve(x, k // 2, f"{name}_vertical2")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, skip]))


def _convolve(x: Any, filters: int, name: str, *, relu: bool = False) -> Any:
    """3×3 convolution with mirrored borders: (B, h, w, c) → (B, h, w, filters)."""
    from keras import layers, ops

    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    activation = "relu" if relu else None
    return layers.Conv2D(filters, 3, activation=activation, kernel_initializer="he_normal", name=name)(x)


FAMILY = ModelFamily(options=SharpMaskOptions, check=check, build=build)
