"""HTTP: one session, one POST, and the translation of everything that `requests` raises. Blocking, for
threads.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import requests

from dataset_client.answers import Answer, read_answer
from dataset_client.errors import ProtocolError, ServerUnreachableError
from dataset_client.problems import error_from_response
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings

_MAX_PROBLEM_BYTES = 1 << 20


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

    def ask(self, stop: threading.Event, request: DatasetRequest) -> Answer:
        """POST ``request`` once; raises what the server's refusal means (`error_from_response`)."""
        del stop  # too short to be worth interrupting
        url = self.settings.url("datasets")
        headers = {"Content-Type": "application/json", "Accept": "application/json, application/problem+json"}
        with self._open("POST", url, headers=headers, data=request.body()) as response:
            if response.status_code not in {200, 202}:
                raise _refusal(response)
            try:
                body = response.json()
            except requests.JSONDecodeError as error:
                raise ProtocolError(f"{url} answers something that is not JSON") from error
        return read_answer(body, expected_topic=request.topic_id)

    @contextlib.contextmanager
    def get(self, url: str, *, offset: int, accepted: frozenset[int]) -> Iterator[requests.Response]:
        """GET ``url`` from byte ``offset`` on as a stream; a status that is not ``accepted`` is raised.

        A body may end early without an error.
        """
        # any other encoding would make Content-Length and Range speak of other bytes than ours
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        with self._open("GET", self.settings.url(url), headers=headers) as response:
            if response.status_code not in accepted:
                raise _refusal(response)
            # A body that ends early shall hand over what it had; urllib3's own check would throw that away.
            # The caller knows the length, and checks it.
            response.raw.enforce_content_length = False
            yield response

    @contextlib.contextmanager
    def _open(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None = None
    ) -> Iterator[requests.Response]:
        timeout = (self.settings.connect_timeout_s, self.settings.read_timeout_s)
        try:
            with self._session.request(
                method, url, headers=headers, data=data, timeout=timeout, stream=True
            ) as response:
                yield response
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.TooManyRedirects,
        ) as error:
            raise ProtocolError(f"{url}: {error}") from error
        except requests.RequestException as error:
            raise ServerUnreachableError(f"{url}: {error}", transient=True) from error


def _refusal(response: requests.Response) -> Exception:
    body = next(response.iter_content(_MAX_PROBLEM_BYTES), b"")
    return error_from_response(response.status_code, response.headers, body, url=str(response.url))
