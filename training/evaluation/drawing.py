"""The pictures of the photos that are shown: read again, predicted again, and only the small pictures kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.evaluation.photos import PhotoReader
from training.evaluation.predictor import Predictor
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
    reader: PhotoReader,
    models: Sequence[Predictor],
    numbers: list[int],
    *,
    batch_size: int,
    moved: Callable[[int], None],
) -> Pictures:
    """Draw the photos of these numbers, with what each model makes of them."""
    drawn: Pictures = {}
    for start in range(0, len(numbers), batch_size):
        batch = list(reader.photos(numbers[start : start + batch_size]))
        predicted = [model.predict(batch) for model in models]
        for place, photo in enumerate(batch):
            seen, truth, *_ = tiles(photo.image, photo.mask, predicted[0][place])
            drawn[photo.number] = Drawn(photo_tile(seen, "photo"), label_tile(truth, "truth"), {}, {})
            for model, probabilities in zip(models, predicted, strict=True):
                *_, prediction, overlay = tiles(photo.image, photo.mask, probabilities[place])
                drawn[photo.number].prediction[model.name] = photo_tile(prediction, "prediction")
                drawn[photo.number].overlay[model.name] = photo_tile(overlay, "overlay")
        moved(len(batch))
    return drawn
