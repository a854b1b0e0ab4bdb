"""One connection to the notification socket, with everything that `websockets` raises translated."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from dataset_client.errors import DatasetClientError, ProtocolError, ServerUnreachableError
from dataset_client.problems import error_from_response
from dataset_client.protocol import Event
from dataset_client.settings import Settings

#: A `failed` event carries log lines; anything beyond this is no message of ours.
_MAX_MESSAGE_BYTES = 16 << 20


@contextlib.asynccontextmanager
async def subscribe(topic_id: str, settings: Settings) -> AsyncIterator[AsyncGenerator[Event]]:
    """Connect, and yield all messages on ``topic_id``, beginning with ``subscribed`` and the replay.

    Entering and iterating raise `ServerUnreachableError` when there is no connection (any more), which is
    transient, `ProtocolError` for messages that are not ours, and for a refused handshake what its status
    means.
    """
    url = settings.notifications_url(topic_id)
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    try:
        socket = await connect(
            url,
            additional_headers=headers,
            open_timeout=settings.connect_timeout_s,
            close_timeout=1,  # a server that is gone does not answer; do not wait for it
            max_size=_MAX_MESSAGE_BYTES,
            user_agent_header="dataset-client",
        )
    except InvalidStatus as error:
        raise _refusal(error, url) from error
    except InvalidURI as error:
        raise ProtocolError(f"{url}: {error}") from error
    except (OSError, WebSocketException) as error:
        raise ServerUnreachableError(f"{url}: {error or type(error).__name__}", transient=True) from error
    async with socket:

        async def messages() -> AsyncGenerator[Event]:
            while True:
                try:
                    text = await socket.recv()
                except ConnectionClosed as error:
                    raise ServerUnreachableError(f"{url}: {error}", transient=True) from error
                message = _read(text, url)
                if message.topic_id == topic_id:
                    yield message

        async with contextlib.aclosing(messages()) as stream:
            yield stream


def _read(text: str | bytes, url: str) -> Event:
    try:
        return Event.from_json(text)
    except ValueError as error:
        raise ProtocolError(f"{url} sends something that is not an event: {text[:200]!r}") from error


def _refusal(error: InvalidStatus, url: str) -> DatasetClientError:
    response = error.response
    return error_from_response(response.status_code, response.headers, bytes(response.body or b""), url=url)
