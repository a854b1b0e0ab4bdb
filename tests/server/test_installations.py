"""Installing takes its turn."""

import asyncio
from types import SimpleNamespace

import pytest

from dataset_server.errors import EnvironmentFailedError
from dataset_server.installations import Installations


def version(name: str):
    return SimpleNamespace(dataset_name="tiny", version=name)


class Slow:
    """Environments whose installations end when they are told to."""

    def __init__(self) -> None:
        self.made: set[str] = set()
        self.at_work: list[str] = []
        self.may_end = asyncio.Event()
        self.fault: Exception | None = None

    async def find(self, resolved):
        return resolved.version if resolved.version in self.made else None

    async def ensure(self, resolved):
        self.at_work.append(resolved.version)
        await self.may_end.wait()
        if self.fault:
            raise self.fault
        self.made.add(resolved.version)
        return resolved.version


async def test_one_client_installs_one_at_a_time_and_all_of_them_two():
    slow = Slow()
    installations = Installations(slow)
    wanted = [("crowd", str(number)) for number in range(5)] + [("one", "a"), ("two", "b")]
    tasks = [asyncio.create_task(installations.ensure(version(name), client)) for client, name in wanted]
    for _ in range(10):
        await asyncio.sleep(0)
    assert slow.at_work == ["0", "a"]
    slow.made.add("there")
    assert await asyncio.wait_for(installations.ensure(version("there"), "crowd"), 60) == "there", "that needs no turn"
    slow.may_end.set()
    assert await asyncio.gather(*tasks) == [name for _, name in wanted]


async def test_who_was_waiting_shares_the_failure():
    slow = Slow()
    slow.fault = EnvironmentFailedError("no such package")
    installations = Installations(slow)
    tasks = [asyncio.create_task(installations.ensure(version("1"), client)) for client in "abab"]
    for _ in range(10):
        await asyncio.sleep(0)
    slow.may_end.set()
    failed = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert (failed, slow.at_work) == (4 * [slow.fault], ["1"])
    slow.fault = None
    assert await asyncio.wait_for(installations.ensure(version("1"), "c"), 60) == "1", "who comes later tries again"


async def test_an_installation_keeps_its_turn_though_nobody_waits_for_it():
    slow = Slow()
    installations = Installations(slow)
    first = asyncio.create_task(installations.ensure(version("1"), "c"))
    second = asyncio.create_task(installations.ensure(version("2"), "c"))
    for _ in range(10):
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    for _ in range(10):
        await asyncio.sleep(0)
    assert slow.at_work == ["1"], "which goes on"
    slow.may_end.set()
    assert await asyncio.wait_for(second, 60) == "2"
