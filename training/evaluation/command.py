"""``dataset-train evaluate``: its options, and what it prints. Imports no Keras until it runs."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from dataset_client import open_dataset
from training.backend import require_backend
from training.evaluation.options import EvaluationOptions


def add_evaluate_command(commands: Any) -> None:
    """Add the command to the subparsers of ``dataset-train``."""
    default = EvaluationOptions()
    parser = commands.add_parser("evaluate", help="judge trained models on a split of a dataset")
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="a training's directory or a .keras file; several are put side by side")
    add("--dataset", required=True, metavar="DIR", help="an unpacked dataset, with its manifest.json")
    add("--split", default=default.split, metavar="SPLIT", help=f"default {default.split}")
    add("--output", required=True, metavar="DIR", help="where the report and the work lists go")
    add("--baselines", action="store_true", help="report a centre prior and a colour model beside the runs")
    add("--train-dataset", metavar="DIR", help="the dataset that baselines are fitted on; default the evaluated one")
    add(
        "--train-split",
        default=default.train_split,
        metavar="SPLIT",
        help=f"what baselines are fitted on; default {default.train_split}",
    )
    add("--resize", action="store_true", help="let models see photos at their own size; masks are resized back")
    add("--stretch", action="store_true", help="stretch predictions to 0 … 1 for the measures of saliency")
    add("--batch-size", type=int, default=default.batch_size, metavar="N", help=f"default {default.batch_size}")
    add("--examples", type=int, default=default.examples, metavar="N", help="best and worst photos shown, of each")
    add("--suspects", type=int, default=default.suspects, metavar="N", help="suspect labels shown")
    add(
        "--resamples",
        type=int,
        default=default.resamples,
        metavar="N",
        help=f"of the bootstrap; default {default.resamples}",
    )
    add(
        "--confidence",
        type=float,
        default=default.confidence,
        metavar="SHARE",
        help=f"of the intervals; default {default.confidence:g}",
    )
    add("--seed", type=int, default=default.seed, metavar="N", help="of the resamples")
    add("--class-names", metavar="NAMES", help="names of the classes in order, separated by commas")
    add("--workers", type=int, metavar="N", help="processes that score; 0 is this one; default: as many as pay")
    add("--overwrite", action="store_true", help="replace another evaluation in the output directory")
    add("--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> None:
    """Evaluate, then say the two numbers most asked for and where the report is."""
    copied = set(vars(EvaluationOptions())) - {"class_names"}
    given = {name: getattr(parsed, name) for name in copied}
    names = tuple(name.strip() for name in parsed.class_names.split(",")) if parsed.class_names else ()
    options = EvaluationOptions(class_names=names, **given)
    dataset = open_dataset(parsed.dataset)
    train_dataset = open_dataset(parsed.train_dataset) if parsed.train_dataset else None
    require_backend()
    from training.evaluation.evaluate import evaluate_runs

    done = evaluate_runs(
        dataset, parsed.runs, parsed.output, options, train_dataset=train_dataset, progress=not parsed.quiet
    )
    for run in done.report["runs"]:
        mean, share = run["results"]["mean_iou"], run["results"]["iou_95"]
        sys.stdout.write(f"{run['name']:<24} mean IoU {_interval(mean)}   photos at 0.95 or more {_interval(share)}\n")
        if run["warning"]:
            sys.stderr.write(f"{run['warning']}\n")
    for path in (done.outputs.page, done.outputs.report, done.outputs.suspects, done.outputs.scores):
        sys.stdout.write(f"{path}\n")


def _interval(number: Mapping[str, float | None]) -> str:
    """``0.842 [0.801, 0.880]``."""
    value, low, high = (number[key] for key in ("value", "low", "high"))
    if value is None:
        return "none"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
