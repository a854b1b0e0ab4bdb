"""A dataset server in the test's own loop that knows many topics, and through which sockets can be blocked."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

from aiohttp import web
from client_server import part_of, problem

from dataset_client.protocol import Event, canonical_json, hash_dataset_name

API = "/api/v1"


@dataclass
class Known:
    """What the server knows about a topic; at each look of who polls, the next state of ``at_each_look`` is said, and
    then how it ends.
    """

    attempt: int = 0
    events: list = field(default_factory=list)
    archive: object = None
    state: str = "ready"
    at_each_look: list = field(default_factory=list)
    error: dict | None = None
    progress: dict | None = None
    shards: list = field(default_factory=list)
    dataset_attempt: int = 1
    #: the dataset is known from this question on
    known_at_post: int = 1
    posts: int = 0


class TopicsServer:
    """``block`` answers each handshake, if it is set; ``drops`` are numbers of messages after which sockets break;
    ``stale_offers`` are archives that the next questions for a dataset are told of instead of the one that is there.
    """

    def __init__(self):
        self.topics: dict[str, Known] = {}
        self.block = None
        self.refusals, self.drops, self.stale_offers = [], [], []
        self.sockets, self.posts, self.looks, self.waits = [], [], [], []
        self.changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def running(self):
        app = web.Application()
        app.router.add_get(f"{API}/notifications", self._notifications)
        app.router.add_get(f"{API}/events", self._events)
        app.router.add_post(f"{API}/datasets", self._post)
        app.router.add_get(f"{API}/datasets/{{id}}", self._dataset)
        app.router.add_get(f"{API}/datasets/{{id}}/archive", self._archive)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def say(self, topic_id, kind, data=None, attempt=None):
        known = self.topics[topic_id]
        number = len(known.events) + 1
        known.events.append(Event(topic_id, number, attempt or known.attempt, kind, data or {}))
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition):
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)

    async def _note(self, log, what):
        log.append(what)
        async with self.changed:
            self.changed.notify_all()

    async def _notifications(self, request):
        pairs = list(request.query.items())
        after = {topic: int(number) for (_, topic), (_, number) in zip(pairs[::2], pairs[1::2], strict=True)}
        await self._note(self.sockets, after)
        if self.block is not None:
            return self.block()
        drop_after = self.drops.pop(0) if self.drops else None
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        messages = [self._subscribed(topic) for topic in after]
        while True:
            for topic in after:
                new = [event for event in self.topics[topic].events if event.number > after[topic]]
                messages += new
                after[topic] = max([after[topic], *(event.number for event in new)])
            for message in messages:
                if drop_after == 0:
                    request.transport.abort()
                    return socket
                drop_after = drop_after and drop_after - 1
                await socket.send_str(message.to_json())
            messages = []
            async with self.changed:
                await self.changed.wait()

    async def _events(self, request):
        """Never waits, so that tests need not."""
        pairs = [pair for pair in request.query.items() if pair[0] != "wait"]
        after = {topic: int(number) for (_, topic), (_, number) in zip(pairs[::2], pairs[1::2], strict=True)}
        self.waits.append(int(request.query["wait"]))
        await self._note(self.looks, after)
        if self.refusals and (refusal := self.refusals.pop(0)):
            return refusal
        messages, events = [], []
        for topic, number in after.items():
            known = self.topics[topic]
            if known.attempt and known.at_each_look:
                await self.say(topic, "state", {"state": known.at_each_look.pop(0)})
            elif known.attempt and not any(event.is_terminal for event in known.events):
                ready = {"dataset_id": known.archive.dataset_id, "archive": known.archive.as_json()}
                await self.say(topic, known.state, ready if known.state == "ready" else known.error)
            messages.append(self._subscribed(topic))
            events += [event for event in known.events if event.number > number]
        return web.json_response({"messages": [json.loads(message.to_json()) for message in [*messages, *events]]})

    def _subscribed(self, topic):
        known = self.topics[topic]
        return Event(topic, known.events[-1].number if known.events else 0, known.attempt, "subscribed")

    async def _post(self, request):
        body = await request.json()
        topic = hash_dataset_name(body["dataset_name"], body["handler_version"], canonical_json(body["dataset_config"]))
        await self._note(self.posts, topic)
        if self.refusals and (refusal := self.refusals.pop(0)):
            return refusal
        known = self.topics[topic]
        known.posts += 1
        known.attempt = max(known.attempt, 1)
        is_known = known.posts >= known.known_at_post
        is_ready = known.state == "ready" and not known.at_each_look
        answer = {
            "topic_id": topic,
            "dataset_id": known.archive.dataset_id if is_known else None,
            "state": "ready" if is_ready and is_known else "building" if is_known else "resolving",
            "attempt": known.attempt,
            "progress": None,
            "archive": known.archive.as_json() if is_ready and is_known else None,
        }
        if known.events == [] and self.block is None and not is_ready:
            await self.say(topic, "state", {"state": "building"})
        return web.json_response(answer, status=200 if is_ready else 202)

    async def _dataset(self, request):
        dataset_id = request.match_info["id"]
        await self._note(self.looks, dataset_id)
        if self.refusals and (refusal := self.refusals.pop(0)):
            return refusal
        for known in self.topics.values():
            if known.archive.dataset_id == dataset_id:
                state = known.at_each_look.pop(0) if known.at_each_look else known.state
                archive = known.archive.as_json() if state == "ready" else None
                if archive and self.stale_offers:
                    archive = self.stale_offers.pop(0)
                return web.json_response(
                    {
                        "dataset_id": dataset_id,
                        "state": state,
                        "attempt": known.dataset_attempt,
                        "error": known.error if state in ("failed", "cancelled") else None,
                        "progress": known.progress if state == "building" else None,
                        "shards": known.shards,
                        "archive": archive,
                    }
                )
        return problem(404, "not_found", "there is no such dataset")

    async def _archive(self, request):
        for known in self.topics.values():
            if known.archive.dataset_id == request.match_info["id"]:
                archive = known.archive
                return part_of(
                    request, archive.data, {"ETag": f'"{archive.sha256}"', "X-Content-SHA256": archive.sha256}
                )
        return web.Response(status=404)


def not_our_words(status, text="<html>no</html>"):
    """What a proxy answers."""
    return lambda: web.Response(status=status, text=text, content_type="text/html")


def stripped():
    """What our server says when a proxy has taken the upgrade out."""
    body = {"code": "malformed_request", "detail": "No WebSocket UPGRADE hdr: None"}
    return web.Response(status=400, text=json.dumps(body), content_type="application/problem+json")
