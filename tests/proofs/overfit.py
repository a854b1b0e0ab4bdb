"""Every model learns eight real photos by heart: mean IoU above 0.95 as a model predicts, in minutes of CPU.

python -m tests.proofs.overfit --photos DIR [MODEL ...] [--count 8] [--minutes 15]

DIR is DUTS-TR or DUTS-TE: one folder of photos whose name ends in -Image, one of masks that ends in -Mask. Without
MODEL all of them, with their default options but for `RECIPES`, each from fresh weights. A model that cannot learn what
it has seen has a fault in it: a skip that is not joined, a gradient that does not arrive, averages of normalization
that are not those of training. The exit status is 1 where one of them stays below.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.metrics import binary_iou
from training.models import create_model, model_names

ENOUGH = 0.95
#: Steps between two measurements.
ROUND = 10


@dataclass(frozen=True)
class Recipe:
    """``size`` of the photos in pixels, Adam's ``learning_rate``, and the model's ``options``.

    ``stride``: the model enlarges a grid so much coarser than the photo by interpolation, and cannot show what is
    finer, however well it knows it. It gets the photos whose masks such a grid shows best; without one, the first by
    name.
    """

    size: int = 96
    learning_rate: float = 1e-3
    stride: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


#: Default options, but for what is said here.
RECIPES = {
    # Dropout is there to keep a model from learning by heart.
    "tiramisu-56": Recipe(size=64, options={"dropout": 0.0}),
    "tiramisu-67": Recipe(size=64, options={"dropout": 0.0}),
    "tiramisu-103": Recipe(size=64, options={"dropout": 0.0}),
    "deeplab-v3": Recipe(size=192, stride=16, options={"dropout": 0.0}),
    "u2net": Recipe(size=64),
    "u2net-lite": Recipe(size=64),
    # Without the weights of VGG16 that the paper begins with, larger steps diverge; 100 zeros around photos as small
    # as these would be most of the work.
    "fcn-32": Recipe(size=256, learning_rate=1e-4, stride=32, options={"padding": "same"}),
    "fcn-16": Recipe(size=128, learning_rate=1e-4, stride=16, options={"padding": "same"}),
    "fcn-8": Recipe(size=96, learning_rate=1e-4, stride=8, options={"padding": "same"}),
}


@dataclass(frozen=True)
class Outcome:
    """What came of one model; ``iou`` is the mean over the photos."""

    model: str
    size: int
    weights: int
    steps: int
    seconds: float
    iou: float

    def __str__(self) -> str:
        verdict = "yes" if self.iou > ENOUGH else "NO"
        size = f"{self.size}×{self.size}"
        return (
            f"| {self.model:<12} | {size:>9} | {self.weights:>11,} | {self.steps:>5} | {self.seconds:>7.0f} "
            f"| {self.iou:.4f} | {verdict:<3} |"
        )


HEADER = """\
| model        |    photos |     weights | steps | seconds |    IoU | > 0.95 |
|--------------|-----------|-------------|-------|---------|--------|--------|"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proofs.overfit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all, if none is named")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="DUTS-TR or DUTS-TE")
    parser.add_argument("--count", type=int, default=8, help="photos (8)")
    parser.add_argument("--minutes", type=float, default=15, help="for each model at most (15)")
    options = parser.parse_args()
    unknown = sorted(set(options.models) - set(model_names()))
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are: {', '.join(model_names())}")
    print(HEADER)
    outcomes = []
    for name in options.models or model_names():
        outcomes.append(overfit(name, options.photos, options.count, options.minutes * 60))
        print(outcomes[-1], flush=True)
    return 0 if all(outcome.iou > ENOUGH for outcome in outcomes) else 1


def read_photos(folder: Path, count: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Photos float32 (N, size, size, 3) in [0, 255], masks float32 (N, size, size, 1), 0 or 1."""
    (photos,), (masks,) = folder.glob("*-Image"), folder.glob("*-Mask")
    paths, size = sorted(photos.glob("*.jpg")), recipe.size
    if len(paths) < count:
        raise SystemExit(f"{photos} has {len(paths)} photos, not {count}")

    def read(path: Path, mode: str) -> np.ndarray:
        with Image.open(path) as image:
            levels = np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BOX))
        return levels.astype(np.float32).reshape(size, size, -1)

    if recipe.stride is not None:
        grid = size // recipe.stride
        paths.sort(key=lambda path: -shown_by_grid(read(masks / f"{path.stem}.png", "L")[..., 0] >= 128, grid))
    paths = paths[:count]
    images = np.stack([read(path, "RGB") for path in paths])
    truth = np.stack([read(masks / f"{path.stem}.png", "L") for path in paths])
    return images, (truth >= 128).astype(np.float32)


def shown_by_grid(mask: np.ndarray, grid: int) -> float:
    """The IoU of a mask, bool (H, W), with itself reduced to grid × grid and enlarged again, bilinearly."""
    reduced = Image.fromarray(mask.astype(np.uint8) * 255).resize((grid, grid), Image.Resampling.BOX)
    enlarged = np.asarray(reduced.resize(mask.shape[::-1], Image.Resampling.BILINEAR))
    return binary_iou(mask, enlarged / 255)


def overfit(name: str, folder: Path, count: int, seconds: float) -> Outcome:
    """Train one model on one batch until it knows it, or the time is up."""
    import keras

    recipe = RECIPES.get(name, Recipe())
    photos, truth = read_photos(folder, count, recipe)
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = create_model(name, (recipe.size, recipe.size, 3), 1, **recipe.options)
    outputs = len(model.outputs)
    model.compile(
        keras.optimizers.Adam(recipe.learning_rate),
        loss=["binary_crossentropy"] * outputs if outputs > 1 else "binary_crossentropy",
        jit_compile=False,  # of the larger models XLA's compilation takes longer than all of this
    )
    target = [truth] * outputs if outputs > 1 else truth
    started, steps, iou = time.perf_counter(), 0, 0.0
    while iou <= ENOUGH and time.perf_counter() - started < seconds:
        for _ in range(ROUND):
            model.train_on_batch(photos, target)
        steps += ROUND
        iou = mean_iou(model, photos, truth)
        print(f"{name}: step {steps}, IoU {iou:.3f}", file=sys.stderr, flush=True)
    return Outcome(name, recipe.size, model.count_params(), steps, time.perf_counter() - started, iou)


def mean_iou(model: Any, photos: np.ndarray, truth: np.ndarray) -> float:
    """Over the photos, by the model's first output, as it predicts: with the averages of normalization."""
    predicted = model.predict_on_batch(photos)
    masks = predicted[0] if isinstance(predicted, list) else predicted
    return float(np.mean([binary_iou(each, mask) for each, mask in zip(truth, masks, strict=True)]))


if __name__ == "__main__":
    sys.exit(main())
