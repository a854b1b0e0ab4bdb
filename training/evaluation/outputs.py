"""The files of one evaluation, and the directory they lie in."""

import os
from dataclasses import dataclass
from pathlib import Path

from training.errors import OutputError
from training.files import make_output_directory


@dataclass(frozen=True)
class EvaluationOutputs:
    """Where each file of an evaluation lies."""

    directory: Path

    @property
    def page(self) -> Path:
        """The report for people: one HTML file that needs no other."""
        return self.directory / "evaluation.html"

    @property
    def report(self) -> Path:
        """The report for programs: JSON, written last."""
        return self.directory / "evaluation.json"

    @property
    def suspects(self) -> Path:
        """The labels to look at again, a row each."""
        return self.directory / "suspects.csv"

    @property
    def scores(self) -> Path:
        """The scores of each photo by each run, a row each."""
        return self.directory / "scores.csv"

    def existing(self) -> list[Path]:
        """Those of the files that are there."""
        return [path for path in (self.page, self.report, self.suspects, self.scores) if path.exists()]


def prepare_evaluation(output_dir: str | os.PathLike[str], *, overwrite: bool) -> EvaluationOutputs:
    """Make the directory if need be. Raises `OutputError` if it cannot be written, or holds another evaluation and
    ``overwrite`` does not allow to replace it. Deletes nothing.
    """
    outputs = EvaluationOutputs(Path(output_dir))
    make_output_directory(outputs.directory)
    present = outputs.existing()
    if present and not overwrite:
        names = ", ".join(path.name for path in present)
        raise OutputError(
            f"{outputs.directory} holds another evaluation ({names}): name another directory, or allow overwriting"
        )
    return outputs
