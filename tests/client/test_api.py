"""The public functions as callers use them: scripts, notebooks, several processes."""

import asyncio
import importlib.metadata
import json
import pickle
import signal
import subprocess
import sys

import pytest
from client_archives import make_archive

import dataset_client
from dataset_client import errors, open_dataset, request_dataset, request_dataset_async

CONFIG = {"batch_size": 2, "limit": 7}


@pytest.fixture
def where(server, tmp_path):
    return {"server_url": server.url, "cache_dir": tmp_path / "cache", "progress": False}


def test_in_a_script(topic, where):
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    assert dataset.splits == {"train": 5, "val": 2}
    assert dataset.config == CONFIG
    assert dataset.dataset_id == topic.archive.dataset_id
    assert [path.name for path in dataset.files("val")] == ["discs-val.tfrecord-00000-of-00001"]
    dataset.verify()


async def test_in_a_notebook_whose_loop_runs(topic, where):
    assert request_dataset("discs", "v1", CONFIG, **where).path.is_dir()


async def test_errors_come_through_in_a_notebook_too(where):
    with pytest.raises(errors.UnknownDatasetError):
        request_dataset("discs", "v1", CONFIG, **where)


async def test_in_async_code(topic, where):
    assert (await request_dataset_async("discs", "v1", CONFIG, **where)).path.is_dir()


def test_the_environment_fills_in(topic, server, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_SERVER_URL", server.url + "/")
    monkeypatch.setenv("DATASET_SERVER_TOKEN", "s3cret")
    monkeypatch.setenv("DATASET_CACHE_DIR", str(tmp_path / "elsewhere"))
    server.token = "s3cret"
    dataset = request_dataset("discs", "v1", CONFIG, progress=False)
    assert tmp_path / "elsewhere" in dataset.path.parents


def test_timeout_leaves_the_build_alone(topic, where):
    topic.on_ask = [("state", {"state": "building"})]
    with pytest.raises(errors.WaitTimeoutError, match="asking again picks it up"):
        request_dataset("discs", "v1", CONFIG, timeout=0.2, **where)


def test_offline(server, topic, where):
    with pytest.raises(errors.NotCachedError, match="offline=False"):
        request_dataset("discs", "v1", CONFIG, offline=True, **where)
    online = request_dataset("discs", "v1", CONFIG, **where)
    before = len(server.posts), len(server.sockets)
    assert request_dataset("discs", "v1", CONFIG, offline=True, **where).path == online.path
    assert (len(server.posts), len(server.sockets)) == before


@pytest.mark.parametrize("offline", [True, False])
def test_a_timeout_is_a_number(server, topic, where, offline):
    with pytest.raises(errors.InvalidSettingError, match="'5'"):
        request_dataset("discs", "v1", CONFIG, offline=offline, timeout="5", **where)
    assert server.posts == []


def test_a_dataset_can_be_a_key(topic, where):
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    assert {dataset: 1}[dataset] == 1


def test_key_order_and_tuples_make_no_other_request(server, topic, where):
    request_dataset("discs", "v1", CONFIG, **where)
    request_dataset("discs", "v1", dict(reversed(CONFIG.items())), offline=True, **where)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("Discs", "v1", {}), "dataset name"),
        (("discs\n", "v1", {}), "dataset name"),
        (("discs", "--version", {}), "handler version"),
        (("discs", ">=1", {}), "handler version"),
        (("discs", "v1", {"a": float("nan")}), "canonical"),
        (("discs", "v1", {"a": {1}}), "/a: set"),
        (("discs", "v1", {"a": "x" * (1 << 20)}), "bytes"),
        (("discs", "v1", []), "JSON object"),
    ],
)
def test_bad_requests_reach_no_network(arguments, match, server, where):
    with pytest.raises(errors.InvalidRequestError, match=match):
        request_dataset(*arguments, **where)
    assert server.sockets == []


def test_a_server_url_must_be_one(where):
    with pytest.raises(errors.InvalidSettingError, match="http://127"):
        request_dataset("discs", "v1", {}, **(where | {"server_url": "data:8710"}))


def test_open_dataset_by_path_id_and_beginning(topic, where):
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    cache_dir = where["cache_dir"]
    for name in (dataset.path, dataset.dataset_id, "discs"):
        assert open_dataset(name, cache_dir=cache_dir).path == dataset.path
    assert open_dataset("discs", cache_dir=cache_dir).config == {"limit": 7}
    with pytest.raises(errors.NotCachedError):
        open_dataset("coco", cache_dir=cache_dir)
    dataset.files("val")[0].write_bytes(b"")
    with pytest.raises(errors.IntegrityError, match="has 0 bytes"):
        open_dataset("discs", cache_dir=cache_dir)


def test_a_folder_that_is_no_dataset_hides_none(topic, where, tmp_path, monkeypatch):
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    (tmp_path / "discs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_dataset("discs", cache_dir=where["cache_dir"]).path == dataset.path


def test_of_several_revisions_the_newest_is_opened(topic, where):
    cache_dir, opened = where["cache_dir"], []
    for age, seed in ((100, 0), (0, 100), (200, 50)):
        topic.archive = make_archive(seed=seed)
        dataset = request_dataset("discs", "v1", CONFIG, **where)
        opened.append(dataset.path)
        sidecar = dataset.path.with_name(f"{dataset.path.name}.json")
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "installed": 1e9 - age}))
    for name in (dataset.dataset_id, "discs"):
        assert open_dataset(name, cache_dir=cache_dir).path == opened[1]
    assert open_dataset(opened[0].name, cache_dir=cache_dir).path == opened[0]
    topic.archive = make_archive(resolved="another")
    request_dataset("discs", "v1", CONFIG, **where)
    with pytest.raises(errors.NotCachedError, match="several"):
        open_dataset("discs", cache_dir=cache_dir)


@pytest.mark.parametrize("name", ["discs-train.tfrecord-00001-of-00003", "features.json", "lineage.jsonl"])
def test_verify_finds_a_flipped_bit(topic, where, name):
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    path = dataset.path / name
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match=path.name):
        dataset.verify()


def test_unknown_splits_name_the_known_ones(topic, where):
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    for ask in (dataset.files, dataset.as_numpy_iterator, dataset.as_tf_dataset):
        with pytest.raises(errors.UnknownSplitError, match="train, val"):
            ask("test")


def test_several_processes_share_a_cache(topic, where):
    program = (
        "import sys; from dataset_client import request_dataset as r;"
        "d = r('discs', 'v1', {'batch_size': 2, 'limit': 7}, server_url=sys.argv[1], cache_dir=sys.argv[2],"
        " progress=False); d.verify(); print(d.path)"
    )
    command = [sys.executable, "-c", program, where["server_url"], str(where["cache_dir"])]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(paths) == 1
    for folder in ("tmp", "downloads"):
        assert list((where["cache_dir"] / folder).iterdir()) == []


async def test_many_tasks_share_a_cache(topic, where):
    calls = (request_dataset_async("discs", "v1", CONFIG, **where) for _ in range(8))
    assert len({dataset.path for dataset in await asyncio.gather(*calls)}) == 1
    assert list((where["cache_dir"] / "downloads").iterdir()) == []


async def test_cancelling_leaves_no_temporary_file(server, topic, where):
    topic.on_ask = []
    call = asyncio.create_task(request_dataset_async("discs", "v1", CONFIG, **where))
    await asyncio.to_thread(server.wait_for_posts, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert list(where["cache_dir"].glob("tmp/*")) == []


def test_ctrl_c_in_a_notebook_ends_the_waiting(server, topic, where):
    topic.on_ask = [("state", {"state": "building"})]
    program = (
        "import asyncio, sys; from dataset_client import request_dataset as r\n"
        "async def cell(): r('discs', 'v1', {'batch_size': 2, 'limit': 7}, server_url=sys.argv[1],"
        " cache_dir=sys.argv[2], progress=False)\n"
        "loop = asyncio.new_event_loop(); loop.run_until_complete(cell())"
    )
    command = [sys.executable, "-c", program, where["server_url"], str(where["cache_dir"])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server.wait_for_posts(1)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode
    assert "KeyboardInterrupt: Interrupted. A build that was asked for goes on" in stderr
    assert list(where["cache_dir"].glob("tmp/*")) == []


def test_everything_exported_is_there():
    for name in dataset_client.__all__:
        assert getattr(dataset_client, name)


def test_importing_is_light():
    """What costs time is imported where it is needed."""
    heavy = "requests websockets tqdm email.utils platformdirs tomllib difflib numpy google_crc32c PIL argcomplete"
    backends = "tensorflow torch keras jax"
    program = (
        f"import sys, dataset_client.cli; print([m for m in {(heavy + ' ' + backends).split()} if m in sys.modules])"
    )
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"]  # no hooks of others
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution():
    assert dataset_client.__version__ == importlib.metadata.version("remote-dataset-pipeline")
    with pytest.raises(AttributeError, match="'versions'"):
        dataset_client.versions  # noqa: B018


def test_errors_survive_pickling():
    error = errors.BuildFailedError("it died", code="handler_crashed", log=["a"])
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.code, copy.log) == ("handler_crashed", ("a",))


def test_every_error_is_drawn_in_the_tree_and_exported():
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.DatasetClientError):
            assert name in errors.__doc__
            assert name in dataset_client.__all__
