"""``scores.csv``: a row for each photo and run."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from training.evaluation.scores import Scores
from training.evaluation.suspects import plain


def scores_csv(scores: Scores, names: Sequence[str]) -> str:
    """Every score that is one number and that some photo has; empty where a photo has none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [
        name
        for name, column in scores.tables[0].items()
        if column.ndim == 1 and any(np.isfinite(table[name]).any() for table in scores.tables)
    ]
    writer.writerow(["number", "source_id", "subject_share", "run", *columns])
    for place, photo in enumerate(scores.facts):
        share = "" if photo.share is None else f"{photo.share:.6f}"
        for name, table in zip(names, scores.tables, strict=True):
            values = (float(table[column][place]) for column in columns)
            numbers = [f"{value:.6g}" if value == value else "" for value in values]
            writer.writerow([photo.number, plain(photo.key or ""), share, plain(name), *numbers])
    return out.getvalue()
