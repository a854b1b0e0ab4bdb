"""HTTP: one session, one POST, and the translation of everything that `requests` raises. Blocking, for
threads.
"""

import contextlib
from collections.abc import Iterator, Mapping

import requests
import urllib3

from dataset_client.answers import Answer, read_answer
from dataset_client.errors import ProtocolError, ServerAwayError, ServerUnreachableError
from dataset_client.problems import error_from_response
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings

_MAX_PROBLEM_BYTES = 1 << 20
_MAX_BLOCK_BYTES = 1 << 16


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
        self._response.close()

    def read(self) -> bytes:
        """What has arrived, at least a byte; nothing at the end, which may come early without an error."""
        with _errors_of(self._response.url):
            return self._response.raw.read1(_MAX_BLOCK_BYTES, decode_content=True) or b""

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
        url = self.settings.url("datasets")
        headers = {"Content-Type": "application/json", "Accept": "application/json, application/problem+json"}
        timeout = (self.settings.connect_timeout_s, self.settings.answer_timeout_s)
        with (
            _errors_of(url),
            self._session.post(url, headers=headers, data=request.body(), timeout=timeout, stream=True) as response,
        ):
            _require_framing(response)
            if response.status_code not in {200, 202}:
                raise _refusal(response)
            try:
                body = response.json()
            except requests.JSONDecodeError as error:
                raise ProtocolError(f"{url} answers something that is not JSON") from error
        return read_answer(body, expected_topic=request.topic_id)

    def get(self, reference: str, offset: int, accepted: frozenset[int]) -> Body:
        """GET ``reference`` from byte ``offset`` on, up to its body; a status that is not ``accepted`` is raised."""
        url = self.settings.url(reference)
        # any other encoding would make Content-Length and Range speak of other bytes than ours
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        timeout = (self.settings.connect_timeout_s, self.settings.read_timeout_s)
        with _errors_of(url):
            response = self._session.get(url, headers=headers, timeout=timeout, stream=True)
            with contextlib.ExitStack() as refused:
                refused.push(response)
                _require_framing(response)
                if response.status_code not in accepted:
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
        raise ProtocolError(f"{url}: {error}") from error
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:  # that does not mend itself soon
        raise ServerUnreachableError(f"{url}: {error}", transient=True) from error
    except requests.ConnectionError as error:
        raise ServerAwayError(f"{url}: {error}", transient=True) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ServerUnreachableError(f"{url}: {error}", transient=True) from error


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
