"""The files of one training, and the directory they lie in."""

import os
from dataclasses import dataclass
from pathlib import Path

from training.errors import CheckpointError, OutputError
from training.files import make_output_directory

_EVENTS = "events.out.tfevents."


@dataclass(frozen=True)
class Outputs:
    """Where each file of a training lies."""

    directory: Path

    @property
    def checkpoint(self) -> Path:
        """The model with the best validation IoU: ``keras.models.load_model`` needs nothing else."""
        return self.directory / "best.keras"

    @property
    def state(self) -> Path:
        """Where the training stands, to be resumed: see `training.state`."""
        return self.directory / "state.npz"

    @property
    def history_csv(self) -> Path:
        """A row per epoch."""
        return self.directory / "history.csv"

    @property
    def history_plot(self) -> Path:
        """Loss and IoU by epoch, drawn."""
        return self.directory / "history.png"

    @property
    def predictions(self) -> Path:
        """Photo | truth | prediction | overlay, of some of the validation split, by the kept model."""
        return self.directory / "predictions.png"

    @property
    def report(self) -> Path:
        """What was trained on what, and how well: JSON, written last."""
        return self.directory / "report.json"

    def prediction_sheet(self, samples: int) -> Path:
        """The same while training, smaller, after ``samples`` examples."""
        return self.directory / "predictions" / f"{samples:09}.jpg"

    def event_file(self, suffix: str) -> Path:
        """One of TensorBoard's event files; ``suffix`` tells those of one training apart."""
        return self.directory / f"{_EVENTS}{suffix}"

    def existing(self) -> list[Path]:
        """Those of the files that are there."""
        files = [self.checkpoint, self.state, self.history_csv, self.history_plot, self.predictions, self.report]
        files += sorted(self.directory.glob(f"{_EVENTS}*"))
        files += sorted(self.prediction_sheet(0).parent.glob("*.jpg"))
        return [path for path in files if path.exists()]

    def remove_unfinished(self) -> None:
        """Delete what a process that was killed had begun to write: states are large."""
        for path in (self.checkpoint, self.state, self.history_csv, self.history_plot, self.predictions, self.report):
            for unfinished in self.directory.glob(f".{path.stem}.????????{path.suffix}"):
                unfinished.unlink(missing_ok=True)
        for unfinished in self.prediction_sheet(0).parent.glob(".*.????????.jpg"):
            unfinished.unlink(missing_ok=True)


def prepare_outputs(output_dir: str | os.PathLike[str], *, overwrite: bool, resume: bool = False) -> Outputs:
    """Make the directory if need be. Raises `OutputError` if it cannot be written, or holds another training
    and neither ``overwrite`` allows to replace it nor ``resume`` to go on with it. Deletes nothing.
    """
    outputs = Outputs(Path(output_dir))
    make_output_directory(outputs.directory)
    present = outputs.existing()
    if resume:
        if outputs.checkpoint.exists() and not outputs.state.exists():
            raise OutputError(
                f"{outputs.directory} holds a training without its state ({outputs.state.name}), which cannot be "
                "resumed: name another directory, begin from its best.keras with init, or allow overwriting"
            )
    elif present and not overwrite:
        names = ", ".join(path.name for path in present)
        raise OutputError(
            f"{outputs.directory} holds another training ({names}): name another directory, allow overwriting, "
            "or resume it"
        )
    return outputs


def existing_checkpoint(path: str | os.PathLike[str]) -> Path:
    """``path``, if there is such a file; else `CheckpointError`."""
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {file}: name a best.keras that a training has written")
    return file
