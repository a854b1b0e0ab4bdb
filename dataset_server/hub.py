"""Wakes whoever listens to a topic. What was said is read from the database: nothing is sent that is not stored."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Iterator

#: Names of which is remembered when they were last asked for; the oldest are forgotten.
_REMEMBERED = 10_000


class Hub:
    """Topics and who waits for news on them, within this process."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._polled: dict[str, float] = {}
        self._behind: set[asyncio.Event] = set()
        self._all_told = asyncio.Event()
        self._all_told.set()

    @contextlib.contextmanager
    def listen(self, topic_ids: Iterable[str], known: Collection[str] = ()) -> Iterator[asyncio.Event]:
        """An event that is set at each news on any of the topics, while the context lasts.

        That somebody listened is remembered of those which are ``known`` to be topics when it ends: names that a
        client made up would push others out.
        """
        news = asyncio.Event()
        followed = list(topic_ids)
        for topic_id in followed:
            self._listeners.setdefault(topic_id, set()).add(news)
        try:
            yield news
        finally:
            news.clear()
            self.caught_up(news)
            for topic_id in followed:
                listeners = self._listeners.get(topic_id, set())
                listeners.discard(news)
                if not listeners:
                    self._listeners.pop(topic_id, None)
                if topic_id in known:
                    self.note_poll(topic_id)

    def wake(self, topic_ids: Iterable[str]) -> None:
        """Tell the listeners of these topics that there is news."""
        for topic_id in topic_ids:
            for news in self._listeners.get(topic_id, ()):
                news.set()
                self._behind.add(news)
                self._all_told.clear()

    def caught_up(self, news: asyncio.Event) -> None:
        """Who listens has passed on all there was, unless there is news again."""
        if not news.is_set():
            self._behind.discard(news)
            if not self._behind:
                self._all_told.set()

    async def all_told(self) -> None:
        """Wait until all who listen have caught up."""
        await self._all_told.wait()

    def note_poll(self, name: str) -> None:
        """Somebody asked for a topic or a dataset, and may come again: clients need not hold a socket open."""
        self._polled.pop(name, None)
        self._polled[name] = time.monotonic()
        if len(self._polled) > _REMEMBERED:
            del self._polled[next(iter(self._polled))]

    def last_watched(self, names: Iterable[str]) -> float:
        """When somebody last listened to any of these topics or asked for any of these names: now, if one listens.

        On the monotonic clock; minus infinity for what nobody is known to have watched.
        """
        times = [time.monotonic() if name in self._listeners else self._polled.get(name) for name in names]
        return max((at for at in times if at is not None), default=float("-inf"))
