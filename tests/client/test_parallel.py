"""A function over items in threads: the results' order, how many lie ready, and how it ends."""

import io
import threading
import weakref

import pytest

from dataset_client.readers.parallel import as_they_come, in_order


def come(function, items, *, workers, prefetch):
    return as_they_come(function, items, workers=workers, prefetch=prefetch, stop=threading.Event())


both = pytest.mark.parametrize("mapped", [in_order, come])


@both
@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_no_more_than_prefetch_results_lie_ready(mapped, prefetch):
    begun = []
    results = mapped(lambda item: begun.append(item) or item, range(40), workers=3, prefetch=prefetch)
    for number, result in enumerate(results):
        assert result == number
        assert len(begun) <= number + 1 + prefetch


@both
def test_no_more_than_prefetch_results_are_under_way(mapped):
    """Also while the first is waited for, and though there are threads for more."""
    one_more = threading.Event()

    def work(item):
        if item == 2:
            one_more.set()
        return item or one_more.wait(0.3)

    assert list(mapped(work, range(6), workers=4, prefetch=2)) == [False, 1, 2, 3, 4, 5]


@both
def test_results_come_in_order_whatever_is_done_first(mapped):
    """Item 0 ends last of all that may begin with it."""
    others = threading.Barrier(3)

    def work(item):
        if item < 3:
            others.wait(30)  # all three have begun
        return item

    assert list(mapped(work, range(10), workers=3, prefetch=3)) == list(range(10))


def test_a_result_is_not_held_while_the_next_item_is_waited_for():
    gone, found = threading.Event(), []

    def items():
        yield 0
        found.append(gone.wait(2))
        yield 1

    def work(_item):
        result = io.BytesIO()
        weakref.finalize(result, gone.set)
        return result

    results = come(work, items(), workers=1, prefetch=1)
    for _ in range(2):
        assert isinstance(next(results), io.BytesIO)
    assert found == [True]


def test_what_is_ready_is_handed_out_while_the_next_item_is_waited_for():
    handed_out = threading.Event()

    def items():
        yield 0
        assert handed_out.wait(30)
        yield 1

    results = come(str, items(), workers=1, prefetch=1)
    assert next(results) == "0"
    handed_out.set()
    assert list(results) == ["1"]


@pytest.mark.parametrize("fails", ["the item", "the function"])
def test_errors_of_items_that_come_are_at_their_place(fails):
    def items():
        yield from (4, 2)
        if fails == "the item":
            raise ZeroDivisionError
        yield 0

    results = come(lambda item: 8 // item, items(), workers=2, prefetch=4)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_who_stops_early_leaves_no_thread_behind():
    before, stop = set(threading.enumerate()), threading.Event()
    results = as_they_come(str, range(1000), workers=2, prefetch=2, stop=stop)
    assert next(results) == "0"
    threads = set(threading.enumerate()) - before
    assert {thread.name.partition("_")[0] for thread in threads} == {"dataset-feeder", "dataset-reader"}
    results.close()
    assert stop.is_set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
