"""Segmentation models in Keras 3, trained on datasets that were asked for by configuration.

Importing this package, or `training.launcher`, imports neither Keras nor a backend: a script may wait hours
for its dataset without holding a GPU. ``training.fit``, ``training.batches``, `training.losses.create_loss`
and ``training.metrics.online`` import Keras.
"""

from training.errors import TrainingError
from training.launcher import launch_training
from training.options import FitOptions
from training.result import EpochRecord, FitResult

__all__ = ["EpochRecord", "FitOptions", "FitResult", "TrainingError", "launch_training"]
