"""A small real dataset server on a loopback port, in a thread of its own, whose misbehaviour tests can
order.
"""

import asyncio
import contextlib
import json
import threading
from collections import deque
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from dataset_client.protocol import Event, canonical_json, config_md5, hash_dataset_name

API = "/api/v1"
SENT = web.ResponseKey("sent", int)
PACED = web.RequestKey("paced", int)  # bytes of a body, whatever ended it


def problem(status, code=None, detail="", headers=None, **more):
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail, "code": code, **more}
    return web.Response(status=status, text=json.dumps(body), content_type="application/problem+json", headers=headers)


@dataclass
class Topic:
    """What the server knows about one request."""

    archive: object = None
    is_ready: bool = False
    attempt: int = 0
    events: list = field(default_factory=list)
    #: (kind, data) that happen once the topic is asked for
    on_ask: list = field(default_factory=list)


class DatasetServer:
    """``posts``, ``gets`` and ``sockets`` record what came, ``sent`` counts the bytes of archives that went; the
    ``…_script`` queues order what happens to
    the next ones.

    ``post_script``: a function of the request and its body that returns a response, or None for the usual one.
    ``archive_script``: a function of (request, data) that returns a response, or None for the usual one.
    ``socket_script``: an HTTP response instead of a socket, or a number of events after which it drops.
    """

    def __init__(self):
        self.topics: dict[str, Topic] = {}
        self.posts, self.gets, self.sockets = [], [], []
        self.sent = 0
        self.post_script, self.archive_script, self.socket_script = deque(), deque(), deque()
        self.token = None
        self.port = 0
        self._open_sockets = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    # --- control, from the test's thread ---

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self._call(self._start())

    def stop(self):
        self._call(self._runner.cleanup())

    def close(self):
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def emit(self, topic_id, kind, data=None, attempt=None):
        self._call(self._emit(topic_id, kind, data or {}, attempt))

    def ready(self, topic_id):
        """End the current attempt well."""
        self.emit(topic_id, "ready", self._ready_data(topic_id))

    def drop_sockets(self):
        self._call(self._drop())

    def wait_for_sockets(self, count, seconds=10.0):
        self._call(asyncio.wait_for(self._until(lambda: len(self.sockets) >= count), seconds))

    def wait_for_posts(self, count, seconds=10.0):
        self._call(asyncio.wait_for(self._until(lambda: len(self.posts) >= count), seconds))

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    # --- inside the loop ---

    async def _until(self, condition):
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self):
        async with self._changed:
            self._changed.notify_all()

    async def _start(self):
        self._changed = asyncio.Condition()
        app = web.Application(client_max_size=4 << 20)
        app.router.add_post(f"{API}/datasets", self._post)
        app.router.add_get(f"{API}/datasets/{{id}}/archive", self._archive)
        app.router.add_get(f"{API}/notifications", self._notifications)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def _authorized(self, request):
        return self.token is None or request.headers.get("Authorization") == f"Bearer {self.token}"

    def _ready_data(self, topic_id):
        topic = self.topics[topic_id]
        topic.is_ready = True
        return {"dataset_id": topic.archive.dataset_id, "archive": topic.archive.as_json()}

    async def _emit(self, topic_id, kind, data, attempt):
        topic = self.topics[topic_id]
        if attempt is None:
            attempt = topic.attempt
        topic.events.append(Event(topic_id, len(topic.events) + 1, attempt, kind, data))
        await self._notify()

    async def _drop(self):
        for transport in list(self._open_sockets):
            transport.abort()

    async def _post(self, request):
        body = await request.json()
        self.posts.append(body)
        await self._notify()
        if not self._authorized(request):
            return problem(401, "token_missing", "a token is needed")
        canonical = canonical_json(body["dataset_config"])
        assert body["config_md5"] == config_md5(canonical)
        topic_id = hash_dataset_name(body["dataset_name"], body["handler_version"], canonical)
        if self.post_script and (response := self.post_script.popleft()(request, body)) is not None:
            return await response if asyncio.iscoroutine(response) else response
        topic = self.topics.get(topic_id)
        if topic is None or topic.archive is None:
            return problem(404, "dataset_unknown", f"no handler makes {body['dataset_name']!r}")
        answer = {"topic_id": topic_id, "dataset_id": topic.archive.dataset_id, "progress": None, "links": {}}
        if topic.is_ready:
            more = {"state": "ready", "attempt": topic.attempt, "archive": topic.archive.as_json()}
            return web.json_response(answer | more)
        if not topic.attempt or (topic.events and topic.events[-1].is_terminal):
            topic.attempt += 1
            for kind, data in topic.on_ask:
                data = self._ready_data(topic_id) if kind == "ready" else data
                await self._emit(topic_id, kind, data, None)
        more = {"state": "queued", "attempt": topic.attempt, "archive": None}
        return web.json_response(answer | more, status=202)

    async def _archive(self, request):
        self.gets.append(request.headers.get("Range"))
        if not self._authorized(request):
            return problem(401, "token_missing", "a token is needed")
        archive = next(
            topic.archive for topic in self.topics.values() if topic.archive.dataset_id == request.match_info["id"]
        )
        data = archive.data
        if self.archive_script:
            try:
                response = self.archive_script.popleft()(request, data)
                if asyncio.iscoroutine(response):
                    response = await response
            finally:
                self.sent += request.get(PACED, 0)
            if response is not None:
                self.sent += response[SENT] if SENT in response else len(response.body or b"")
                return response
        response = part_of(request, data, {"ETag": f'"{archive.sha256}"', "X-Content-SHA256": archive.sha256})
        self.sent += len(response.body or b"")
        return response

    async def _notifications(self, request):
        after, topic_id = int(request.query["after"]), request.query["topic"]
        self.sockets.append(after)
        await self._notify()
        drop_after = None
        if not self._authorized(request):
            return problem(401, "token_missing", "a token is needed")
        if self.socket_script:
            drop_after = self.socket_script.popleft()
            if isinstance(drop_after, web.Response):
                return drop_after
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        transport = request.transport
        self._open_sockets.add(transport)
        sender = asyncio.create_task(self._send(socket, transport, topic_id, after, drop_after))
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._open_sockets.discard(transport)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sender
        return socket

    async def _send(self, socket, transport, topic_id, after, drop_after):
        topic = self.topics.setdefault(topic_id, Topic())
        number = topic.events[-1].number if topic.events else 0
        await socket.send_str(Event(topic_id, number, topic.attempt, "subscribed").to_json())
        sent = 0
        while True:
            for event in [event for event in topic.events if event.number > after]:
                if sent == drop_after:
                    transport.abort()
                    return
                await socket.send_str(event.to_json())
                after, sent = event.number, sent + 1
            await self._until(lambda after=after: topic.events and topic.events[-1].number > after)


def cut_in_headers(status, sent=b""):
    """An answer that ends in its headers, after ``sent`` of them."""
    return bare(b"HTTP/1.1 %d OK\r\n%b" % (status, sent))


def bare(answer):
    """An answer of exactly these bytes, after which the connection ends."""

    async def respond(request, *_):
        request.transport.write(answer)
        request.transport.close()
        return web.Response()

    return respond


def part_of(request, data, headers=None):
    """What a server answers with that knows ranges."""
    span, headers = request.http_range, headers or {}
    is_same = request.headers.get("If-Range") in {None, headers.get("ETag") or request.headers.get("If-Range")}
    if "Range" not in request.headers or not is_same:
        return web.Response(body=data, headers=headers)
    start, stop, _ = span.indices(len(data))
    if start >= stop:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return web.Response(status=206, body=data[start:stop], headers=headers)


async def begin(request, data, count):
    """Send the head of an answer, and ``count`` bytes of its body."""
    whole = part_of(request, data)
    whole.headers["Content-Length"] = str(len(whole.body))
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    await response.prepare(request)
    await response.write(whole.body[:count])
    response[SENT] = min(count, len(whole.body))
    return response


def cut(count):
    """An archive whose body ends after ``count`` bytes more."""

    async def respond(request, data):
        response = await begin(request, data, count)
        request.transport.close()
        return response

    return respond


def paced(rate, count=None, *, then_stalls=False):
    """An archive whose body comes at so many bytes a second; after ``count`` of them it ends, or stands still."""

    async def respond(request, data):
        response = await begin(request, data, 0)
        body = part_of(request, data).body[:count]
        step = rate // 50
        for start in range(0, len(body), step):
            await response.write(body[start : start + step])
            request[PACED] = min(start + step, len(body))
            await asyncio.sleep(0.02)
        if count is not None and then_stalls:
            await asyncio.sleep(30)
        elif count is not None:
            request.transport.close()
        return response

    return respond


def stall(count):
    """An archive whose body stands still after ``count`` bytes, or without any, its head included, if that is None."""

    async def respond(request, data):
        response = web.Response() if count is None else await begin(request, data, count)
        await asyncio.sleep(30)  # until the client hangs up
        return response

    return respond


def everything(_request, data):
    """An archive that ignores Range."""
    return web.Response(body=data)


def flipped(place, mask=1):
    """An archive with other bits at a place of each answer, a fraction of it."""

    def respond(request, data):
        response = part_of(request, data)
        body = bytearray(response.body)
        body[int(place * (len(body) - 1))] ^= mask
        response.body = bytes(body)
        return response

    return respond


def wrong_at(*offsets):
    """An archive with a wrong byte at each of these places."""

    def respond(request, data):
        wrong = bytearray(data)
        for offset in offsets:
            wrong[offset] ^= 1
        return part_of(request, bytes(wrong))

    return respond


def answer_with(status, headers=None, body=""):
    """A bare HTTP answer, as a proxy gives it."""
    return lambda *_: web.Response(status=status, headers=headers, text=body)
