"""Everything that `training` raises on purpose; each message says what to do.

::

    TrainingError
    ├── OptionsError            a training option is out of its range, or two of them do not agree
    ├── BackendError            Keras, its backend or matplotlib is not installed
    ├── OutputError             the output directory cannot be written, or holds another training
    ├── ModelError
    │   ├── UnknownModelError       no model has that name
    │   ├── ModelOptionsError       the model has no such option, or not that value
    │   ├── ModelShapeError         the model cannot take such images or give so many classes
    │   └── WeightsError            weights from elsewhere are not those of the model
    ├── DatasetError
    │   ├── SplitError              a split is missing or empty
    │   ├── FeatureError            the examples lack 'image' or 'mask', or they have another type
    │   └── ImageSizeError          the photos are not of one size, or a mask is not of its photo's
    ├── DivergedError           the loss is no longer a finite number
    ├── MetricError             a truth and a prediction cannot be compared
    ├── MemoryExhaustedError    more memory is needed than the device or the machine has
    ├── StoppedError            a signal has ended the training; its state is saved
    ├── CheckpointError         a checkpoint is missing, damaged, or not one of ours
    │   └── StateError              the state to resume from is missing, damaged, or of another training
    └── PhotoError              a photo to predict cannot be read
"""

from collections.abc import Sequence
from pathlib import Path


class TrainingError(Exception):
    """The base of all errors here."""


class OptionsError(TrainingError, ValueError):
    """A training option is out of its range, or two of them do not agree."""


class BackendError(TrainingError):
    """Keras, its backend or matplotlib is not installed."""


class OutputError(TrainingError):
    """The output directory cannot be written, or holds another training."""


class ModelError(TrainingError, ValueError):
    """The model that was asked for cannot be made."""


class UnknownModelError(ModelError):
    """No model has that name."""


class ModelOptionsError(ModelError):
    """The model has no such option, or the option cannot have that value."""


class ModelShapeError(ModelError):
    """The model cannot take such images or give so many classes."""


class WeightsError(ModelError):
    """Weights from elsewhere are not those of the model.

    ``missing`` are the names that the model needs and were not given, ``unexpected`` those given that it has no
    place for, ``misshaped`` those whose shape is another: each sorted, and empty where that is not the fault.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshaped: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshaped = tuple(misshaped)


class DatasetError(TrainingError):
    """The dataset cannot be trained on."""


class SplitError(DatasetError):
    """A split is missing or empty."""


class FeatureError(DatasetError):
    """The examples lack 'image' or 'mask', or they have another type."""


class ImageSizeError(DatasetError):
    """The photos of a split are not of one size, or a mask is not of its photo's."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number.

    ``epoch`` counts from 1; ``batch`` from 1, or is None where it was found in validation; ``checkpoint`` is
    the last good one, or None where training got no further than its first epoch.
    """

    def __init__(self, message: str, *, epoch: int, batch: int | None, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.batch = batch
        self.checkpoint = checkpoint


class MetricError(TrainingError, ValueError):
    """A truth and a prediction cannot be compared."""


class MemoryExhaustedError(TrainingError):
    """Training, predicting or evaluating needs more memory than the device or the machine has."""


class StoppedError(TrainingError):
    """A signal has ended the training; what it had reached is saved, to be resumed. ``signal`` is its number."""

    def __init__(self, message: str, *, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged, or not one of ours."""


class StateError(CheckpointError):
    """The state to resume from is missing, damaged, or of another training."""


class PhotoError(TrainingError):
    """A photo to predict cannot be read."""
