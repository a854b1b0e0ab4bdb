"""Use a trained model: on arrays, and on photo files of any size."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from training.checkpoint import load_checkpoint
from training.errors import CheckpointError, OutputError, PhotoError
from training.files import atomic_path, make_output_directory
from training.memory import memory_errors


def predict_inputs(model: Any, inputs: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Float32 (N, H, W, classes) in [0, 1] for ``inputs`` uint8 (N, H, W, C) of the model's size: photos, and behind
    their three channels any further ones. Of several outputs it is the first, the fused one.
    """
    predicted = []
    for begin in range(0, len(inputs), batch_size):
        outputs = model.predict_on_batch(inputs[begin : begin + batch_size])
        first = outputs[0] if isinstance(outputs, list | tuple) else outputs
        predicted.append(np.asarray(first, np.float32))
    return np.concatenate(predicted)


def predict_files(
    checkpoint: str | os.PathLike[str],
    photos: Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``<stem>.png`` for each photo: its mask as 8-bit grey, as large as the photo. 255 is the subject; of a
    model of several classes, the grey level is the number of the likeliest.

    The photo is resized to what the model was trained on, and the mask back; both bilinear. Returns what it
    wrote. Raises `CheckpointError`, `PhotoError`, `MemoryExhaustedError`, or `OutputError` where two photos have one
    stem, or a mask is there and ``overwrite`` is not given; all photos are looked at before the first is predicted.
    """
    paths = [Path(photo) for photo in photos]
    targets = _targets(paths, Path(output_dir), overwrite=overwrite)
    for path in paths:
        _require_photo(path)
    model = load_checkpoint(checkpoint)
    height, width, channels = model.input_shape[1:]
    if channels != 3:
        raise CheckpointError(
            f"the checkpoint {checkpoint} takes {channels} channels, {channels - 3} beside the photo's: "
            "predict has photos alone; use training.predict.predict_inputs"
        )
    for path, target in zip(paths, targets, strict=True):
        photo = _read(path)
        small = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
        with memory_errors(f"predicting {path}", "predict on the CPU, or by a smaller model"):
            mask = _mask(predict_inputs(model, small[None], batch_size=1)[0], photo.size)
        with atomic_path(target) as temporary:
            mask.save(temporary)
    return targets


def _mask(probability: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The mask in 8-bit grey at ``size`` = (width, height), of probabilities (H, W, classes)."""
    planes = [
        np.asarray(Image.fromarray(probability[:, :, number]).resize(size, Image.Resampling.BILINEAR))
        for number in range(probability.shape[2])
    ]
    if len(planes) == 1:
        return Image.fromarray(np.rint(np.clip(planes[0], 0, 1) * 255).astype(np.uint8))
    return Image.fromarray(np.argmax(planes, axis=0).astype(np.uint8))


def _targets(photos: list[Path], output_dir: Path, *, overwrite: bool) -> list[Path]:
    """The file to write for each photo; no two the same, none a photo itself, and none there already."""
    make_output_directory(output_dir)
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
