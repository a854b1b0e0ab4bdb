"""Use a trained model: on arrays, and on photo files of any size."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from training.checkpoint import load_checkpoint
from training.errors import CheckpointError, OutputError, PhotoError
from training.files import atomic_path


def predict_photos(model: Any, photos: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Float32 (N, H, W, classes) in [0, 1] for photos uint8 (N, H, W, 3) of the model's size."""
    return np.asarray(model.predict(photos.astype(np.float32), batch_size=batch_size, verbose=0))


def predict_files(
    checkpoint: str | os.PathLike[str],
    photos: Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``<stem>.png`` for each photo: its mask as 8-bit grey (255 is the subject), as large as the
    photo.

    The photo is resized to what the model was trained on, and the mask back; both bilinear. Returns what it
    wrote. Raises `CheckpointError`, `PhotoError`, or `OutputError` where two photos have one stem, or
    a mask is there and ``overwrite`` is not given; all
    photos are looked at before the first is predicted.
    """
    paths = [Path(photo) for photo in photos]
    targets = _targets(paths, Path(output_dir), overwrite=overwrite)
    for path in paths:
        _require_photo(path)
    model = load_checkpoint(checkpoint)
    if model.output_shape[3] != 1:
        raise CheckpointError(
            f"the checkpoint {checkpoint} tells {model.output_shape[3]} classes apart: "
            "predict takes models of one subject, made with classes=1"
        )
    height, width = model.input_shape[1:3]
    for path, target in zip(paths, targets, strict=True):
        photo = _read(path)
        small = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
        mask = predict_photos(model, small[None], batch_size=1)[0, :, :, 0]
        grey = Image.fromarray(mask).resize(photo.size, Image.Resampling.BILINEAR)
        pixels = np.rint(np.clip(np.asarray(grey), 0, 1) * 255).astype(np.uint8)
        with atomic_path(target) as temporary:
            Image.fromarray(pixels).save(temporary)
    return targets


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` different indices in [0, count), evenly spread, ascending: int64."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _targets(photos: list[Path], output_dir: Path, *, overwrite: bool) -> list[Path]:
    """The file to write for each photo; no two the same, none a photo itself, and none there already."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the output directory {output_dir}: {error.strerror}") from error
    targets: dict[Path, Path] = {}
    for photo in photos:
        target = output_dir / f"{photo.stem}.png"
        if target in targets:
            raise OutputError(f"{targets[target]} and {photo} would both become {target}: predict them apart")
        if target.resolve() == photo.resolve():
            raise OutputError(f"the mask of {photo} would take its place: name another output directory")
        if target.exists() and not overwrite:
            raise OutputError(f"{target} is there already: name another output directory, or allow overwriting")
        targets[target] = photo
    return list(targets)


def _require_photo(path: Path) -> None:
    """Raise `PhotoError` if the file's header is not that of a picture."""
    try:
        with Image.open(path):
            pass
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"cannot read the photo {path}: {error}") from error


def _read(path: Path) -> Image.Image:
    """The photo upright and in RGB, or `PhotoError`."""
    try:
        with Image.open(path) as photo:
            return ImageOps.exif_transpose(photo).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"cannot read the photo {path}: {error}") from error
