"""The model of a run, as a `Predictor`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from PIL import Image

from training.checkpoint import load_checkpoint
from training.data import input_features
from training.errors import CheckpointError
from training.evaluation.photos import Photo
from training.evaluation.runs import Run
from training.memory import memory_errors


class ModelPredictor:
    """The model of a run. Raises `CheckpointError` for one that is damaged or sees what the dataset lacks.

    With ``resize`` photos are resized to the size of the model, and probabilities back to that of the photo, both
    bilinear (Pillow's, which averages where it reduces). Without, other sizes are a `CheckpointError`.
    """

    is_model = True

    def __init__(self, run: Run, *, batch_size: int, resize: bool = False) -> None:
        self.run, self.batch_size, self.resize = run, batch_size, resize
        self.name = run.name
        model = load_checkpoint(run.checkpoint)
        outputs = model.outputs if isinstance(model.outputs, list | tuple) else [model.outputs]
        # Of a model with deep supervision the first output is the result; the others need not be computed.
        self.model = keras.Model(model.inputs, outputs[0]) if len(outputs) > 1 else model
        self.height, self.width, self.channels = (int(side) for side in self.model.input_shape[1:])
        self.classes = int(self.model.output_shape[-1])
        self.features = input_features(run.inputs(self.channels))

    def check(self, photo: Photo) -> None:
        """Raise `CheckpointError` where the model cannot predict photos such as this one."""
        missing = [name for name in self.features[1:] if name not in photo.planes]
        if missing:
            raise CheckpointError(
                f"the model of {self.name} sees {', '.join(missing)} besides the photo, and the dataset has none: "
                "ask for one with these in input_attributes"
            )
        channels = 3 + sum(photo.planes[name].shape[2] for name in self.features[1:])
        if channels != self.channels:
            raise CheckpointError(
                f"the model of {self.name} sees {self.channels} channels, {', '.join(self.features)} of the dataset "
                f"have {channels}: evaluate on a dataset with the inputs that it was trained on"
            )
        if not self.resize and photo.size != (self.height, self.width):
            raise CheckpointError(
                f"the model of {self.name} takes photos of {self.height}×{self.width}, and example {photo.number} is "
                f"{photo.size[0]}×{photo.size[1]}: evaluate on a dataset of that image_size, or allow to resize"
            )

    def predict(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """See `Predictor`."""
        for photo in photos:
            self.check(photo)
        advice = f"lower batch_size (it is {self.batch_size})" if self.batch_size > 1 else "evaluate on the CPU"
        with memory_errors(f"evaluating {self.name}", advice):
            # Always as many as a batch has: another number would have the backend compile the model once more.
            seen = np.zeros((max(self.batch_size, len(photos)), self.height, self.width, self.channels), np.uint8)
            for row, photo in zip(seen, photos, strict=False):
                row[:] = self._input(photo)
            predicted = np.asarray(self.model.predict_on_batch(seen), np.float32)[: len(photos)].clip(0, 1)
        if np.isnan(predicted).any():
            raise CheckpointError(f"the model of {self.name} predicts what is no number: its weights are damaged")
        return [_to_size(one, photo.size) for one, photo in zip(predicted, photos, strict=True)]

    def describe(self) -> dict[str, Any]:
        """See `Predictor`."""
        return {
            "kind": "model",
            **self.run.describe(),
            "input_shape": [self.height, self.width, self.channels],
            "classes": self.classes,
            "parameters": int(self.model.count_params()),
        }

    def _input(self, photo: Photo) -> np.ndarray:
        """uint8 (model height, model width, channels)."""
        planes = [photo.image, *(photo.planes[name] for name in self.features[1:])]
        if photo.size != (self.height, self.width):
            planes = [_resized_levels(plane, self.width, self.height) for plane in planes]
        return np.concatenate(planes, axis=2)


def _resized_levels(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 (H, W, C) bilinear at another size."""
    channels = [Image.fromarray(plane[:, :, channel]) for channel in range(plane.shape[2])]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels], axis=2)


def _to_size(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float32 (h, w, K) bilinear at ``size``, height and width."""
    if probability.shape[:2] == size:
        return probability
    height, width = size
    planes = [Image.fromarray(np.ascontiguousarray(probability[:, :, k])) for k in range(probability.shape[2])]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(resized, axis=2).clip(0, 1)
