"""What is measured: each model with the size and number of photos of a step. Imports neither Keras nor torch."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Work:
    """Steps of the model ``name``, made with ``options``, on ``batch`` photos of ``size`` × ``size``.

    ``reference`` is what the reference in PyTorch is made with, where that is not the options.
    """

    name: str
    size: int
    batch: int
    options: dict[str, Any]
    reference: dict[str, Any] | None = None
    channels: int = 3

    def __str__(self) -> str:
        what = self.options.get("encoder")
        return f"{self.name} ({what})" if what else self.name

    def smaller(self, size: int) -> "Work":
        """The same on photos of ``size``: whether it runs, not how fast."""
        return replace(self, size=size)


#: Sizes that the models are trained at; batches that two cores do within seconds.
WORKS = (
    Work("unet", 256, 4, {"base_filters": 64}),
    Work("tiramisu-56", 224, 2, {}),
    Work("tiramisu-67", 224, 2, {}),
    Work("tiramisu-103", 224, 2, {}),
    Work("u2net-lite", 320, 4, {}),
    Work("u2net", 320, 2, {}),
    Work("fcn-32", 224, 1, {}, {"stride": 32}),
    Work("fcn-16", 224, 1, {}, {"stride": 16}),
    Work("fcn-8", 224, 1, {}, {"stride": 8}),
    Work("deeplab-v3", 320, 4, {"encoder": "mobilenet-v2"}),
    Work("deeplab-v3", 320, 2, {"encoder": "resnet-50"}),
    Work("sharpmask", 320, 4, {}, channels=5),
)


def batch_of(work: Work) -> tuple[Any, Any]:
    """Photos float32 (B, H, W, C) in [0, 255] and masks float32 (B, H, W, 1) of 0 and 1, the same on all sides."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (work.batch, work.size, work.size)
    photos = random.integers(0, 256, (*shape, work.channels)).astype(np.float32)
    return photos, random.integers(0, 2, (*shape, 1)).astype(np.float32)
