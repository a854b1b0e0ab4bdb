"""Photos and masks in two folders, paired by their names without the ending."""

from collections.abc import Iterator
from pathlib import Path

from .files import is_readable
from .plan import Rejected, Sample

_PHOTOS = {".jpg", ".jpeg", ".png"}
_MASKS = {".png"}


def paired_samples(root: Path, photos: str, masks: str, part: str, split: str) -> Iterator[Sample | Rejected]:
    """Samples ``<part>/<photo's stem>`` of ``split``, their data ``photo`` and ``mask``, paths below ``root``.

    ``photos`` and ``masks`` are the folders, as paths below ``root``. Photos without mask, masks without photo and
    photos of one name are rejected.
    """
    photo_of, mask_of = _by_stem(root / photos, _PHOTOS), _by_stem(root / masks, _MASKS)
    yield from _doubled(root / photos, part, photo_of)
    for stem, photo in photo_of.items():
        if mask := mask_of.get(stem):
            yield Sample(f"{part}/{stem}", {"photo": f"{photos}/{photo}", "mask": f"{masks}/{mask}"}, split)
        else:
            yield Rejected(f"{part}/{stem}", f"{photo} has no mask {stem}.png")
    for stem in mask_of.keys() - photo_of.keys():
        yield Rejected(f"{part}/{stem}", f"{mask_of[stem]} has no photo")


def _by_stem(folder: Path, endings: set[str]) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    found = (path for path in folder.iterdir() if path.suffix.lower() in endings and is_readable(path))
    return {path.stem: path.name for path in sorted(found)}


def _doubled(folder: Path, part: str, photos: dict[str, str]) -> Iterator[Rejected]:
    """Photos that have another's name, but for the ending; the last by name is used."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        used = photos.get(path.stem)
        if path.suffix.lower() in _PHOTOS and path.name != used and is_readable(path):
            yield Rejected(f"{part}/{path.name}", f"{path.name} and {used} have one name; {used} is used")
