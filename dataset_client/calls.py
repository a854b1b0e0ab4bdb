"""The API's small calls, JSON in and out, for who asks again and again. Blocking, for threads.

`http` has the call that begins a request, and the ones that bring files.
"""

import json
from collections.abc import Mapping
from typing import Any

import requests

from dataset_client.errors import ProtocolError, ServerAwayError, ServerUnreachableError
from dataset_client.problems import error_from_response
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings

_MAX_BYTES = 64 << 20  # a dataset of many shards lists them all


class _Token(requests.auth.AuthBase):
    """The token, if there is one; in any case not what ``~/.netrc`` says."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def ask(request: DatasetRequest, settings: Settings) -> Mapping[str, Any]:
    """``POST /datasets``: where the request stands; begins it if nobody has. Raises what a refusal means."""
    headers = {"Content-Type": "application/json"}
    return _call("POST", "datasets", settings, headers=headers, data=request.body())


def get_dataset(dataset_id: str, settings: Settings) -> Mapping[str, Any]:
    """``GET /datasets/{id}``: its state, archive, error, progress and sealed shards. Raises what a refusal means."""
    return _call("GET", f"datasets/{dataset_id}", settings)


def _call(method: str, reference: str, settings: Settings, **more: Any) -> Mapping[str, Any]:
    url = settings.url(reference)
    more["headers"] = {"Accept": "application/json", "User-Agent": "dataset-client", **more.get("headers", {})}
    timeout = (settings.connect_timeout_s, settings.answer_timeout_s)
    try:
        with requests.request(
            method, url, auth=_Token(settings.token), timeout=timeout, stream=True, allow_redirects=False, **more
        ) as response:
            body = next(response.iter_content(_MAX_BYTES), b"")
    except requests.ConnectionError as error:
        raise ServerAwayError(f"{url}: {error}", transient=True) from error
    except requests.RequestException as error:
        raise ServerUnreachableError(f"{url}: {error}", transient=True) from error
    if response.status_code not in {200, 202}:
        raise error_from_response(response.status_code, response.headers, body, url=url)
    try:
        answer = json.loads(body)
    except ValueError as error:  # also what a broken connection has cut short
        raise ServerUnreachableError(f"{url} answers something that is not JSON", transient=True) from error
    if not isinstance(answer, dict):
        raise ProtocolError(f"{url} answers {type(answer).__name__}, not a JSON object")
    return answer
