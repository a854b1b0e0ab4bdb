"""Background photos: which there are, and how they are shared out so that no two splits have one in common."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import BadSampleError, ConfigRefusedError, RawDataError
from .files import is_readable
from .photo import Photo
from .plan import Sample, is_text
from .rng import rank
from .sample_handler import SampleHandler
from .selection.near_duplicates import SIDE, near_duplicate_groups, perceptual_hash

_PHOTOS = {".jpg", ".jpeg", ".png"}


def photos_in(folder: Path) -> list[str]:
    """Names of the photos in a folder; raises `RawDataError` if there is none."""
    paths = folder.iterdir() if folder.is_dir() else ()
    names = (path.name for path in paths if path.suffix.lower() in _PHOTOS and is_readable(path))
    if not (found := sorted(filter(is_text, names))):
        raise RawDataError(
            f"there is no photo in the raw folder '{folder.name}'; put background photos (.jpg, .png) there"
        )
    return found


def photos_without(handler: SampleHandler, root: Path, categories: Sequence[str]) -> list[str]:
    """Paths below ``root``, in COCO's layout, of photos where none of ``categories`` is annotated.

    That is to say nothing where annotations are incomplete. Raises `RawDataError` if there is no such photo,
    `ConfigRefusedError` for a category that the annotations do not know.
    """
    files = sorted((root / "annotations").glob("instances_*.json"))
    found: list[str] = []
    for file in files:
        part = file.stem.removeprefix("instances_")
        if (root / part).is_dir():
            try:
                data = handler.read_raw(file)
            except BadSampleError as error:  # all backgrounds hang on it
                raise RawDataError(str(error)) from error
            found += _without(data, file.name, part, set(categories))
    if not found:
        raise RawDataError(
            f"there is no photo without {', '.join(categories)} in the raw folder '{root.name}' (annotations/"
            "instances_<part>.json and <part>/*.jpg); put COCO there as its publisher ships it, or choose another "
            "backgrounds_folder"
        )
    return sorted(found)


def _without(data: bytes, name: str, part: str, categories: set[str]) -> list[str]:
    try:
        content: dict[str, Any] = json.loads(data)
        numbers = {item["id"]: item["name"] for item in content["categories"]}
        if unknown := categories - set(numbers.values()):
            reason = f"{name} has no category {', '.join(sorted(map(repr, unknown)))}; it has "
            raise ConfigRefusedError(
                [{"path": "/categories", "reason": reason + ", ".join(sorted(map(str, numbers.values())))}]
            )
        shown = {item["image_id"] for item in content["annotations"] if numbers.get(item["category_id"]) in categories}
        photos = [str(item["file_name"]) for item in content["images"] if item["id"] not in shown]
    except (ValueError, KeyError, TypeError) as error:
        raise RawDataError(f"{name} cannot be read as COCO annotations: {error!r}") from error
    # A path that leaves the folder is not one of its photos.
    return [f"{part}/{photo}" for photo in photos if is_text(photo) and ".." not in photo and not photo.startswith("/")]


def shared_backgrounds(
    handler: SampleHandler, root: Path, photos: Sequence[str], by_split: Mapping[str, Sequence[Sample]]
) -> dict[str, list[str]]:
    """``photos``, paths below ``root``, shared out between the splits; copies of one photo go to one split.

    Copies are looked for unless ``near_duplicates`` says 'ignore', or there is one split.
    """
    options = handler.options
    sizes = {split: len(samples) for split, samples in by_split.items()}
    alike = {} if options.near_duplicates == "ignore" or len(sizes) < 2 else _alike(handler, root, photos)
    return share_out(photos, sizes, options.seed, alike)


def _alike(handler: SampleHandler, root: Path, photos: Sequence[str]) -> dict[str, str]:
    """Each photo with the first that shows the same (`selection.near_duplicates`); by itself if it cannot be read."""

    def fingerprint(path: Path) -> int | None:
        try:
            return perceptual_hash(Photo(handler.read_raw(path), path.name, upright=True).thumbnail(SIDE))
        except BadSampleError:
            return None  # where it is needed, another one will be taken

    numbers = near_duplicate_groups([fingerprint(root / photo) for photo in photos])
    return {photo: photos[number] for photo, number in zip(photos, numbers, strict=True)}


def share_out(
    photos: Sequence[str], sizes: Mapping[str, int], seed: int, alike: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """``photos``, shuffled by ``seed``, by split: in proportion to the splits' ``sizes``, one for each at least.

    ``alike`` names one photo for each group of those that show the same: they count as one, and stay together. Raises
    `RawDataError` where there are fewer photos than splits.
    """
    groups: dict[str, list[str]] = {}
    for photo in sorted(photos):
        groups.setdefault((alike or {}).get(photo, photo), []).append(photo)
    if len(groups) < len(sizes):
        copies = f" ({len(photos)} with copies)" if len(groups) < len(photos) else ""
        raise RawDataError(
            f"{len(sizes)} splits cannot do with {len(groups)} background photos{copies}, for no photo is to be in "
            "two of them; add photos, or make fewer splits"
        )
    shuffled = sorted(groups, key=lambda photo: rank(seed, photo, "background"))
    spare, whole = len(groups) - len(sizes), sum(sizes.values())
    shares: dict[str, list[str]] = {}
    start = samples = 0
    for number, (split, size) in enumerate(sizes.items(), start=1):
        samples += size
        end = number + round(spare * samples / whole)
        shares[split] = [photo for group in shuffled[start:end] for photo in groups[group]]
        start = end
    return shares


def draw_photos(photos: Sequence[str], seed: int, key: str, count: int, spare: int) -> list[str]:
    """One of ``photos`` for each of ``count`` variations of sample ``key``, then up to ``spare`` that are none of them.

    More variations leave those of the first ones as they were.
    """

    def draw(purpose: str) -> str:
        return photos[int.from_bytes(rank(seed, key, purpose), "little") % len(photos)]

    chosen = [draw(f"background {number}") for number in range(count)]
    others = dict.fromkeys(draw(f"spare background {number}") for number in range(4 * spare))
    return chosen + [photo for photo in others if photo not in chosen][:spare]
