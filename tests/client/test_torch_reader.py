"""Batches and examples as PyTorch has them, through its own ``DataLoader``."""

import contextlib
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from client_archives import unpack_to

from dataset_client import Dataset, errors
from tests.support import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'remote-dataset-pipeline[torch]'")

from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning"),  # of JAX, if it is in the process
    pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning"),
]
COUNT = 23


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("torch") / "discs"
    return Dataset.open(unpack_to(directory, splits={"train": COUNT}, shard_size=5))


def open_batches(dataset, **options):
    return dataset.as_torch_dataset("train", **{"batch_size": 3, "shuffle": True, "seed": 6} | options)


def keys(batches, workers=0, **options):
    loader = DataLoader(batches, batch_size=None, num_workers=workers, **options)
    return [batch["key"] for batch in loader]


def flat(batches):
    return [key for batch in batches for key in batch]


@pytest.fixture(scope="module")
def order(dataset):
    """The batches of one rank, by the reader that needs no torch."""
    return [batch["key"] for batch in dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0)]


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_any_number_of_worker_processes_gives_one_order(dataset, order, workers):
    assert keys(open_batches(dataset), workers) == order


def test_threads_instead_of_processes(dataset, order):
    assert keys(open_batches(dataset, workers=2)) == order


def key_only(example, _rng):
    """Makes tests of the order quick."""
    return {"key": example["key"]}


def in_step(dataset, *, ranks, workers, size, state=None, steps=None):
    """All ranks in step, each with its worker processes: the keys in the order in which they are consumed, and the
    state after ``steps``.
    """
    options = {"batch_size": size, "ranks": ranks, "transform": key_only}
    loaders = [open_batches(dataset, rank=rank, **options).loader(num_workers=workers) for rank in range(ranks)]
    if state is not None:
        for loader in loaders:
            loader.load_state_dict(json.loads(json.dumps(state)))
    lengths = {len(loader) for loader in loaders}
    assert len(lengths) == 1  # no rank waits for another
    steps = max(lengths) if steps is None else min(steps, *lengths)
    iterators = [iter(loader) for loader in loaders]
    found = [key for _ in range(steps) for iterator in iterators for key in next(iterator)["key"]]
    states = [loader.state_dict() for loader in loaders]
    assert all(other == states[0] for other in states)
    return found, states[0]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_ranks_and_worker_processes_has_one_order(dataset, order, ranks, workers):
    found, state = in_step(dataset, ranks=ranks, workers=workers, size=2)
    assert found == flat(order)
    assert (state["epoch"], state["consumed"]) == (0, COUNT)


def test_resuming_at_50_points_gives_exactly_the_rest(dataset, order):
    """On another number of ranks, with other worker processes, and other batches."""
    draw, points = random.Random(8), []
    for _ in range(50):
        before, after = draw.sample([1, 2, 4, 8], 2)
        size = draw.randint(1, 4)
        steps = draw.randrange(-(-COUNT // (before * size)))
        first, state = in_step(dataset, ranks=before, workers=draw.choice([0, 1, 2]), size=size, steps=steps)
        rest, _ = in_step(dataset, ranks=after, workers=draw.choice([0, 1, 2, 4]), size=draw.randint(1, 4), state=state)
        assert (len(first), first + rest) == (state["consumed"], flat(order))
        points.append(len(first))
    assert max(points) < COUNT
    assert len(set(points)) > 10


def test_batches_are_tensors_of_the_same_values(dataset):
    wanted = list(dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0))
    for layout in (True, False):
        batches = list(DataLoader(open_batches(dataset, channels_first=layout), batch_size=None, num_workers=1))
        assert len(batches) == len(wanted) == 8
        for batch, numpy in zip(batches, wanted, strict=True):
            for name in ("image", "mask", "area", "box"):
                found = batch[name].movedim(1, -1) if layout and name in ("image", "mask") else batch[name]
                assert found.numpy().dtype == numpy[name].dtype
                np.testing.assert_array_equal(found.numpy(), numpy[name])
        assert batches[0]["image"].shape == ((3, 3, 48, 64) if layout else (3, 48, 64, 3))
    assert batches[0]["image"].is_contiguous()


def test_images_keep_the_layout_that_convolutions_like(dataset):
    batch = next(iter(open_batches(dataset)))
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("persistent", [True, False])
def test_epochs_reach_worker_processes(dataset, persistent):
    batches = open_batches(dataset)
    loader = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=persistent)
    numpy = dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0)
    for epoch in range(3):
        batches.set_epoch(epoch)
        assert [batch["key"] for batch in loader] == [batch["key"] for batch in numpy]


@pytest.mark.parametrize("steps", [0, 1, 5, 8])
def test_resuming_with_the_callers_count(dataset, order, steps):
    batches, rest = open_batches(dataset), open_batches(dataset)
    read_ahead = iter(DataLoader(batches, batch_size=None, num_workers=2))
    found = [next(read_ahead)["key"] for _ in range(steps)]
    rest.load_state_dict(batches.state_dict(steps))
    rest.set_epoch(0)  # the one that the state is in
    assert len(rest) == len(order) - steps
    assert found + keys(rest, workers=3) == order


@pytest.mark.parametrize("persistent", [True, False])
def test_a_loader_goes_from_epoch_to_epoch(dataset, order, persistent):
    loader = open_batches(dataset).loader(num_workers=2, persistent_workers=persistent)
    numpy = dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0)
    assert [next(iter(loader))["key"] for _ in range(2)] == order[:1] * 2  # left early, begun again
    assert loader.state_dict()["consumed"] == 3
    epochs = [[batch["key"] for batch in loader] for _ in range(2)]
    assert epochs == [[batch["key"] for batch in numpy] for _ in range(2)]
    assert loader.state_dict() == numpy.state_dict()
    loader.set_epoch(0)
    loader.load_state_dict(loader.state_dict() | {"consumed": 6})
    assert len(loader) == 6
    assert [batch["key"] for batch in loader] == order[2:]
    assert len(loader) == 8
    assert [batch["key"] for batch in loader] == epochs[1]


def test_states_of_the_loader_and_of_torch_are_one(dataset, order):
    batches = open_batches(dataset)
    loader = dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0)
    iterator = iter(loader)
    next(iterator)
    assert batches.state_dict(1) == loader.state_dict()
    loader.load_state_dict(batches.state_dict(2))
    assert [batch["key"] for batch in loader] == order[2:]
    with pytest.raises(errors.InvalidSettingError):
        open_batches(dataset, seed=7).load_state_dict(batches.state_dict(2))


def test_ranks_are_those_of_torch_distributed(dataset, tmp_path):
    """Two processes of one group, each with a worker process."""
    script = Path(__file__).parent / "support" / "torch_rank.py"
    env = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "ignore", str(script), str(dataset.path), str(tmp_path / "meet")]
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank in range(2):
            started = subprocess.Popen([*command, str(rank), "2"], env=env, stdout=subprocess.PIPE, text=True)
            ranks.append(stack.enter_context(started))
            stack.callback(started.kill)
        told = [json.loads(rank.communicate(timeout=100)[0].splitlines()[-1]) for rank in ranks]
    for rank, found in enumerate(told):
        numpy = dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0, rank=rank, ranks=2)
        assert found == {"keys": [batch["key"] for batch in numpy], "consumed": COUNT}


def test_worker_processes_that_inherit_nothing(dataset, order):
    """Started anew, as on macOS, and living on from epoch to epoch."""
    loader = open_batches(dataset).loader(num_workers=2, persistent_workers=True, multiprocessing_context="spawn")
    numpy = dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0)
    for _ in range(2):
        assert [batch["key"] for batch in loader] == [batch["key"] for batch in numpy]
    loader.load_state_dict(loader.state_dict() | {"epoch": 0, "consumed": 6})
    assert [batch["key"] for batch in loader] == order[2:]


@pytest.mark.parametrize("context", [None, "spawn"])
def test_a_place_chosen_meanwhile_is_the_next_and_what_is_read_goes_on(dataset, order, context):
    """Also in worker processes that begin later than it was chosen."""
    workers = {} if context is None else {"num_workers": 2, "multiprocessing_context": context}
    loader = open_batches(dataset).loader(**workers)
    assert loader.state_dict()["consumed"] == 0
    keys = []
    for batch in loader:
        keys += batch["key"]
        loader.set_epoch(5)
        assert (loader.epoch, loader.state_dict()["epoch"], loader.state_dict()["consumed"]) == (5, 5, 0)
    assert keys == flat(order)
    assert (loader.epoch, loader.state_dict()["consumed"]) == (5, 0)
    first = next(iter(loader))
    assert (loader.state_dict()["epoch"], loader.state_dict()["consumed"]) == (5, len(first["key"]))


def test_a_place_that_is_told_to_the_batches_meanwhile_is_the_next_too(dataset):
    batches = open_batches(dataset)
    loader = batches.loader()
    for _ in loader:
        batches.set_epoch(7)
    assert loader.epoch == 7


def test_a_state_of_the_same_epoch_may_be_loaded_meanwhile(dataset, order):
    loader = open_batches(dataset).loader()
    states = []
    for _ in loader:
        states.append(loader.state_dict())
        loader.load_state_dict(states[0])
    consumed = states[0]["consumed"]
    assert len(states) > 2
    assert [key for batch in loader for key in batch["key"]] == flat(order)[consumed:]


def test_what_a_transform_makes_of_a_mask_keeps_its_axes(dataset):
    """Class numbers (H, W) have no channels to move; levels (H, W, 1) have, also where masks differ in size."""

    def batch(made):
        def transform(example, _rng):
            return {"mask": made(example["mask"], example["area"]), "key": example["key"]}

        return next(iter(open_batches(dataset, transform=transform)))["mask"]

    wanted = next(iter(dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0)))["mask"]
    numbers, levels = batch(lambda mask, _: mask[..., 0] // 255), batch(lambda mask, _: mask)
    np.testing.assert_array_equal(numbers.numpy(), wanted[..., 0] // 255)
    assert levels.shape == (3, 1, 48, 64)
    np.testing.assert_array_equal(levels.numpy(), wanted.transpose(0, 3, 1, 2))
    heights = [40 + int(area) % 3 for area in next(iter(open_batches(dataset)))["area"]]
    assert len(set(heights)) > 1
    numbers = batch(lambda mask, area: mask[: 40 + area % 3, :, 0])
    levels = batch(lambda mask, area: mask[: 40 + area % 3])
    assert [tuple(number.shape) for number in numbers] == [(height, 64) for height in heights]
    assert [tuple(level.shape) for level in levels] == [(1, height, 64) for height in heights]


def flipped(example, _rng):
    """Of another size each, so that they stay apart."""
    return {"image": example["image"][: 40 + example["area"] % 3, ::-1], "key": example["key"]}


def test_pictures_may_be_views_of_others(dataset):
    found = next(iter(open_batches(dataset, transform=flipped)))["image"]
    numpy = dataset.loader("train", batch_size=3, shuffle=True, seed=6, workers=0, transform=flipped)
    for tensor, picture in zip(found, next(iter(numpy))["image"], strict=True):
        np.testing.assert_array_equal(tensor.movedim(0, -1).numpy(), picture)


def test_texts_are_no_tensors(dataset):
    def texts(example, _rng):
        return {"numpy": np.str_(example["key"]), "python": example["key"]}

    batch = next(iter(DataLoader(open_batches(dataset, transform=texts), batch_size=None)))
    assert batch["numpy"].tolist() == batch["python"]


def test_single_examples_with_torchs_own_sampler(dataset):
    examples = dataset.as_torch_map_dataset("train")
    stored = list(dataset.as_numpy_iterator("train"))
    assert len(examples) == COUNT
    loader = DataLoader(examples, batch_size=4, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(1))
    seen = {}
    for batch in loader:
        assert batch["image"].shape[1:] == (3, 48, 64)
        for number, key in enumerate(batch["key"]):
            seen[key] = {name: batch[name][number] for name in ("image", "mask", "area", "box")}
    assert len(seen) == COUNT
    for example in stored:
        found = seen[example["key"]]
        np.testing.assert_array_equal(found["image"].movedim(0, -1).numpy(), example["image"])
        np.testing.assert_array_equal(found["mask"].movedim(0, -1).numpy(), example["mask"])
        assert found["area"].item() == example["area"]
        np.testing.assert_array_equal(found["box"].numpy(), example["box"])


def test_single_examples_have_torchs_dtypes(dataset):
    example = dataset.as_torch_map_dataset("train")[-1]
    assert (example["mask"].dtype, example["mask"].shape) == (torch.uint8, (1, 48, 64))
    example = dataset.as_torch_map_dataset("train", channels_first=False)[-1]
    assert (example["area"].dtype, example["area"].shape) == (torch.int64, ())
    assert (example["image"].dtype, example["image"].shape) == (torch.uint8, (48, 64, 3))
