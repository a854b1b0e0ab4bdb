"""The main job through the client: ask, wait, download, verify, read."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dataset_client
from dataset_client import request_dataset
from dataset_client.errors import BuildFailedError, ConfigRefusedError, NotCachedError, UnknownDatasetError

CONFIG = {
    "categories": ["figure"],
    "image_size": [64, 96],
    "crop_size": [48, 64],
    "splits": {"train": 0.75, "validation": 0.25},
    "batch_size": 4,
}


@pytest.fixture
def ask(server, tmp_path):
    def ask(name="coco", version="0.1.0", config=CONFIG, **more):
        options = {"server_url": server.url, "cache_dir": tmp_path / "cache", "progress": False, "timeout": 120, **more}
        return request_dataset(name, version, config, **options)

    return ask


def test_a_dataset_from_request_to_arrays(ask):
    dataset = ask()
    assert dataset.splits == {"train": 24, "validation": 8}
    for split, count in dataset.splits.items():
        examples = list(dataset.as_numpy_iterator(split))
        assert len(examples) == count
        for example in examples:
            assert example["image"].shape == (48, 64, 3)
            assert example["mask"].shape == (48, 64, 1)
            assert example["image"].dtype == example["mask"].dtype == np.uint8
    dataset.verify()


#: Every built-in handler, with all that it can say of an example.
CANVAS = {"image_size": [120, 160], "image_encoding": "png", "splits": {"train": 0.75, "validation": 0.25}}
PHOTO = ["image", "trimap", "clicks", "source_id"]
INSTANCES = [*PHOTO, "boxes", "category"]
EVERYTHING = {
    "coco": {"input_attributes": INSTANCES, "categories": ["figure", "ball"]},
    "duts": {"input_attributes": PHOTO},
    "cutouts": {
        "input_attributes": [*INSTANCES, "alpha", "cluster"],
        "category_from": "folder",
        "items_per_picture": [1, 3],
        "clusters": 4,
        "balance": 1.0,
    },
    "mattes": {"input_attributes": [*PHOTO, "alpha"], "variations_per_sample": 2, "rotation": [-20, 20]},
    "composite": {
        "input_attributes": [*INSTANCES, "alpha"],
        "subjects": "cutouts",
        "category_from": "folder",
        "subjects_per_picture": [1, 3],
        "match_light": 0.5,
    },
    "logos": {
        "input_attributes": [*INSTANCES, "alpha"],
        "logos_per_picture": [1, 3],
        "match_light": 0.5,
        "logo_scale": [0.06, 0.3],
        "splits": {"train": 1.0},  # a third of the backgrounds are textures, with no surface to set anything on
    },
}
KINDS = {"balls", "flowers", "leaves", "stars"}
CATEGORIES = {
    "coco": {"figure", "ball"},
    "cutouts": KINDS,
    "composite": KINDS,
    "logos": {"arrow", "cross", "heart", "house", "letter", "play", "star", "target"},
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_handler_says_all_it_knows(ask, name):
    dataset = ask(name, config={**CANVAS, **EVERYTHING[name]})
    dataset.verify()
    categories, clusters = [], []
    for split, count in dataset.splits.items():
        examples = list(dataset.as_numpy_iterator(split))
        assert len(examples) == count > 0
        for example in examples:
            check_labels(example)
            categories += example.get("category", [])
            clusters += [int(example["cluster"])] if "cluster" in example else []
    assert set(categories) == CATEGORIES.get(name, set())
    assert set(clusters) == (set(range(4)) if name == "cutouts" else set())


def check_labels(example):
    """All labels of an example speak of the same subjects."""
    mask, trimap = example["mask"], example["trimap"]
    assert example["image"].shape == (120, 160, 3)
    assert mask.shape == trimap.shape == example["positive_clicks"].shape == (120, 160, 1)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[trimap == 255] == 255).all()
    assert (mask[trimap == 0] == 0).all()
    assert (mask[example["positive_clicks"] == 0] == 255).all()
    assert (mask[example["negative_clicks"] == 0] == 0).all()
    if "alpha" in example:
        agree = (example["alpha"] >= 128) == (mask == 255)
        assert agree.mean() > 0.97  # one is resampled linearly, the other by its nearest pixel
    if "boxes" in example:
        boxes = example["boxes"]
        assert boxes.shape == (len(example["category"]), 4)
        assert (boxes >= 0).all()
        assert (boxes <= 1).all()
        rows, columns = np.nonzero(mask[..., 0])
        around = np.array([rows.min() / 120, columns.min() / 160, (rows.max() + 1) / 120, (columns.max() + 1) / 160])
        together = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
        np.testing.assert_allclose(together, around, atol=1.01 / 120)


def test_the_second_call_comes_from_the_cache(ask, server):
    first = ask(config={**CONFIG, "seed": 3})
    # Another spelling of the same is the same dataset, and nothing is fetched twice.
    written = first.path.stat().st_mtime_ns
    again = ask(config={**CONFIG, "seed": 3, "batch_size": 100, "limit": None})
    assert (again.path, again.path.stat().st_mtime_ns) == (first.path, written)
    offline = ask(config={**CONFIG, "seed": 3}, offline=True, server_url="http://127.0.0.1:1")
    assert offline.path == first.path
    with pytest.raises(NotCachedError):
        ask(config={**CONFIG, "seed": 4}, offline=True)


async def test_inside_a_running_loop(ask):
    assert ask().splits["train"] == 24


def test_refusals_and_failures_have_names(ask):
    with pytest.raises(UnknownDatasetError, match="this server makes"):
        ask(name="nonesuch")
    with pytest.raises(ConfigRefusedError, match="did you mean 'crop_size'"):
        ask(config={"crop_sizes": [1, 1]})
    with pytest.raises(BuildFailedError) as failure:
        ask(name="faulty", version="1.0", config={"fault": "raise"})
    assert failure.value.code == "handler_failed"
    assert "the handler's own mistake" in str(failure.value)


def test_the_server_is_killed_while_the_client_waits(make_server, plugin_sources, tmp_path):
    server = make_server("killed", handlers=plugin_sources)
    port = server.url.rsplit(":", 1)[1]
    config = {"fault": "slow", "count": 64, "examples_per_shard": 8}

    async def scenario():
        waiting = asyncio.create_task(
            dataset_client.request_dataset_async(
                "faulty", "1.0", config, server_url=server.url, cache_dir=tmp_path / "cache", progress=False
            )
        )
        while not await asyncio.to_thread(lambda: server.get("datasets?state=building").json()["total"]):
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        await asyncio.to_thread(make_server, "killed", handlers=plugin_sources, port=int(port))
        return await asyncio.wait_for(waiting, 120)

    dataset = asyncio.run(scenario())
    assert dataset.splits == {"train": 64}


def test_the_command_line(server, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    environment = {**os.environ, "DATASET_SERVER_URL": server.url, "DATASET_CACHE_DIR": str(tmp_path / "cache")}

    def run(*arguments):
        command = [sys.executable, "-m", "dataset_client.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    made = run("request", "coco", "0.1.0", str(config))
    assert made.returncode == 0, made.stderr
    folder = made.stdout.strip()
    assert (Path(folder) / "manifest.json").is_file()
    listed = run("ls")
    assert "coco_" in listed.stdout
    shown = run("show", folder)
    assert "validation" in shown.stdout
    refused = run("request", "coco", "9", str(config))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "0.1.0" in refused.stderr


def test_a_handler_that_implements_the_whole_contract_is_read_too(ask):
    dataset = ask(name="whole", version="1.0", config={"count": 3})
    examples = list(dataset.as_numpy_iterator("test"))
    assert [(int(example["number"]), example["name"]) for example in examples] == [(0, b"0"), (1, b"1"), (2, b"2")]
