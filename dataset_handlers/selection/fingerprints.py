"""Perceptual hashes of all samples' photos, by several processes where there are many."""

import multiprocessing as mp
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2

from ..errors import BadSampleError
from ..plan import Sample
from ..pool import die_with_parent

if TYPE_CHECKING:
    from ..sample_handler import SampleHandler

#: Below this many samples for each process, starting one takes longer than it saves.
_WORTH_A_PROCESS = 500


def fingerprints(handler: "SampleHandler", samples: Sequence[Sample], workers: int) -> list[int | None]:
    """The `SampleHandler.fingerprint` of each sample, in order; None for what cannot be read."""
    processes = min(workers, len(samples) // _WORTH_A_PROCESS)
    if processes < 2 or sys.platform != "linux":
        return [_fingerprint(handler, sample) for sample in samples]
    with mp.get_context("fork").Pool(processes, _start, (handler, os.getpid())) as pool:
        return pool.map(_work, samples, chunksize=64)


def _fingerprint(handler: "SampleHandler", sample: Sample) -> int | None:
    try:
        return handler.fingerprint(sample)
    except BadSampleError:
        return None  # the build will say why


_handler: Any = None


def _start(handler: "SampleHandler", parent: int) -> None:
    global _handler
    die_with_parent(parent)
    cv2.setNumThreads(0)
    _handler = handler


def _work(sample: Sample) -> int | None:
    return _fingerprint(_handler, sample)
