"""``history.csv``: a row per epoch, columns as in `EpochRecord`; empty where there is no value."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

from training.files import write_text
from training.result import EpochRecord


def write_history(path: Path, history: Iterable[EpochRecord]) -> None:
    """Replace the file: it is whole after every epoch."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(field.name for field in fields(EpochRecord))
    for record in history:
        rows.writerow("" if value is None else value for value in astuple(record))
    write_text(path, text.getvalue())
