"""DeepLabv3 (Chen, Papandreou, Schroff, Adam 2017).

*Rethinking Atrous Convolution for Semantic Image Segmentation*, arXiv:1706.05587. An encoder that stops halving at
``output_stride`` and is dilated from there on; atrous spatial pyramid pooling (ASPP), which looks at its features at
several dilations and as a whole; and one enlargement to the photo's size.

::

    photo (H, W, C) ─ encoder ─► (⌈H/16⌉, ⌈W/16⌉, c) ┬─ 1×1 ──────────────┐
                                                     ├─ 3×3, dilated by 6 ─┤
                                                     ├─ 3×3, by 12 ────────┼─ 1×1 ─ 3×3 ─ 1×1 ─ bilinear ─►
                                                     ├─ 3×3, by 18 ────────┤        (H, W, classes) in [0, 1]
                                                     └─ mean, 1×1 ─────────┘

Built as torchvision's, after whose layers ours are named: batch normalization with epsilon 1e-5, dropout of a half
after the ASPP, then a normalized 3×3 convolution that the paper does not have, align_corners=False. With
``output_stride=8`` the rates are 12, 24, 36 and torchvision's weights fit. ASPP has 256 filters. Weights that are
learned, one class: 39.6 million on ResNet-50, 58.6 on ResNet-101, 5.1 on MobileNetV2.

Where it differs, and why:

- The paper's multiple grid is left out, as in torchvision; so is torchvision's ``aux_classifier``, a second score for
  training that the paper does not have.
- MobileNetV2, which the paper does not have either, ends before its 1,280 features, as in the authors' later models.
- Channels after the photo's three, such as clicks, enter the first convolution, scaled to [0, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import ModelOptionsError, WeightsError
from training.models.blocks.probabilities import probabilities
from training.models.blocks.resizing import resize_bilinear
from training.models.blocks.scaling import normalize_as_imagenet, require_rgb
from training.models.encoders.convolution import convolution, normalization
from training.models.encoders.mobilenet import mobilenet_v2
from training.models.encoders.resnet import resnet
from training.models.family import ModelFamily, Shape

ENCODERS = ("mobilenet-v2", "resnet-50", "resnet-101")
#: The dilations of the ASPP for each output stride (the paper's section 3.3).
_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
_FILTERS = 256


@dataclass(frozen=True)
class DeepLabOptions:
    """``encoder``: one of `ENCODERS`; ``output_stride`` 16, or 8 for four times the work and finer edges; ``dropout``
    in [0, 1).
    """

    encoder: str = "mobilenet-v2"
    output_stride: int = 16
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ModelOptionsError(f"there is no encoder {self.encoder!r}; there are: {', '.join(ENCODERS)}")
        if type(self.output_stride) is not int or self.output_stride not in _RATES:
            raise ModelOptionsError(f"output_stride is 8 or 16, not {self.output_stride!r}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ModelOptionsError(f"dropout is a share of at least 0 and below 1, not {self.dropout!r}")


def check(input_shape: Shape, _classes: int, _options: DeepLabOptions) -> None:
    """Raise `ModelShapeError` for fewer than three channels; any height and width will do."""
    require_rgb("deeplab-v3", input_shape)


def build(input_shape: Shape, classes: int, options: DeepLabOptions) -> Any:
    """The functional ``keras.Model``: input (B, *input_shape) in [0, 255], output (B, H, W, classes) in [0, 1]."""
    import keras
    from keras import layers

    photo = keras.Input(input_shape, name="photo")
    x = _encode(normalize_as_imagenet(photo), options)  # (B, ⌈H/16⌉, ⌈W/16⌉, c)
    x = _pyramid(x, _RATES[options.output_stride], options.dropout)  # (B, …, …, 256)
    x = _norm_relu(convolution(x, _FILTERS, 3, "classifier_1"), "classifier_2")
    x = layers.Conv2D(classes, 1, kernel_initializer="he_normal", name="classifier_4")(x)
    x = resize_bilinear(x, input_shape[:2], "score")
    return keras.Model(photo, probabilities(x, classes), name="deeplab-v3")


def _encode(x: Any, options: DeepLabOptions) -> Any:
    """The encoder's last features."""
    if options.encoder == "mobilenet-v2":
        return mobilenet_v2(x, output_stride=options.output_stride)["features_17"]
    return resnet(x, depth=int(options.encoder.removeprefix("resnet-")), output_stride=options.output_stride)["layer4"]


def _pyramid(x: Any, rates: tuple[int, ...], dropout: float) -> Any:
    """Atrous spatial pyramid pooling: (B, h, w, c) → (B, h, w, 256)."""
    from keras import layers

    name = "classifier_0_convs"
    seen = [_norm_relu(convolution(x, _FILTERS, 1, f"{name}_0_0"), f"{name}_0_1")]
    for index, rate in enumerate(rates, start=1):
        y = convolution(x, _FILTERS, 3, f"{name}_{index}_0", dilation=rate)
        seen.append(_norm_relu(y, f"{name}_{index}_1"))
    last = f"{name}_{len(rates) + 1}"
    whole = layers.GlobalAveragePooling2D(keepdims=True, name=f"{last}_0")(x)  # (B, 1, 1, c)
    whole = _norm_relu(convolution(whole, _FILTERS, 1, f"{last}_1"), f"{last}_2")
    seen.append(layers.UpSampling2D(tuple(x.shape[1:3]), name=last)(whole))
    x = layers.Concatenate(name="classifier_0")(seen)
    x = _norm_relu(convolution(x, _FILTERS, 1, "classifier_0_project_0"), "classifier_0_project_1")
    return layers.Dropout(dropout, name="classifier_0_project_3")(x)


def _norm_relu(x: Any, name: str) -> Any:
    """Batch normalization and ReLU."""
    from keras import layers

    return layers.ReLU(name=f"{name}_relu")(normalization(x, name))


def torch_names(layers: Sequence[str]) -> Mapping[str, str]:
    """torchvision's ``deeplabv3_resnet50`` and ``deeplabv3_resnet101``, without their ``aux_classifier``.

    Raises `WeightsError` on MobileNetV2, which torchvision does not offer here.
    """
    if "features_0_0" in layers:
        raise WeightsError(
            "weights from PyTorch are known for deeplab-v3 on resnet-50 and resnet-101, not mobilenet-v2"
        )
    return {name: _torch_name(name) for name in layers}


def _torch_name(name: str) -> str:
    dotted = name.replace("_", ".")
    return dotted if name.startswith("classifier") else f"backbone.{dotted}"


FAMILY = ModelFamily(options=DeepLabOptions, check=check, build=build, torch_names=torch_names)
