"""Whose turn it is: priorities, fairness between clients, limits, and that nobody starves."""

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_server.queue import PATIENCE, FairQueue, Job, Limits, choose, foretell

ONE = Limits(1)


def served_by(jobs: list[Job], limits: Limits = ONE) -> list[int]:
    """The order in which jobs are served, one at a time, each ending before the next."""
    waiting, served, order = set(jobs), {}, []
    while job := choose(waiting, (), served, len(order), limits):
        order.append(job.number)
        served[job.client] = len(order)
        waiting.remove(job)
    return order


async def test_idle_is_when_nobody_has_a_turn():
    queue = FairQueue(ONE)
    await asyncio.wait_for(queue.idle(), 60)
    first, second = queue.join(), queue.join()
    idle = asyncio.create_task(queue.idle())
    queue.leave(first)
    await asyncio.sleep(0)
    assert not idle.done(), "the second has its turn"
    queue.stop()
    queue.join()
    queue.leave(second)
    await asyncio.wait_for(idle, 60)


def test_a_client_with_a_thousand_jobs_holds_up_nobody_else():
    crowd = [Job(number, "crowd") for number in range(1000)]
    order = served_by([*crowd, Job(1000, "one"), Job(1001, "two"), Job(1002, "one")])
    assert order[:6] == [0, 1000, 1001, 1, 1002, 2] or set(order[:5]) >= {1000, 1001}
    assert max(order.index(number) for number in (1000, 1001, 1002)) <= 6


def test_priority_comes_first_then_age():
    jobs = [Job(1, "a"), Job(2, "a", priority=5), Job(3, "a", priority=5), Job(4, "a", priority=-5)]
    assert served_by(jobs) == [2, 3, 1, 4]


def test_who_runs_less_comes_first():
    waiting = [Job(1, "busy"), Job(2, "idle")]
    assert choose(waiting, [Job(0, "busy")], {}, 1, Limits(2)).number == 2


def test_limits():
    waiting = [Job(1, "a", group="x"), Job(2, "b", group="y")]
    running = [Job(0, "a", group="x")]
    assert choose(waiting, running, {}, 1, Limits(1)) is None
    assert choose(waiting, running, {}, 1, Limits(4, per_client=1)).number == 2
    assert choose(waiting, running, {}, 1, Limits(4, per_group=1)).number == 2
    assert choose(waiting[:1], running, {}, 1, Limits(4, per_group=1)) is None


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-10, 10)), min_size=1, max_size=12),
    st.sampled_from("abcd"),
    st.integers(-10, 10),
)
def test_nobody_starves(others, client, priority):
    """Others keep coming, for ever and with any priority; each client is served within a bound all the same."""
    ours = Job(0, client, priority)
    waiting, served, number = {ours}, {}, 0
    bound = PATIENCE * (20 + 1) + 5  # the widest gap of priorities, and a turn for each other client
    for started in range(bound + 1):
        for other, rank in others:
            number += 1
            if other != client and sum(job.client == other for job in waiting) < 3:
                waiting.add(Job(number, other, rank, since=started))
        job = choose(waiting, (), served, started, ONE)
        if job == ours:
            return
        waiting.remove(job)
        served[job.client] = started + 1
    raise AssertionError(f"not served within {bound} starts")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2)), max_size=12))
def test_what_is_foretold_comes_true(wanted):
    jobs = [Job(number, client, priority) for number, (client, priority) in enumerate(wanted)]
    assert [job.number for job in foretell(jobs, {}, 0)] == served_by(jobs)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_limits_are_kept_and_nothing_that_could_start_waits(wanted, jobs, per_client, per_group):
    limits = Limits(jobs, per_client, per_group)
    waiting = [Job(number, client, group=group) for number, (client, group) in enumerate(wanted)]
    running: list[Job] = []
    while job := choose(waiting, running, {}, len(running), limits):
        running.append(job)
        waiting.remove(job)
    assert len(running) <= jobs
    assert max(Counter(job.client for job in running).values()) <= per_client
    assert max(Counter(job.group for job in running).values()) <= per_group
    if len(running) < jobs:
        for job in waiting:
            same_client = sum(other.client == job.client for other in running)
            assert same_client == per_client or sum(other.group == job.group for other in running) == per_group


async def test_turns_are_given_and_given_back():
    queue = FairQueue(Limits(1))
    first, second, third = (queue.join(client=client) for client in ("a", "b", "a"))
    assert [queue.position(ticket) for ticket in (first, second, third)] == [None, 1, 2]
    async with queue.turn(first):
        waiting = asyncio.create_task(queue.turn(second).__aenter__())
        await asyncio.sleep(0)
        assert not second.called.is_set()
    await waiting
    assert queue.position(third) == 1
    queue.leave(second)
    queue.leave(second)
    assert third.called.is_set()
    assert (queue.waiting, queue.running) == (0, 1)


async def test_who_gives_up_while_waiting_leaves_no_hole():
    queue = FairQueue(Limits(1))
    first, second, third = queue.join(), queue.join(), queue.join()

    async def wait():
        async with queue.turn(second):
            raise AssertionError("never its turn")

    gone = asyncio.create_task(wait())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert queue.position(third) == 1
    queue.leave(first)
    assert third.called.is_set()


def test_a_stopped_queue_starts_nobody():
    queue = FairQueue(Limits(1))
    first = queue.join()
    second = queue.join()
    queue.stop()
    queue.leave(first)
    assert not second.called.is_set()
