"""The whole path on one machine: a server, two datasets by configuration, a short training, and pictures of it all.

Nothing here is special to the demo: the server is the real daemon in a process of its own, the requests go through
`dataset_client`, and the training through `training.launch_training`.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from dataset_client import Dataset, DatasetClientError, request_dataset
from dataset_handlers.authors.dataset import open_dataset
from dataset_handlers.authors.preview import contact_sheet
from dataset_server.settings import own_handlers
from dataset_server.sources import declared_version
from training import FitOptions, TrainingError, launch_training

MARKER = "made-by-the-demo.txt"
#: Augmented photos with saliency masks, to train on.
TRAINING: dict[str, Any] = {
    "input_attributes": ["image"],
    "image_size": [96, 96],
    "crop_size": [80, 80],
    "random_crop_centered": True,
    "variations_per_sample": 2,
    "flip_horizontal": 0.5,
    "rotation": [-10, 10],
    "exposure": [-0.4, 0.4],
    "splits": {"train": 0.8, "validation": 0.2},
    "batch_size": 16,
}
#: Subjects cut out of COCO photos and placed on other backgrounds, to look at.
COMPOSITE: dict[str, Any] = {
    "image_size": [192, 256],
    "subject_scale": [0.6, 0.9],
    "flip_horizontal": 0.5,
    "limit": 40,
    "splits": {"train": 0.8, "validation": 0.2},
}


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-root", type=Path, help="raw data of your own: folders coco, duts and backgrounds")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for all results")
    parser.add_argument("--epochs", type=int, default=12, help="epochs to train")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        run(options.output.resolve(), options.raw_root, options.epochs)
    except KeyboardInterrupt:
        print("\ninterrupted; the server was stopped", file=sys.stderr)
        return 130
    except (DatasetClientError, TrainingError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(output: Path, raw_root: Path | None, epochs: int) -> None:
    """Make raw data if there is none, serve, request, train, and leave the pictures in ``output``."""
    started = time.monotonic()
    prepare(output)
    composite = dict(COMPOSITE)
    if raw_root is None:
        from examples.demo_data import make_raw_data

        raw_root = output / "raw"
        say("making raw data: photographs that scikit-image ships, with drawn subjects, laid out as COCO and DUTS")
        make_raw_data(raw_root)
        composite["categories"] = ["figure"]
    version = declared_version(own_handlers())
    with server(raw_root, output / "server") as url:
        where = {"server_url": url, "cache_dir": output / "cache"}
        say(f"requesting 'composite' at version {version} from {url}")
        dataset = request_dataset("composite", version, composite, **where)
        draw(dataset, output / "composite.png")
        say("requesting 'duts', then training a small U-Net on it")
        result = launch_training(
            "duts",
            version,
            TRAINING,
            output_dir=output / "training",
            fit_options=FitOptions(model_options={"base_filters": 8, "depth": 3}, epochs=epochs, batch_size=16),
            **where,
        )
        # Equal requests are answered from the cache: this one moves no data.
        draw(request_dataset("duts", version, TRAINING, **where), output / "duts.png")
    split, before, after = result.validation_split, result.iou_before, result.iou_after
    say(f"IoU on the split '{split}': {before:.3f} before, {after:.3f} after training")
    say(f"done in {time.monotonic() - started:.0f} s; look at:")
    for picture in (
        output / "composite.png",
        output / "duts.png",
        result.outputs.predictions,
        result.outputs.history_plot,
    ):
        print(f"  {picture}")


def prepare(output: Path) -> None:
    """An empty output folder, in place of an earlier demo's; a folder with anything else in it is left alone."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).is_file():
            raise SystemExit(f"demo: {output} holds something else than an earlier demo; name another --output")
        shutil.rmtree(output)
    mark(output)


def mark(output: Path) -> None:
    """Make the folder ``output`` and, if nothing is in it, let the next demo remove what will be."""
    output.mkdir(parents=True, exist_ok=True)
    if not any(output.iterdir()):
        (output / MARKER).write_text("Made by `make demo`, which removes this folder when it runs again.\n")


def draw(dataset: Dataset, picture: Path) -> None:
    """The first examples of each split, as `dataset-handlers preview` draws them."""
    contact_sheet(open_dataset(dataset.path), count=8, columns=4).save(picture)


def say(text: str) -> None:
    """One line of the story."""
    print(f"demo: {text}", flush=True)


@contextlib.contextmanager
def server(raw_root: Path, data_dir: Path) -> Iterator[str]:
    """A `dataset-server` on a free loopback port; yields its URL. It has ended when this is left, however."""
    command = [sys.executable, "-m", "dataset_server", "serve", "--port", "0"]
    command += ["--raw-root", str(raw_root), "--data-dir", str(data_dir)]
    data_dir.mkdir(parents=True)
    log_file = data_dir / "server.log"
    process = None
    try:
        with log_file.open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        if "http://" not in first:
            raise SystemExit(f"demo: the server did not start:\n{log_file.read_text()}")
        yield first.split()[-1]
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
