"""The scores of one photo: a pure function of truth and probability, so that processes can share the work."""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

import numpy as np

from training.errors import MemoryExhaustedError
from training.evaluation.disagreement import binary_disagreement, class_disagreement
from training.evaluation.summary import at_limits
from training.metrics import (
    VOID,
    boundary_iou,
    confusion_matrix,
    connectivity_error,
    gradient_error,
    iou_per_class,
    min_max_normalized,
    mse,
    relaxed_boundary_f,
    sad,
    saliency_scores,
)

#: Name → number or (K,): a row of a `Table`.
Row = dict[str, Any]
#: Fewer scorings than this (4 ms each at 160×160) do not pay for a process, which takes seconds to start.
_WORTH_A_PROCESS = 500


def score(truth: np.ndarray, probability: np.ndarray, stretch: bool = False) -> Row:
    """The scores of a photo with a probability float32 (H, W, K) in [0, 1].

    ``stretch`` lets the measures of saliency see it stretched to reach from 0 to 1, as published ones mostly do.

    For K = 1 ``truth`` is float32 (H, W) in [0, 1], else class numbers uint8 (H, W) with 255 for what does not count.
    """
    if probability.shape[2] == 1:
        return _score_subject(truth, probability[:, :, 0], stretch)
    return _score_classes(truth, probability)


def _score_subject(truth: np.ndarray, probability: np.ndarray, stretch: bool) -> Row:
    true, found = truth >= 0.5, probability >= 0.5
    hits = int(np.count_nonzero(true & found))
    labelled, predicted = int(np.count_nonzero(true)), int(np.count_nonzero(found))
    union = labelled + predicted - hits
    iou = hits / union if union else 1.0
    saliency = saliency_scores(truth, min_max_normalized(probability) if stretch else probability)
    return {
        "iou": iou,
        **at_limits(iou),
        "intersection": hits,
        "union": union,
        # Where nothing was to be found and nothing was, nothing was wrong.
        "precision": hits / predicted if predicted else float(not labelled),
        "recall": hits / labelled if labelled else float(not predicted),
        "f1": 2 * hits / (labelled + predicted) if labelled + predicted else 1.0,
        "mae": saliency.mae,
        "adaptive_f_beta": saliency.adaptive_f_beta,
        "weighted_f_beta": saliency.weighted_f_beta,
        "s_measure": saliency.s_measure,
        "adaptive_e_measure": saliency.adaptive_e_measure,
        "boundary_iou": boundary_iou(truth, probability),
        "relaxed_boundary_f": relaxed_boundary_f(truth, probability),
        **_matte_errors(truth, probability),
        "precision_curve": saliency.precision,
        "recall_curve": saliency.recall,
        "f_beta_curve": saliency.f_beta,
        "e_measure_curve": saliency.e_measure,
        **binary_disagreement(truth, probability),
    }


def _matte_errors(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Errors as of a matte; NaN for a truth without soft edges, where they would say the same as the MAE."""
    if not ((truth > 0) & (truth < 1)).any():
        return dict.fromkeys(("sad", "mse", "gradient_error", "connectivity_error"), np.nan)
    return {
        "sad": sad(truth, probability),
        "mse": mse(truth, probability),
        "gradient_error": gradient_error(truth, probability),
        "connectivity_error": connectivity_error(truth, probability),
    }


def _score_classes(truth: np.ndarray, probability: np.ndarray) -> Row:
    classes = probability.shape[2]
    confusion = confusion_matrix(truth, probability.argmax(axis=2), classes)
    labelled = confusion.sum(axis=1) > 0
    # Of the classes that are in the photo: one that is only predicted shows in those whose pixels it takes.
    iou = float(iou_per_class(confusion)[labelled].mean()) if labelled.any() else 1.0
    return {
        "iou": iou,
        **at_limits(iou),
        "confusion": confusion.ravel().astype(np.float64),
        **class_disagreement(truth, probability, VOID),
    }


class Scorer:
    """Scores photos in order, in ``workers`` processes, or in this one where that is 0."""

    def __init__(self, workers: int, *, stretch: bool = False) -> None:
        self.workers, self.stretch = workers, stretch

    def map(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Row]:
        """The scores of (truth, probability) pairs, in their order; only a few pairs are held.

        Raises `MemoryExhaustedError` if a process is killed, which is what a system without memory does.
        """
        if not self.workers:
            for truth, probability in pairs:
                yield score(truth, probability, self.stretch)
            return
        # Spawned: a fork of a process with a backend's threads may hang.
        with ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=_begin_worker) as pool:
            waiting: deque[Future[Row]] = deque()
            try:
                for truth, probability in pairs:
                    waiting.append(pool.submit(score, truth, probability, self.stretch))
                    if len(waiting) > 4 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool as error:
                raise MemoryExhaustedError(
                    f"one of the {self.workers} processes that score photos was killed, most likely for want of "
                    "memory: ask for fewer workers (0 scores in this process), or a smaller batch_size"
                ) from error
            finally:
                for future in waiting:
                    future.cancel()


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that asks, and end with it however it ends: an executor's workers wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def workers_for(scorings: int, asked: int | None) -> int:
    """``asked``, or else a process for each core that this one may use, where there is work enough."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16, scorings // _WORTH_A_PROCESS)
