"""The pictures of the photos that are shown: read again, predicted again, and only the small pictures kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.evaluation.photos import PhotoReader
from training.evaluation.predictors import Predictor
from training.evaluation.tiles import Tile, label_tile, photo_tile
from training.pictures import tiles


@dataclass(frozen=True)
class Drawn:
    """The tiles of a photo: what all runs share, then prediction and overlay of each run, by its name."""

    photo: Tile
    truth: Tile
    prediction: dict[str, Tile]
    overlay: dict[str, Tile]


#: By the number of the photo.
Pictures = dict[int, Drawn]


def draw(
    reader: PhotoReader, models: Sequence[Predictor], numbers: list[int], moved: Callable[[int], None]
) -> Pictures:
    """Draw the photos of these numbers, with what each model makes of them."""
    drawn: Pictures = {}
    for photo in reader.photos(numbers):
        predictions, overlays = {}, {}
        for model in models:
            (probability,) = model.predict([photo])
            seen, truth, prediction, overlay = tiles(photo.image, photo.mask, probability)
            predictions[model.name] = photo_tile(prediction, "prediction")
            overlays[model.name] = photo_tile(overlay, "overlay")
        drawn[photo.number] = Drawn(photo_tile(seen, "photo"), label_tile(truth, "truth"), predictions, overlays)
        moved(1)
    return drawn
