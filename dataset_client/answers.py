"""What the server's JSON says, read strictly: an answer to a request, and the archive it or a `ready` event
offers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset_client.errors import ProtocolError
from dataset_client.protocol import ID_PATTERN, STATES

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Archive:
    """A published archive: whose it is, where it is (perhaps relative to the API's root), its bytes, and in hex its
    sha256 and that of the manifest in it, which vouches for everything else.
    """

    dataset_id: str
    url: str
    bytes: int
    sha256: str
    manifest_sha256: str


@dataclass(frozen=True)
class Answer:
    """The answer to a request; ``archive`` is set exactly when ``state`` is ``ready``."""

    topic_id: str
    state: str
    attempt: int
    archive: Archive | None


def read_answer(body: Any, *, expected_topic: str) -> Answer:
    """Read the JSON body of a 200 or 202; raises `ProtocolError` for what is not the answer to this
    request.
    """
    if not isinstance(body, Mapping):
        raise ProtocolError(f"the server's answer is {type(body).__name__}, not a JSON object")
    topic_id, state, attempt = body.get("topic_id"), body.get("state"), body.get("attempt")
    if topic_id != expected_topic:
        raise ProtocolError(f"asked for {expected_topic}, the server answers about {topic_id!r}")
    if state not in STATES or type(attempt) is not int or attempt < 0:
        raise ProtocolError(f"the server answers state {state!r}, attempt {attempt!r}")
    archive = read_archive(body) if state == "ready" else None
    return Answer(topic_id=expected_topic, state=state, attempt=attempt, archive=archive)


def read_archive(body: Mapping[str, Any]) -> Archive:
    """Read ``{"dataset_id", "archive": {"url", "bytes", "sha256", "manifest_sha256"}}``; raises `ProtocolError`.

    The strictness is for safety too: id and sha256 become file names.
    """
    dataset_id, archive = body.get("dataset_id"), body.get("archive")
    if not isinstance(dataset_id, str) or not ID_PATTERN.fullmatch(dataset_id):
        raise ProtocolError(f"the server calls the dataset {dataset_id!r}, which is no dataset id")
    if not isinstance(archive, Mapping):
        raise ProtocolError(f"the server says that {dataset_id} is ready, but not where its archive is")
    url, size, sha256 = archive.get("url"), archive.get("bytes"), archive.get("sha256")
    if not isinstance(url, str) or type(size) is not int or size < 0:
        raise ProtocolError(f"the server offers {dataset_id} at {url!r} with {size!r} bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ProtocolError(f"the server offers {dataset_id} with sha256 {sha256!r}")
    manifest_sha256 = archive.get("manifest_sha256")
    if not isinstance(manifest_sha256, str) or not _SHA256.fullmatch(manifest_sha256):
        raise ProtocolError(f"the server offers {dataset_id} with manifest_sha256 {manifest_sha256!r}")
    return Archive(dataset_id, url, size, sha256, manifest_sha256)
