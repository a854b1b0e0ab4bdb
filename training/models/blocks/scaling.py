"""The first layer of a model: from photos in [0, 255] to what the reference was trained on."""

from typing import Any

from training.errors import ModelShapeError
from training.models.family import Shape

#: Mean and standard deviation of ImageNet's photos in [0, 1], red, green, blue.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RGB = 3


def scale_to_unit(photo: Any) -> Any:
    """[0, 255] → [0, 1], (B, H, W, C) → (B, H, W, C)."""
    from keras import layers

    return layers.Rescaling(1 / 255, name="scale")(photo)


def normalize_as_imagenet(photo: Any) -> Any:
    """Red, green and blue to mean 0 and deviation 1 over ImageNet; channels after them to [0, 1].

    (B, H, W, C ≥ 3) in [0, 255] → (B, H, W, C). A channel of clicks stays 0 where there is none.
    """
    from keras import layers

    extra = photo.shape[-1] - _RGB
    scale = [1 / (255 * deviation) for deviation in IMAGENET_STD] + [1 / 255] * extra
    offset = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)] + [0.0] * extra
    return layers.Rescaling(scale, offset, name="normalize")(photo)


def require_rgb(model: str, input_shape: Shape) -> None:
    """Raise `ModelShapeError` where there are fewer than the three channels that ImageNet's statistics are of."""
    if input_shape[2] < _RGB:
        raise ModelShapeError(
            f"{model} takes photos of red, green and blue, and further channels after them, not of {input_shape[2]} "
            "in all: repeat a gray photo three times"
        )
