"""Perceptual hashes of all samples' photos, by several processes where there are many."""

import multiprocessing as mp
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import cv2

from ..errors import BadSampleError, WorkerDiedError
from ..plan import Sample
from ..pool import die_with_parent

if TYPE_CHECKING:
    from ..sample_handler import SampleHandler

#: Below this many samples for each process, starting one takes longer than it saves.
_WORTH_A_PROCESS = 500
_AT_A_TIME = 64

#: The hash, None where there is none, and the raw files that were read for it, as (path, sha256).
Fingerprint = tuple[int | None, list[tuple[str, str]]]


def fingerprints(handler: "SampleHandler", samples: Sequence[Sample], workers: int) -> list[Fingerprint]:
    """The `SampleHandler.fingerprint` of each sample, in order; raises `WorkerDiedError` if a process dies."""
    processes = min(workers, len(samples) // _WORTH_A_PROCESS)
    if processes < 2 or sys.platform != "linux":
        return [_fingerprint(handler, sample) for sample in samples]
    # Forked, they have the samples already: only ranges go in.
    ranges = [range(start, min(start + _AT_A_TIME, len(samples))) for start in range(0, len(samples), _AT_A_TIME)]
    context = mp.get_context("fork")
    try:
        with ProcessPoolExecutor(processes, context, _start, (handler, samples, os.getpid())) as pool:
            return [found for part in pool.map(_work, ranges) for found in part]
    except BrokenProcessPool as error:
        raise WorkerDiedError("a process that looked for near-duplicates died; see the log") from error


def _fingerprint(handler: "SampleHandler", sample: Sample) -> Fingerprint:
    handler.take_read_files()
    try:
        return handler.fingerprint(sample), handler.take_read_files()
    except BadSampleError:
        return None, []  # the build will say why


_forked: tuple[Any, Sequence[Sample]]


def _start(handler: "SampleHandler", samples: Sequence[Sample], parent: int) -> None:
    global _forked
    die_with_parent(parent)
    cv2.setNumThreads(0)
    _forked = handler, samples


def _work(numbers: range) -> list[Fingerprint]:
    handler, samples = _forked
    return [_fingerprint(handler, samples[number]) for number in numbers]
