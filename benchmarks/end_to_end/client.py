"""One measured client. Prints seconds since the request as JSON.

    python -m benchmarks.end_to_end.client '{"how": "first", "url": …, "config": …, "cache": …}'

``first`` takes one batch of a stream and waits for the rest; ``streamed`` trains an epoch on a stream; ``sequence``
waits for the build, downloads the zip, unzips it, and trains an epoch on what came out.
"""

import asyncio
import json
import os
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

BATCH = 8
#: A very small U-Net; on a core its epoch takes several times as long as the build does, nevertheless.
MODEL = {"base_filters": 2, "depth": 2}
TRAINED_BATCH = 32


class Clock:
    """Seconds since the request, by what happened."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.marks: dict[str, float] = {}

    def mark(self, what: str) -> None:
        """It happened now; the first time counts."""
        self.marks.setdefault(what, round(time.perf_counter() - self._began, 3))


def first(asked: dict) -> dict:
    from dataset_client import make_request, request_dataset

    where = {"server_url": asked["url"], "cache_dir": asked["cache"], "progress": False}
    request = make_request("coco", asked["version"], asked["config"])
    clock = Clock()
    listening = threading.Thread(target=lambda: asyncio.run(_listen(request, asked["url"], clock)))
    listening.start()
    with request_dataset("coco", asked["version"], asked["config"], stream=True, **where) as stream:
        batch = next(stream.batches("train", batch_size=BATCH))
        clock.mark("first batch")
        whole = stream.dataset(3600)
        clock.mark("all here")
    listening.join()
    return {
        "dataset_id": whole.dataset_id,
        "examples": whole.splits["train"],
        "batch": len(batch["image"]),
    } | clock.marks


async def _listen(request, url: str, clock: Clock) -> None:
    """When the server said what."""
    from dataset_client import watch

    async for event in watch(request, server_url=url):
        clock.mark(event.data["state"] if event.kind == "state" else event.kind)


def train(asked: dict) -> dict:
    import keras

    from dataset_client import Dataset
    from training.losses import create_loss
    from training.models import create_model

    keras.utils.set_random_seed(1)
    model = create_model("unet", (*asked["config"]["crop_size"], 3), 1, **MODEL)
    model.compile(keras.optimizers.Adam(1e-3), create_loss("bce+dice"))
    clock = Clock()
    done = list[int]()  # Keras' own counter is one ahead at the end of a generator

    def step(batch: int, logs: object) -> None:  # noqa: ARG001 - Keras names them
        done.append(batch)
        clock.mark("first step")

    marks = keras.callbacks.LambdaCallback(on_train_batch_end=step)
    options = {"epochs": 1, "verbose": 0, "callbacks": [marks], "shuffle": False}
    if asked["how"] == "streamed":
        from dataset_client import request_dataset

        where = {"server_url": asked["url"], "cache_dir": asked["cache"], "progress": False}
        with request_dataset("coco", asked["version"], asked["config"], stream=True, **where) as stream:
            model.fit(stream.keras_batches("train", batch_size=TRAINED_BATCH), **options)
            clock.mark("trained")
            dataset = stream.dataset(3600)
    else:
        dataset = Dataset.open(_unzipped(asked, clock))
        model.fit(dataset.as_keras_dataset("train", batch_size=TRAINED_BATCH), **options)
        clock.mark("trained")
    steps, examples = len(done), dataset.splits["train"]
    if steps != -(-examples // TRAINED_BATCH):
        raise SystemExit(f"{steps} steps for {examples} examples")
    return {"dataset_id": dataset.dataset_id, "examples": examples} | clock.marks


def _unzipped(asked: dict, clock: Clock) -> Path:
    """The dataset as one gets it without a client: wait, download, unzip."""
    import requests

    from dataset_client import make_request, wait_for_completion

    request = make_request("coco", asked["version"], asked["config"])
    api = f"{asked['url']}/api/v1"
    requests.post(f"{api}/datasets", data=request.body(), headers={"Content-Type": "application/json"}, timeout=60)
    ready = asyncio.run(wait_for_completion(request, server_url=asked["url"]))
    clock.mark("ready")
    folder = Path(asked["cache"])
    folder.mkdir(parents=True)
    with requests.get(f"{api}/{ready.data['archive']['url']}", stream=True, timeout=60) as answer:
        answer.raise_for_status()
        with (folder / "dataset.zip").open("wb") as file:
            for block in answer.iter_content(1 << 20):
                file.write(block)
    clock.mark("downloaded")
    with zipfile.ZipFile(folder / "dataset.zip") as archive:
        archive.extractall(folder / "dataset")
    clock.mark("unzipped")
    return folder / "dataset"


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked.get("cores"):
        os.sched_setaffinity(0, asked["cores"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras', about the end of a generator
        print(json.dumps(first(asked) if asked["how"] == "first" else train(asked)))


if __name__ == "__main__":
    main()
