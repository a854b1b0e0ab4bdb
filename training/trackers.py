"""Where a training's numbers and pictures go while it runs, besides the files it always leaves."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from training.errors import BackendError, StoppedError
from training.event_file import EventFile, file_suffix
from training.options import FitOptions
from training.outputs import Outputs


class Tracker(Protocol):
    """What `training.fit.fit` tells; a step is a batch, counted from 1 over all epochs."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by tag: "loss/batch", "learning_rate", and after an epoch "loss/train", "iou/validation" ….."""

    def picture(self, step: int, path: Path, size: tuple[int, int]) -> None:
        """A JPEG of predictions, ``size`` = (height, width)."""

    def close(self, error: BaseException | None) -> None:
        """The training has ended: well, or by ``error``; after a `StoppedError` it can be resumed."""


class TensorBoard:
    """Writes an event file for ``tensorboard --logdir``."""

    def __init__(self, outputs: Outputs, *, first_step: int) -> None:
        self._file = EventFile(outputs.event_file(file_suffix()), first_step=first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As scalars of the same tags."""
        self._file.scalars(step, values)

    def picture(self, step: int, path: Path, size: tuple[int, int]) -> None:
        """As an image "predictions"."""
        self._file.image(step, "predictions", path.read_bytes(), height=size[0], width=size[1])

    def close(self, error: BaseException | None) -> None:  # noqa: ARG002  # the protocol's
        """Close the file."""
        self._file.close()


class MLflow:
    """Logs to MLflow, where its environment says (``MLFLOW_TRACKING_URI``), in a run of its own or the active one."""

    def __init__(self, subject: Mapping[str, Any]) -> None:
        require_mlflow()
        import mlflow

        self._mlflow: Any = mlflow
        self._own = mlflow.active_run() is None
        if self._own:
            mlflow.start_run()
        try:
            mlflow.log_params({name: str(value)[:500] for name, value in subject.items()})
        except Exception as error:
            self.close(error)
            raise

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As metrics; MLflow's names have no need for another form."""
        self._mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, path: Path, size: tuple[int, int]) -> None:  # noqa: ARG002  # the protocol's
        """As an artifact."""
        self._mlflow.log_artifact(str(path), artifact_path="predictions")

    def close(self, error: BaseException | None) -> None:
        """End the run, if it is ours: as finished, failed, or, where it was stopped, killed."""
        if self._own:
            self._mlflow.end_run(_run_status(error))


def _run_status(error: BaseException | None) -> str:
    """MLflow's word for how a run has ended."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED"


def require_mlflow() -> None:
    """Raise `BackendError` if MLflow is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        raise BackendError("mlflow is asked for and not installed: pip install mlflow, or leave the option out")


@contextmanager
def closing_trackers(trackers: Sequence[Tracker]) -> Iterator[None]:
    """Close all of them, in order, when what is done inside has ended, however it has.

    One that cannot be closed keeps none of the others from it, and takes the place of no other error.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as ended_by:
        error = ended_by
        raise
    finally:
        failures = []
        for tracker in trackers:
            try:
                tracker.close(error)
            except Exception as caught:  # a tracker may be of anybody's making
                failures.append(caught)
        if error is not None:
            for failure in failures:
                error.add_note(f"a tracker could not be closed, either: {failure!r}")
        elif failures:
            raise failures[0]


def make_trackers(
    options: FitOptions, outputs: Outputs, subject: Mapping[str, Any], *, first_step: int
) -> list[Tracker]:
    """TensorBoard always, MLflow where it is asked for."""
    trackers: list[Tracker] = [TensorBoard(outputs, first_step=first_step)]
    if options.mlflow:
        trackers.append(MLflow(subject))
    return trackers
