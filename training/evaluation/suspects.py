"""The work list for relabelling: the labels that the best model surely contradicts."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation.bootstrap import Table
from training.evaluation.groups import Facts

#: A label with less of it contradicted is no suspect.
LEAST = 0.1
_MOSTLY = 4  # times as much of one kind as of the other


@dataclass(frozen=True)
class Suspect:
    """A label that is contradicted: ``suspicion`` in [0, 1] by the best model, ``by_run`` by each.

    ``what`` is the sentence, ``box`` (top, left, bottom, right) as shares of height and width, both of the best model.
    """

    photo: Facts
    suspicion: float
    by_run: Mapping[str, float]
    what: str
    box: tuple[float, float, float, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "number": self.photo.number,
            "source_id": self.photo.key,
            "raw_files": list(self.photo.files),
            "suspicion": round(self.suspicion, 4),
            "by_run": {name: round(value, 4) for name, value in self.by_run.items()},
            "what": self.what,
            "box": [round(side, 4) for side in self.box],
        }


def find_suspects(facts: Sequence[Facts], tables: Mapping[str, Table], class_names: Sequence[str]) -> list[Suspect]:
    """The suspects, the worst first; ``tables`` are the models' by name, at least one.

    The model with the highest mean IoU decides: a worse one beside it neither adds suspects nor takes any away.
    """
    best = max(tables.values(), key=lambda table: float(table["iou"].mean()))
    suspicion = best["suspicion"]
    found = []
    for place in np.argsort(-suspicion, kind="stable"):
        if suspicion[place] < LEAST:
            break
        found.append(
            Suspect(
                photo=facts[place],
                suspicion=float(suspicion[place]),
                by_run={name: float(table["suspicion"][place]) for name, table in tables.items()},
                what=_what(best, place, class_names),
                box=tuple(float(best[side][place]) for side in ("top", "left", "bottom", "right")),  # type: ignore[arg-type]
            )
        )
    return found


def suspects_csv(suspects: Sequence[Suspect]) -> str:
    """A row per suspect; a cell that a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["rank", "source_id", "number", "suspicion", "what", "top", "left", "bottom", "right", "raw_files"])
    for rank, suspect in enumerate(suspects, 1):
        row = [rank, plain(suspect.photo.key or ""), suspect.photo.number, f"{suspect.suspicion:.4f}", suspect.what]
        writer.writerow([*row, *(f"{side:.4f}" for side in suspect.box), plain(" ".join(suspect.photo.files))])
    return out.getvalue()


def plain(text: str) -> str:
    """Text that no spreadsheet runs as a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _what(table: Table, place: int, class_names: Sequence[str]) -> str:
    """What disagrees, in words."""
    if "labelled" in table:
        labelled, seen = (int(table[key][place]) for key in ("labelled", "seen"))
        return f"labelled {class_names[labelled]}, where the model surely sees {class_names[seen]}"
    missing, extra = float(table["missing"][place]), float(table["extra"][place])
    if missing >= _MOSTLY * extra:
        return "the label leaves out what the model is sure is subject"
    if extra >= _MOSTLY * missing:
        return "the label covers what the model is sure is ground"
    return "label and model surely mean different things"
