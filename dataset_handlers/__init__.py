"""Turns raw segmentation data into TFRecord datasets, reproducibly.

Authors of handlers need `SampleHandler` (or the bare contract, `DatasetHandler`), `HandlerConfig`, `Sample`,
`Rejected`, `BadSampleError` and the features; `python -m dataset_handlers` is how servers run them.
"""

from .config import HandlerConfig, PhotoConfig
from .contract import HANDLER_API, DatasetHandler
from .errors import BadSampleError, HandlerError, RawDataError
from .features import BytesFeature, ImageFeature, TensorFeature, TextFeature
from .plan import Rejected, Sample
from .rng import SampleRandom
from .sample_handler import SampleHandler

__all__ = [
    "HANDLER_API",
    "BadSampleError",
    "BytesFeature",
    "DatasetHandler",
    "HandlerConfig",
    "HandlerError",
    "ImageFeature",
    "PhotoConfig",
    "RawDataError",
    "Rejected",
    "Sample",
    "SampleHandler",
    "SampleRandom",
    "TensorFeature",
    "TextFeature",
]
