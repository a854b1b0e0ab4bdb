"""Who reads what, and when: pure decisions."""

import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_client import errors
from dataset_client.manifest import Shard
from dataset_client.readers.order import Order, Schedule
from dataset_client.readers.position import Position, Source, from_state, to_state

SHARDS = [Shard("s-0", 100, "ab" * 32, "train", 60), Shard("s-1", 90, "cd" * 32, "train", 40)]


def everything(order):
    return order.examples(np.arange(order.count)).tolist()


@settings(max_examples=60)
@given(st.integers(0, 3000), st.integers(0, 2**70), st.integers(0, 10**6))
def test_a_shuffle_has_every_example_once(count, seed, epoch):
    assert sorted(everything(Order(count, seed, epoch))) == list(range(count))


@settings(max_examples=30)
@given(st.integers(2, 10**12), st.integers(0, 100), st.data())
def test_any_position_can_be_asked_alone(count, seed, data):
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8, unique=True)))
    order = Order(count, seed, 3)
    together = order.examples(positions).tolist()
    assert together == [order.examples(positions[i : i + 1])[0] for i in range(len(positions))]
    assert len(set(together)) == len(positions)
    assert all(0 <= number < count for number in together)


def test_without_a_seed_the_order_is_that_of_the_files():
    assert everything(Order(7, None, 5)) == list(range(7))


def test_the_order_is_a_function_of_the_seed_and_the_epoch():
    first = everything(Order(50, 1, 0))
    assert everything(Order(50, 1, 0)) == first
    others = [everything(Order(50, *key)) for key in ((1, 1), (0, 1), (2, 0), (11, 0), (1, 10))]
    assert len({tuple(order) for order in [first, *others]}) == 6


def test_the_order_is_the_same_for_ever():
    """States that users keep refer to it: another order needs another version of the state."""
    assert everything(Order(12, 7, 0)) == [2, 5, 7, 8, 10, 4, 11, 9, 3, 6, 1, 0]


def chi_square(counts, expected):
    return sum((count - expected) ** 2 / expected for count in counts)


def test_all_permutations_of_four_are_equally_likely():
    seen = collections.Counter(tuple(everything(Order(4, seed))) for seed in range(960))
    assert len(seen) == math.factorial(4)
    assert chi_square(seen.values(), 40) < 49.7  # 23 degrees of freedom, 0.1 %


@pytest.mark.parametrize("count", [10, 1000])
def test_every_example_is_equally_likely_in_every_place(count):
    """10 × 10 bins of place and example, over many seeds: 81 degrees of freedom, 0.1 %."""
    bins = np.zeros((10, 10))
    rounds = max(10_000 // count, 20)
    for seed in range(rounds):
        numbers = Order(count, seed, 1).examples(np.arange(count))
        np.add.at(bins, (np.arange(count) * 10 // count, numbers * 10 // count), 1)
    assert chi_square(bins.ravel(), rounds * count / 100) < 126.1


def test_neighbours_are_parted():
    numbers = Order(10_000, 5).examples(np.arange(10_000))
    steps = np.diff(numbers)
    assert (np.abs(steps) == 1).sum() < 12  # 2 are expected
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.04


# --- ranks --------------------------------------------------------------------------------------------------


def handed_out(count, ranks, size, *, seed=3, epoch=0, consumed=0, steps=None, drop_last=False):
    """All examples in the order in which they are consumed, and how many are after the last of ``steps``."""
    order = Order(count, seed, epoch)
    options = {"batch_size": size, "ranks": ranks, "drop_last": drop_last, "consumed": consumed}
    schedules = [Schedule(order, rank=rank, **options) for rank in range(ranks)]
    assert len({len(schedule) for schedule in schedules}) == 1  # no rank waits for another
    steps = len(schedules[0]) if steps is None else min(steps, len(schedules[0]))
    examples = [schedule.examples(step).tolist() for step in range(steps) for schedule in schedules]
    return [number for part in examples for number in part], schedules[0].consumed_after(
        steps - 1
    ) if steps else consumed


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 64, 101])
def test_any_number_of_ranks_has_one_order(count, size):
    for ranks in (1, 2, 4, 8):
        assert handed_out(count, ranks, size) == (everything(Order(count, 3)), count)


@settings(max_examples=100)
@given(st.integers(1, 200), st.data())
def test_going_on_with_other_ranks_gives_exactly_the_rest(count, data):
    ranks, size = st.sampled_from([1, 2, 4, 8]), st.integers(1, 9)
    whole, done, consumed = everything(Order(count, 3)), [], 0
    for _ in range(data.draw(st.integers(1, 4))):
        part, consumed = handed_out(
            count, data.draw(ranks), data.draw(size), consumed=consumed, steps=data.draw(st.integers(0, 6))
        )
        done += part
        assert len(done) == consumed
    rest, _ = handed_out(count, data.draw(ranks), data.draw(size), consumed=consumed)
    assert done + rest == whole


@pytest.mark.parametrize(("count", "steps"), [(24, 3), (25, 3), (31, 3), (7, 0)])
def test_dropping_the_last_step_keeps_batches_whole(count, steps):
    found, consumed = handed_out(count, 2, 4, drop_last=True)
    assert (len(found), consumed if steps else 0) == (steps * 8, steps * 8)
    assert found == everything(Order(count, 3))[: steps * 8]


def test_the_last_step_is_shared_evenly():
    sizes = [len(Schedule(Order(22, 0), batch_size=4, rank=rank, ranks=4).examples(1)) for rank in range(4)]
    assert sizes == [1, 2, 1, 2]
    sizes = [len(Schedule(Order(18, 0), batch_size=4, rank=rank, ranks=4).examples(1)) for rank in range(4)]
    assert sorted(sizes) == [0, 0, 1, 1]


def test_blocks_do_not_show():
    schedule = Schedule(Order(20_000, 1), batch_size=7)
    found = [number for step in range(len(schedule)) for number in schedule.examples(step).tolist()]
    assert found == everything(Order(20_000, 1))


# --- states -------------------------------------------------------------------------------------------------


def source(**changes):
    options = {"dataset_id": "d", "shards": SHARDS, "split": "train", "shuffle": True, "seed": 4} | changes
    return Source.of(
        options["dataset_id"], options["shards"], options["split"], shuffle=options["shuffle"], seed=options["seed"]
    )


def test_a_state_comes_back():
    state = to_state(source(), Position(3, 17))
    assert {name: state[name] for name in ("version", "epoch", "consumed", "seed", "split", "dataset_id")} == {
        "version": 1, "epoch": 3, "consumed": 17, "seed": 4, "split": "train", "dataset_id": "d",
    }  # fmt: skip
    assert from_state(state, source(), 100) == Position(3, 17)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dataset_id": "e"}, "dataset_id was 'd' and is 'e'"),
        ({"split": "test"}, "split was 'train'"),
        ({"seed": 5}, "seed was 4 and is 5"),
        ({"shuffle": False}, "shuffle was True"),
        ({"shards": SHARDS[:1]}, "digest was"),
    ],
)
def test_states_of_something_else_are_refused(change, told):
    with pytest.raises(errors.InvalidSettingError, match=told) as caught:
        from_state(to_state(source(), Position()), source(**change), 100)
    assert caught.value.code == "state_mismatch"


@pytest.mark.parametrize(
    "change", [{"consumed": 101}, {"consumed": -1}, {"epoch": -1}, {"consumed": None}, {"version": 2}]
)
def test_states_that_cannot_be_are_refused(change):
    with pytest.raises(errors.InvalidSettingError):
        from_state(to_state(source(), Position()) | change, source(), 100)


def test_no_state_at_all_is_refused():
    with pytest.raises(errors.InvalidSettingError, match="no state"):
        from_state({}, source(), 100)


@pytest.mark.parametrize("seed", [-1, True, "3", 1.5, None])
def test_seeds_are_natural_numbers(seed):
    with pytest.raises(errors.InvalidSettingError, match="seed"):
        source(seed=seed)
