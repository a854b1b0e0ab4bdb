"""``dataset-train``: the command line of `training`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_client import DatasetClientError, open_dataset
from training.backend import require_backend
from training.config import make_options, read_config
from training.errors import OptionsError, StoppedError, TrainingError
from training.evaluation.command import add_evaluate_command
from training.launcher import launch_training
from training.losses import LOSSES
from training.models import model_names
from training.options import OPTIMIZERS, SCHEDULES, FitOptions
from training.ranks import ALONE, join
from training.result import FitResult

_EPILOG = """\
examples:
  # Ask the server at 10.0.0.5 for a dataset, wait for it without holding a GPU, then train.
  dataset-train launch duts 1.4.0 config.json --server http://10.0.0.5:8710 --output runs/duts

  # Train on a dataset directory that is already here.
  dataset-train fit ~/datasets/duts --output runs/duts-2 --epochs 40 --learning-rate 3e-4

  # By a configuration file; go on with it where it was stopped or killed.
  dataset-train fit ~/datasets/camvid --output runs/camvid --config camvid.toml
  dataset-train fit ~/datasets/camvid --output runs/camvid --config camvid.toml --resume

  # Two trainings and two baselines judged side by side on a split that neither has seen.
  dataset-train evaluate runs/duts runs/duts-2 --dataset ~/datasets/duts --output evaluation --baselines

  # Masks for photos of any size.
  dataset-train predict runs/duts/best.keras holiday/*.jpg --output masks

A training leaves best.keras, history.csv, history.png, predictions.png and report.json in DIR, and while it runs
state.npz, predictions/ and an event file for TensorBoard.
The backend is Keras' own choice (TensorFlow) unless KERAS_BACKEND names another.
"""

_CONFIG_HELP = """\
the dataset's configuration, a file with a JSON object such as
{"input_attributes": ["image"], "image_size": [256, 256], "seed": 1}; '-' reads standard input"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 after a message on stderr, 2 for wrong usage, 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    parsed = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow speaks of its build at every start
    try:
        parsed.run(parsed)
    except StoppedError as error:
        sys.stderr.write(f"dataset-train: {error}\n")
        return 128 + error.signal
    except (TrainingError, DatasetClientError) as error:
        sys.stderr.write(f"dataset-train: {error}\n")
        return 1
    except OSError as error:  # a full disk, a file without permission
        sys.stderr.write(f"dataset-train: {error}\n")
        return 1
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"dataset-train: {str(interrupt) or 'stopped'}\n")
        return 130
    return 0


def _launch(parsed: argparse.Namespace) -> None:
    """``dataset-train launch``."""
    result = launch_training(
        parsed.name,
        parsed.version,
        _read_config(parsed.config),
        output_dir=parsed.output,
        fit_options=_fit_options(parsed),
        server_url=parsed.server,
        cache_dir=parsed.cache_dir,
        timeout=parsed.timeout,
        progress=not parsed.quiet,
    )
    _show(result)


def _fit(parsed: argparse.Namespace) -> None:
    """``dataset-train fit``."""
    options = _fit_options(parsed)
    dataset = open_dataset(parsed.dataset_dir)
    backend = require_backend()
    ranks = join(parsed.ranks, backend) if parsed.ranks else ALONE
    from training.fit import fit

    result = fit(dataset, parsed.output, options, progress=not parsed.quiet, ranks=ranks)
    if ranks.leads:
        _show(result)


def _predict(parsed: argparse.Namespace) -> None:
    """``dataset-train predict``."""
    require_backend()
    from training.predict import predict_files

    for path in predict_files(parsed.checkpoint, parsed.photo, parsed.output, overwrite=parsed.overwrite):
        print(path)


def _show(result: FitResult) -> None:
    """The outcome, on standard output."""
    outputs = result.outputs
    where, best = result.validation_split, result.best_epoch
    print(f"IoU on {where!r}  {result.iou_before:.4f} untrained, {result.iou_after:.4f} kept (epoch {best})")
    for path in (outputs.checkpoint, outputs.report, outputs.history_plot, outputs.predictions):
        print(path)


#: Flags that are options of the same name.
_FLAGS = (
    "model", "init", "classes", "inputs", "epochs", "batch_size", "seed", "loss", "optimizer", "learning_rate",
    "schedule", "mixed_precision", "validation_split", "overwrite", "resume",
)  # fmt: skip


def _fit_options(parsed: argparse.Namespace) -> FitOptions:
    """The options of the configuration file, those of the command line in their place, and the defaults below."""
    values = read_config(parsed.fit_config) if parsed.fit_config else {}
    given = {name: getattr(parsed, name) for name in _FLAGS if getattr(parsed, name) is not None}
    for name, value in parsed.set:
        table, dot, entry = name.partition(".")
        if dot:
            given[table] = {**_table(given.get(table, {}), name), entry: value}
        else:
            given[name] = value
    if parsed.model_option:
        given["model_options"] = {**given.get("model_options", {}), **dict(parsed.model_option)}
    return make_options(values, given)


def _table(value: Any, name: str) -> dict[str, Any]:
    """``value``, if ``name`` can be an entry of it; else `OptionsError`."""
    if not isinstance(value, dict):
        raise OptionsError(f"--set {name} and {value!r} as the whole of it do not agree: leave one out")
    return value


def _read_config(path: str) -> dict[str, Any]:
    """The JSON object in a file or on standard input; `OptionsError` if there is none."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        config = json.loads(text)
    except OSError as error:
        raise OptionsError(f"cannot read the config {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"the config {path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise OptionsError(f"the config {path} is a JSON {type(config).__name__}; it should be an object, {{…}}")
    return config


def _model_option(text: str) -> tuple[str, Any]:
    """``name=value`` with the value in JSON."""
    name, separator, value = text.partition("=")
    wrong = argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with VALUE in JSON, such as base_filters=32")
    if not (name and separator):
        raise wrong
    try:
        return name, json.loads(value)
    except ValueError:
        raise wrong from None


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="dataset-train",
        description="Train segmentation models on datasets that a dataset server makes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    launch = commands.add_parser("launch", help="request a dataset, wait for it, then train on it")
    launch.add_argument("name", metavar="NAME", help="the dataset, such as coco or duts")
    launch.add_argument("version", metavar="VERSION", help="the handler's version: a release, tag or commit")
    launch.add_argument("config", metavar="CONFIG.json", help=_CONFIG_HELP)
    launch.add_argument("--server", metavar="URL", help="the dataset server (default: as for dataset-client)")
    launch.add_argument("--cache-dir", metavar="DIR", help="where datasets are kept (default: as for dataset-client)")
    launch.add_argument("--timeout", type=float, metavar="SECONDS", help="give up waiting after so long")
    _add_fit_options(launch)
    launch.set_defaults(run=_launch)

    fit = commands.add_parser("fit", help="train on a dataset directory that is already here")
    fit.add_argument("dataset_dir", metavar="DATASET_DIR", help="an unpacked dataset, with its manifest.json")
    _add_fit_options(fit)
    fit.add_argument(
        "--ranks",
        metavar="RANK/RANKS@HOST:PORT",
        help="be one of several processes that train one model on JAX, such as 0/2@10.0.0.5:7777 for the first of two",
    )
    fit.set_defaults(run=_fit)

    predict = commands.add_parser("predict", help="write the masks that a trained model sees in photos")
    predict.add_argument("checkpoint", metavar="CHECKPOINT", help="a best.keras")
    predict.add_argument("photo", metavar="IMAGE", nargs="+", help="photos of any size")
    predict.add_argument("--output", required=True, metavar="DIR", help="where <name of the photo>.png goes")
    predict.add_argument("--overwrite", action="store_true", help="replace files that are there")
    predict.set_defaults(run=_predict)

    add_evaluate_command(commands)
    return parser


def _add_fit_options(parser: argparse.ArgumentParser) -> None:
    """What `FitOptions` takes; an option left out has its default there."""
    default = FitOptions()
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="where checkpoint, report and pictures go")
    add("--overwrite", action="store_true", default=None, help="replace another training in the output directory")
    add(
        "--resume",
        action="store_true",
        default=None,
        help="go on with the training in the output directory, exactly where its state was saved; "
        "where there is none yet, begin",
    )
    add(
        "--config",
        dest="fit_config",
        metavar="TRAIN.toml",
        help="options as in docs/training.md; those given here come before them",
    )
    add(
        "--set",
        type=_model_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any option of the configuration file, the value in JSON, such as augmentation.flip=0.5; may be repeated",
    )
    add("--init", metavar="CHECKPOINT", help="take the first weights from a best.keras of the same model")
    add("--quiet", action="store_true", help="no progress on stderr")
    add("--model", choices=model_names(), help=f"default {default.model}")
    add(
        "--model-option",
        type=_model_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the model, such as base_filters=32; may be given several times",
    )
    add("--classes", type=int, metavar="N", help="default: what the dataset's manifest says; 1 is one subject")
    add("--inputs", nargs="+", metavar="PLANE", help="what the model sees beside the photo, such as clicks or trimap")
    add("--epochs", type=int, metavar="N", help=f"default {default.epochs}")
    add("--batch-size", type=int, metavar="N", help=f"default {default.batch_size}")
    add("--learning-rate", type=float, metavar="RATE", help=f"default {default.learning_rate:g}")
    add(
        "--seed",
        type=int,
        metavar="N",
        help=f"of the weights and the order of examples; default {default.seed}",
    )
    add("--loss", choices=LOSSES, help="default bce+dice for one subject, ce for several classes")
    add("--optimizer", choices=OPTIMIZERS, help=f"default {default.optimizer}")
    add("--schedule", choices=SCHEDULES, help=f"of the learning rate; default {default.schedule}")
    add("--mixed-precision", choices=("bfloat16", "float16"), help="compute in it; weights stay float32")
    add(
        "--validation-split",
        metavar="SPLIT",
        help="to choose the checkpoint on; default 'validation', or else 'test', which flatters",
    )


if __name__ == "__main__":
    sys.exit(main())
