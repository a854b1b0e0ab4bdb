"""Batches in a global order: elastic, resumable, in threads that end."""

import gc
import json
import random
import threading
import time

import numpy as np
import pytest
from client_archives import record, unpack_to

from dataset_client import Dataset, errors

COUNT = 41


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("loader") / "discs"
    return Dataset.open(unpack_to(directory, splits={"train": COUNT, "val": 2}, shard_size=9))


@pytest.fixture(scope="module")
def keys(dataset):
    """The keys of all examples as they are stored."""
    return [example["key"] for example in dataset.as_numpy_iterator("train")]


def key_only(example, _rng):
    """Makes tests of the order quick to write."""
    return {"key": example["key"]}


def run(dataset, *, ranks, size, workers=0, steps=None, state=None, epoch=0, **options):
    """All ranks in step: the keys in the order in which they are consumed, and the state after."""
    loaders = [
        dataset.loader(
            "train",
            batch_size=size,
            shuffle=True,
            seed=9,
            epoch=epoch,
            rank=rank,
            ranks=ranks,
            workers=workers,
            **options,
        )
        for rank in range(ranks)
    ]
    for loader in loaders:
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
    assert len({len(loader) for loader in loaders}) == 1
    steps = len(loaders[0]) if steps is None else min(steps, len(loaders[0]))
    iterators = [iter(loader) for loader in loaders]
    found = [key for _ in range(steps) for iterator in iterators for key in next(iterator)["key"]]
    states = [loader.state_dict() for loader in loaders]
    assert all(other == states[0] for other in states)
    for iterator in iterators:
        iterator.close()
    return found, states[0]


@pytest.fixture(scope="module")
def order(dataset, keys):
    """The global order of epoch 0, which is that of one rank without threads."""
    found, _ = run(dataset, ranks=1, size=4)
    assert sorted(found) == sorted(keys) != found
    return found


# --- the order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_ranks_and_workers_has_one_order(dataset, order, ranks, workers):
    found, state = run(dataset, ranks=ranks, size=3, workers=workers)
    assert found == order
    assert (state["epoch"], state["consumed"]) == (0, COUNT)


def test_resuming_at_50_points_gives_exactly_the_rest(dataset, order):
    """On another number of ranks, with other threads and batches."""
    draw = random.Random(5)
    orders = order, run(dataset, ranks=1, size=4, epoch=1)[0]
    for epoch, point in draw.sample([(epoch, point) for epoch in (0, 1) for point in range(1, COUNT)], 50):
        before = draw.choice([ranks for ranks in (1, 2, 4, 8) if point % ranks == 0])
        after = draw.choice([ranks for ranks in (1, 2, 4, 8) if ranks != before])
        size = draw.choice([size for size in range(1, 6) if point // before % size == 0])
        steps = point // before // size
        workers = draw.choice([0, 1, 2])
        first, state = run(dataset, ranks=before, size=size, steps=steps, workers=workers, epoch=epoch, prefetch=3)
        rest, _ = run(dataset, ranks=after, size=draw.randint(1, 5), state=state, workers=draw.choice([0, 1, 2, 4]))
        assert len(first) == state["consumed"] == point
        assert first + rest == orders[epoch]


def test_without_shuffling_the_order_is_that_of_the_files(dataset, keys):
    assert [key for batch in dataset.loader("train", batch_size=4) for key in batch["key"]] == keys


def test_each_iteration_is_the_next_epoch(dataset, order, keys):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, workers=1)
    epochs = [[key for batch in loader for key in batch["key"]] for _ in range(3)]
    assert epochs[0] == order
    assert all(sorted(epoch) == sorted(keys) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert loader.epoch == 3
    loader.set_epoch(1)
    assert [key for batch in loader for key in batch["key"]] == epochs[1]
    assert run(dataset, ranks=2, size=3, epoch=2)[0] == epochs[2]


def test_an_iteration_that_is_left_is_begun_again(dataset, order):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, workers=0)
    for _ in range(2):
        assert next(iter(loader))["key"] == order[:8]
    assert loader.state_dict()["consumed"] == 8


def test_a_state_is_for_the_next_iteration_alone(dataset, order):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, workers=0)
    _, state = run(dataset, ranks=2, size=4, steps=3)
    loader.load_state_dict(state)
    assert len(loader) == 3
    assert loader.state_dict() == state
    for epoch in range(loader.epoch, 2):
        loader.set_epoch(epoch)
        found = [key for batch in loader for key in batch["key"]]
        assert found == (order[24:] if epoch == 0 else run(dataset, ranks=1, size=4, epoch=1)[0])
    assert loader.state_dict() == state | {"epoch": 2, "consumed": 0}


def test_a_look_at_the_first_batch_loses_nothing(dataset, order):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9)
    _, state = run(dataset, ranks=2, size=4, steps=3)
    loader.load_state_dict(state)
    next(iter(loader))
    assert [key for batch in loader for key in batch["key"]] == order[24:]


def test_a_state_of_another_seed_is_refused(dataset):
    _, state = run(dataset, ranks=1, size=4, steps=2)
    with pytest.raises(errors.InvalidSettingError, match="seed was 9 and is 0") as caught:
        dataset.loader("train", batch_size=4, shuffle=True).load_state_dict(state)
    assert caught.value.code == "state_mismatch"
    with pytest.raises(errors.InvalidSettingError, match="split was 'train' and is 'val'"):
        dataset.loader("val", batch_size=4, shuffle=True, seed=9).load_state_dict(state)


def test_an_epoch_chosen_meanwhile_is_the_next(dataset, order):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, workers=0)
    for chosen in (5, 0):
        for _ in loader:
            loader.set_epoch(chosen)
        assert (loader.epoch, loader.state_dict()["consumed"]) == (chosen, 0)
    _, state = run(dataset, ranks=2, size=4, steps=3)
    for _ in loader:
        loader.load_state_dict(state)
    assert [key for batch in loader for key in batch["key"]] == order[24:]


def test_what_was_chosen_before_the_loop_was_left_is_what_the_state_says(dataset):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, workers=0)
    for number, _ in enumerate(loader):
        if number == 1:
            loader.set_epoch(5)
        elif number == 3:
            break
    assert (loader.epoch, loader.state_dict()["epoch"], loader.state_dict()["consumed"]) == (5, 5, 0)


def test_an_iterator_that_another_followed_counts_no_more(dataset):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, workers=0)
    old, new = iter(loader), iter(loader)
    next(new)
    for _ in old:
        pass
    assert (loader.epoch, loader.state_dict()["consumed"]) == (0, 8)


def test_a_split_without_examples(tmp_path):
    dataset = Dataset.open(unpack_to(tmp_path / "discs", splits={"train": 3, "test": 0}))
    loader = dataset.loader("test", batch_size=4, shuffle=True, ranks=2)
    for epoch in range(2):
        assert (len(loader), loader.epoch, list(loader)) == (0, epoch, [])
    assert list(dataset.examples("test")) == list(dataset.as_numpy_iterator("test")) == []


def test_more_ranks_than_examples(dataset):
    loaders = [dataset.loader("val", batch_size=4, ranks=5, rank=rank, workers=0) for rank in range(5)]
    steps = [[batch["key"] for batch in loader] for loader in loaders]
    assert sorted(len(keys) for (keys,) in steps) == [0, 0, 0, 1, 1]
    assert [key for (keys,) in steps for key in keys] == [e["key"] for e in dataset.as_numpy_iterator("val")]


def test_dropping_the_last_step(dataset, order):
    loader = dataset.loader("train", batch_size=8, shuffle=True, seed=9, drop_last=True)
    assert [key for batch in loader for key in batch["key"]] == order[:40]
    assert len(loader) == 5


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 0}, {"batch_size": True}, {"batch_size": 4, "rank": 2, "ranks": 2},
     {"batch_size": 4, "rank": -1}, {"batch_size": 4, "ranks": 0}, {"batch_size": 4, "seed": -1},
     {"batch_size": 4, "epoch": -1},
     {"batch_size": 4, "workers": -1}, {"batch_size": 4, "prefetch": 1.5}],
)  # fmt: skip
def test_numbers_that_cannot_be(dataset, options):
    with pytest.raises(errors.InvalidSettingError):
        dataset.loader("train", **options)


def test_the_batch_size_may_come_from_the_config(dataset):
    configured = Dataset(dataset.path, dataset.manifest, {"batch_size": 20})
    assert [len(batch["key"]) for batch in configured.loader("train")] == [20, 20, 1]


# --- batches ------------------------------------------------------------------------------------------------


def test_batches_are_the_examples_stacked(dataset):
    examples = list(dataset.as_numpy_iterator("train"))
    number = 0
    for batch in dataset.loader("train", batch_size=8, workers=2):
        size = len(batch["key"])
        part = examples[number : number + size]
        assert batch["key"] == [example["key"] for example in part]
        for name in ("image", "mask", "area", "box"):
            assert batch[name].dtype == part[0][name].dtype
            np.testing.assert_array_equal(batch[name], np.stack([example[name] for example in part]))
        assert batch["image"].flags.writeable
        number += size
    assert number == COUNT


def test_a_rank_without_examples_gets_an_empty_batch(dataset):
    batches = list(dataset.loader("train", batch_size=5, ranks=8, rank=0, workers=0))
    assert [len(batch["image"]) for batch in batches] == [5, 0]
    assert (batches[1]["box"].shape, batches[1]["image"].dtype, batches[1]["key"]) == ((0, 4), np.uint8, [])


def test_an_empty_batch_has_what_the_transform_makes(dataset):
    batches = list(dataset.loader("train", batch_size=5, ranks=8, rank=0, workers=0, transform=numbers))
    assert [len(batch["mask"]) for batch in batches] == [5, 0]
    assert [batches[1][name].dtype for name in ("mask", "area")] == [np.int64, np.float32]
    assert (batches[1].keys(), batches[1]["key"]) == (batches[0].keys(), [])
    assert batches[1]["mask"].shape[1:] == batches[0]["mask"].shape[1:]


def numbers(example, _rng):
    """Class numbers (H, W) instead of levels (H, W, 1)."""
    mask = (example["mask"][:10, :10, 0] > 0).astype(np.int64)
    return {"mask": mask, "area": np.float32(example["area"]), "key": example["key"]}


def sides(example, _rng):
    height = 10 + example["area"] % 3
    return {"crop": example["image"][:height], "area": example["area"], "ratio": 0.5, "note": None}


def test_what_a_transform_gives_is_stacked_where_it_can_be(dataset):
    batch = next(iter(dataset.loader("train", batch_size=4, transform=sides, workers=0)))
    assert [crop.shape[0] for crop in batch["crop"]] == [10 + area % 3 for area in batch["area"]]
    assert (batch["ratio"].tolist(), batch["note"]) == ([0.5] * 4, [None] * 4)


def noise(example, rng):
    return {"key": example["key"], "draw": rng.integers(1 << 60)}


def test_augmentation_is_a_function_of_seed_epoch_and_example(dataset):
    def draws(epoch, **options):
        loader = dataset.loader("train", shuffle=True, transform=noise, epoch=epoch, **options)
        return {key: draw for batch in loader for key, draw in zip(batch["key"], batch["draw"].tolist(), strict=True)}

    first = draws(0, batch_size=4, workers=0)
    assert len(set(first.values())) == COUNT
    halves = [draws(0, batch_size=3, workers=2, ranks=2, rank=rank) for rank in range(2)]
    assert halves[0] | halves[1] == first
    assert not set(draws(1, batch_size=4).values()) & set(first.values())
    assert not set(draws(0, batch_size=4, seed=1).values()) & set(first.values())


# --- threads ------------------------------------------------------------------------------------------------


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("dataset-reader")]


def until_none_reads():
    deadline = time.monotonic() + 30
    while readers():
        assert time.monotonic() < deadline
        for thread in readers():
            thread.join(1)


@pytest.mark.parametrize("end", ["closed", "collected", "exhausted", "failed"])
def test_threads_end_with_the_iteration(dataset, end):
    def refuse(example, _rng):
        if end == "failed" and example["key"] == "photo-20-ü":
            raise ZeroDivisionError
        return key_only(example, _rng)

    batches = iter(dataset.loader("train", batch_size=2, workers=3, transform=refuse))
    next(batches)
    assert readers()
    match end:
        case "closed":
            batches.close()
        case "exhausted":
            assert len(list(batches)) == 20
        case "failed":
            with pytest.raises(ZeroDivisionError):
                list(batches)
    del batches
    gc.collect()
    until_none_reads()


def test_counts_are_numbers_of_any_kind(dataset, order):
    counts = {"batch_size": 4, "seed": 9, "rank": 1, "ranks": 2}
    loader = dataset.loader("train", shuffle=True, **{name: np.uint8(count) for name, count in counts.items()})
    assert len(loader) == 6
    loader.set_epoch(np.uint8(0))
    assert next(iter(loader))["key"] == order[4:8]
    assert json.loads(json.dumps(loader.state_dict())) == run(dataset, ranks=2, size=4, steps=1)[1]
    loader.set_epoch(np.uint8(3))
    assert json.loads(json.dumps(loader.state_dict()))["epoch"] == 3
    with pytest.raises(errors.InvalidSettingError, match="batch_size") as caught:
        dataset.loader("train")
    assert "Give batch_size a number" in str(caught.value)


def test_errors_come_at_their_place(tmp_path):
    dataset = Dataset.open(unpack_to(tmp_path / "discs", splits={"train": 8}, shard_size=4))
    path = dataset.files("train")[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    batches = iter(dataset.loader("train", batch_size=2, workers=2, prefetch=4))
    assert [len(next(batches)["key"]) for _ in range(3)] == [2, 2, 2]
    with pytest.raises(errors.IntegrityError, match=rf"{path.name}, offset \d+: the file has a wrong checksum"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)
    assert len(list(dataset.loader("train", batch_size=2, check_crc=False))) == 4


def test_examples_that_cannot_be_decoded_are_named(tmp_path):
    dataset = Dataset.open(unpack_to(tmp_path / "discs", splits={"train": 1}))
    dataset.files("train")[0].write_bytes(record(b"?"))
    with pytest.raises(errors.IntegrityError, match="offset 0: the example cannot be decoded"):
        next(iter(dataset.loader("train", batch_size=1)))
