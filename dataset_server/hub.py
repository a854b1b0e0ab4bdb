"""Wakes whoever listens to a topic. What was said is read from the database: nothing is sent that is not stored."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator


class Hub:
    """Topics and who waits for news on them, within this process."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def listen(self, topic_ids: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set at each news on any of the topics, while the context lasts."""
        news = asyncio.Event()
        followed = list(topic_ids)
        for topic_id in followed:
            self._listeners.setdefault(topic_id, set()).add(news)
        try:
            yield news
        finally:
            for topic_id in followed:
                listeners = self._listeners.get(topic_id, set())
                listeners.discard(news)
                if not listeners:
                    self._listeners.pop(topic_id, None)

    def wake(self, topic_ids: Iterable[str]) -> None:
        """Tell the listeners of these topics that there is news."""
        for topic_id in topic_ids:
            for news in self._listeners.get(topic_id, ()):
                news.set()
