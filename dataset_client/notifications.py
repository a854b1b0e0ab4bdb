"""One connection to the notification socket, with everything that `websockets` raises translated."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from websockets.asyncio.client import connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    WebSocketException,
)

from dataset_client.errors import HANDSHAKE_CUT, ProtocolError, ServerAwayError
from dataset_client.problems import SocketsBlockedError, error_of_handshake
from dataset_client.protocol import Event
from dataset_client.settings import Settings

#: A `failed` event carries log lines; anything beyond this is no message of ours.
_MAX_MESSAGE_BYTES = 16 << 20


@contextlib.asynccontextmanager
async def subscribe(after: Mapping[str, int], settings: Settings) -> AsyncIterator[AsyncGenerator[Event]]:
    """Connect, and yield all messages on the topics in ``after``: of each ``subscribed``, and what came after the
    number.

    Both sides ping: a peer that has not answered for `Settings.heartbeat_s` counts as gone. Entering and iterating
    raise `ServerAwayError` when there is no connection (any more), which is transient, `SocketsBlockedError` where
    something in between lets no socket through, `ProtocolError` for messages that are not ours, and for a handshake
    that the server refuses what its status means.
    """
    full_url = settings.notifications_url(after)
    url = full_url.partition("?")[0]  # for messages: the topics would fill them
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    try:
        socket = await connect(
            full_url,
            additional_headers=headers,
            open_timeout=settings.connect_timeout_s,
            ping_interval=settings.heartbeat_s,
            ping_timeout=settings.heartbeat_s,
            close_timeout=1,  # a server that is gone does not answer; do not wait for it
            max_size=_MAX_MESSAGE_BYTES,
            user_agent_header="dataset-client",
        )
    except InvalidStatus as error:
        response = error.response
        body = bytes(response.body or b"")
        raise error_of_handshake(response.status_code, response.headers, body, url=url) from error
    except (InvalidUpgrade, InvalidProxyStatus, ImportError) as error:  # the latter without what a SOCKS proxy needs
        raise SocketsBlockedError(f"{url}: {error}") from error
    except InvalidURI as error:
        raise ProtocolError(f"{url}: {error}") from error
    except WebSocketException as error:
        raise ServerAwayError(f"{url}: {error}", code=HANDSHAKE_CUT, transient=True) from error
    except TimeoutError as error:  # nobody is there, or something swallows the handshake
        raise ServerAwayError(f"{url}: no answer in time", code=HANDSHAKE_CUT, transient=True) from error
    except OSError as error:
        raise ServerAwayError(f"{url}: {error or type(error).__name__}", transient=True) from error
    async with socket:

        async def messages() -> AsyncGenerator[Event]:
            while True:
                try:
                    text = await socket.recv()
                except ConnectionClosed as error:
                    raise ServerAwayError(f"{url}: {error}", transient=True) from error
                yield _read(text, url)

        async with contextlib.aclosing(messages()) as stream:
            yield stream


def _read(text: str | bytes, url: str) -> Event:
    try:
        return Event.from_json(text)
    except ValueError as error:
        raise ProtocolError(f"{url} sends something that is not an event: {text[:200]!r}") from error
