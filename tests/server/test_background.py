"""Long work in threads: nobody who was cancelled leaves before it is over, however often it was."""

import asyncio
import threading

import pytest

from dataset_server.background import StoppedError, in_thread_to_the_end, outlast, until_stopped


async def cancel_twice(task) -> None:
    """Cancelled once, and again while it waits for its end."""
    for _ in range(2):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_second_cancel_does_not_leave_the_thread_behind():
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        began.set()
        may_end.wait(60)
        ended.set()

    task = asyncio.create_task(in_thread_to_the_end(work))
    await asyncio.to_thread(began.wait, 60)
    await cancel_twice(task)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_who_can_be_stopped_is_told():
    began = threading.Event()

    def work(stop, answer):
        began.set()
        if stop.wait(60):
            raise StoppedError
        return answer

    task = asyncio.create_task(until_stopped(work, 7))
    await asyncio.to_thread(began.wait, 60)
    await cancel_twice(task)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until_stopped(lambda _, answer: answer, 7) == 7


async def test_what_went_wrong_in_the_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        await in_thread_to_the_end(lambda: 1 // 0)


async def test_an_earlier_task_is_waited_for_and_not_cancelled():
    may_end = asyncio.Event()
    earlier = asyncio.create_task(may_end.wait())
    waiting = asyncio.create_task(outlast(earlier))
    await asyncio.sleep(0)
    await cancel_twice(waiting)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert earlier.result()
