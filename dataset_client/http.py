"""HTTP: one session, the calls of the API, and the translation of everything that `requests` raises. Blocking, for
threads.
"""

import contextlib
import http.client
from collections.abc import Iterator, Mapping
from typing import Any

import requests
import urllib3

from dataset_client.answers import Answer, read_answer
from dataset_client.errors import MissingDependencyError, ProtocolError, ServerAwayError, ServerUnreachableError
from dataset_client.line import RoundTrip, round_trip
from dataset_client.problems import error_from_response
from dataset_client.protocol import Event
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings

_MAX_PROBLEM_BYTES = 1 << 20
#: Seconds that the server may wait for events before it answers that there are none.
_WAIT_S = 25
_ANSWERS = frozenset({200, 206, 412, 416})
#: What `requests` says, by an `InvalidSchema`, where the environment names a SOCKS proxy and PySocks is missing.
_NO_SOCKS = "Missing dependencies for SOCKS support."


class _Authorization(requests.auth.AuthBase):
    """Adds the token to requests to our own server, and to no other.

    It is installed also without a token, because `requests` would otherwise send what ``~/.netrc`` says
    instead.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._settings.token and self._settings.is_own(str(request.url)):
            request.headers["Authorization"] = f"Bearer {self._settings.token}"
        return request


class Body:
    """The body of an answer while it arrives. One thread reads; another may interrupt it."""

    def __init__(self, response: requests.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have no more of it; a connection whose body was not read to its end is closed with it."""
        self._response.close()

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``, and return how many bytes came: fewer only at the end, which may be early without an error.

        The connection can take another request once all bytes that were announced have been read.
        """
        raw = self._response.raw
        # urllib3 would make a copy of each block, which is only needed where it has something to decode
        plain = None if raw.chunked or raw.headers.get("Content-Encoding") else raw._fp
        with _errors_of(self._response.url):
            if not isinstance(plain, http.client.HTTPResponse):
                return raw.readinto(buffer)
            count = plain.readinto(buffer)
            if plain.isclosed():
                raw.release_conn()
            return count

    def round_trip(self) -> RoundTrip | None:
        """How long the line under it takes, where that is known. From any thread."""
        return round_trip(getattr(self._response.raw.connection, "sock", None))  # neither is there after the end

    def interrupt(self) -> None:
        """End the `read` that waits for more. What it and later ones return is not to be believed: under TLS it may
        be ciphertext.
        """
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # it has ended already
            self._response.raw.shutdown()


class Http:
    """A connection to one server; one thread uses it at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session = requests.Session()
        self._session.auth = _Authorization(settings)
        self._session.headers["User-Agent"] = "dataset-client"

    def __enter__(self) -> "Http":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def ask(self, request: DatasetRequest) -> Answer:
        """POST ``request`` once; raises what the server's refusal means (`error_from_response`)."""
        url, headers = self.settings.url("datasets"), {"Content-Type": "application/json"}
        return read_answer(self._json("POST", url, headers, request.body()), expected_topic=request.topic_id)

    def get_dataset(self, dataset_id: str) -> Mapping[str, Any]:
        """GET what there is to know of a dataset: its state, archive, error and progress. Raises as `ask` does."""
        return self._json("GET", self.settings.url(f"datasets/{dataset_id}"))

    def get_manifest(self, dataset_id: str) -> Mapping[str, Any]:
        """GET a dataset's manifest: while it is being made, what is known of it so far. Raises as `ask` does."""
        return self._json("GET", self.settings.url(f"datasets/{dataset_id}/manifest"))

    def get_events(self, after: Mapping[str, int], *, waits: bool) -> list[Event]:
        """GET the messages on topics, each after a number; the server ``waits`` a while for the first event, or not.

        Raises as `ask` does.
        """
        url = self.settings.events_url(after, wait_s=_WAIT_S if waits else 0)
        messages = self._json("GET", url).get("messages")
        try:
            return [Event.from_message(message) for message in messages or ()]
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"{url.partition('?')[0]} answers no events: {str(messages)[:200]}") from error

    def _json(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> dict[str, Any]:
        """The JSON object that is answered with 200 or 202."""
        wanted = {"Accept": "application/json, application/problem+json", **(headers or {})}
        timeout = (self.settings.connect_timeout_s, self.settings.answer_timeout_s)
        with (
            _errors_of(url),
            self._session.request(method, url, headers=wanted, data=body, timeout=timeout, stream=True) as response,
        ):
            _require_framing(response)
            if response.status_code not in {200, 202}:
                raise _refusal(response)
            try:
                answer = response.json()
            except requests.JSONDecodeError as error:
                raise ProtocolError(f"{url} answers something that is not JSON") from error
        if not isinstance(answer, dict):
            raise ProtocolError(f"{url} answers {type(answer).__name__}, not a JSON object")
        return answer

    def get(self, reference: str, part: tuple[int, int] | None, *, tag: str | None = None) -> Body:
        """GET the bytes from ``part[0]`` to ``part[1]`` of ``reference``, up to the body, or all of it.

        With an entity ``tag`` only if that is still its own. Any status but 200, 206, 412 and 416 is raised.
        """
        url = self.settings.url(reference)
        # any other encoding would make Content-Length and Range speak of other bytes than ours
        headers = {"Accept-Encoding": "identity"}
        if part is not None:
            headers["Range"] = f"bytes={part[0]}-{part[1] - 1}"
            headers |= {"If-Range": tag} if tag else {}
        timeout = (self.settings.connect_timeout_s, self.settings.read_timeout_s)
        with _errors_of(url):
            response = self._session.get(url, headers=headers, timeout=timeout, stream=True)
            with contextlib.ExitStack() as refused:
                refused.push(response)
                _require_framing(response)
                if response.status_code not in _ANSWERS:
                    raise _refusal(response)
                refused.pop_all()
        # A body that ends early shall hand over what it had; urllib3's own check would throw that away.
        # The caller knows the length, and checks it.
        response.raw.enforce_content_length = False
        return Body(response)


@contextlib.contextmanager
def _errors_of(url: str) -> Iterator[None]:
    """Translate what `requests` and, below it, `urllib3` raise about ``url``."""
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects) as error:
        if str(error) == _NO_SOCKS:
            raise MissingDependencyError(
                f"{url} would be asked through a SOCKS proxy, as the environment says (HTTP_PROXY, HTTPS_PROXY or"
                " ALL_PROXY), and PySocks is not installed",
                remedy="Run: python -m pip install PySocks (and 'python-socks[asyncio]' for the WebSocket); or name the"
                " server's host in NO_PROXY.",
            ) from error
        raise ProtocolError(f"{url}: {error}") from error
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:  # that does not mend itself soon
        raise ServerUnreachableError(f"{url}: {error}", transient=True) from error
    except requests.ConnectionError as error:
        raise ServerAwayError(f"{url}: {error}", transient=True) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ServerUnreachableError(f"{url}: {error}", transient=True) from error
    except (OSError, http.client.HTTPException) as error:  # of a body that is read without `urllib3`
        raise ServerUnreachableError(f"{url}: {error or type(error).__name__}", transient=True) from error


def _require_framing(response: requests.Response) -> None:
    """Take an answer that does not say where its body ends, or which part it is, for one cut off in its headers.

    `http.client` accepts what there is of them. Raises `ServerUnreachableError`.
    """
    headers = response.headers
    is_chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
    is_whole = is_chunked or headers.get("Content-Length", "").isdecimal()
    is_whole &= response.status_code != 206 or "Content-Range" in headers
    is_whole &= len(headers.get("X-Content-SHA256", "-" * 64)) == 64
    if not is_whole:
        raise ServerUnreachableError(f"{response.url}: the answer ended in its headers", transient=True)


def _refusal(response: requests.Response) -> Exception:
    body = next(response.iter_content(_MAX_PROBLEM_BYTES), b"")
    return error_from_response(response.status_code, response.headers, body, url=str(response.url))
