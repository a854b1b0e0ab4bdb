"""Where an archive's bytes come from, and whether an answer has those that were asked for."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from dataset_client.errors import IntegrityError, ServerError, ServerUnreachableError
from dataset_client.http import Body, Http

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
#: Deleted, not there now, and gone: what was given up or lost is made again for who asks for it again.
_GIVEN_UP = frozenset({404, 409, 410})


class RevisionReplacedError(IntegrityError):
    """The server has published another revision since it offered this one, or has given it up: ask again. Callers
    see it only if that goes on.

    ``may_come_back`` if the same bytes may be there again once they have been made again.
    """

    may_come_back = False


class NoRangesError(Exception):
    """What answers does not serve parts of files; never reaches the user."""


@dataclass
class Source:
    """Where bytes come from: ``url``, and what is there: ``size`` bytes with this ``sha256`` in hex. ``tag`` is the
    entity tag that its first answer had, as every other one must, and ``answered_within_s`` how long the quickest one
    took to begin.
    """

    url: str
    size: int
    sha256: str
    tag: str | None = None
    answered_within_s: float | None = None

    def get(self, http: Http, start: int, stop: int) -> Body:
        """Ask for the bytes ``start`` to ``stop``, and return the body that brings them.

        Raises `RevisionReplacedError`, `NoRangesError`, and what `Http.get` raises.
        """
        began = time.monotonic()
        body = get(http, self.url, (start, stop), self.tag)
        took = time.monotonic() - began
        self.answered_within_s = min(took, self.answered_within_s or took)
        try:
            self.tag = check_answer(self, body.status, body.headers, start) or self.tag
        except BaseException:
            body.close()
            raise
        return body


def get(http: Http, url: str, part: tuple[int, int] | None, tag: str | None = None) -> Body:
    """`Http.get`, where what is not there any more is a `RevisionReplacedError`."""
    try:
        return http.get(url, part, tag=tag)
    except ServerError as error:
        if error.status not in _GIVEN_UP:
            raise
        gone = RevisionReplacedError(f"{url} is not there any more: {error.message}")
        gone.may_come_back = True
        raise gone from error


def check_answer(source: Source, status: int, headers: Mapping[str, str], start: int) -> str | None:
    """Whether an answer has the bytes from ``start`` on of what is at ``source``: raises `RevisionReplacedError` or
    `NoRangesError` if not, and returns its strong entity tag if it has one. Pure.
    """
    tag = headers.get("ETag", "")
    published = headers.get("X-Content-SHA256") or source.sha256
    if published != source.sha256 or status == 412 or (source.tag and tag and tag != source.tag):
        raise RevisionReplacedError(f"{source.url} has been replaced by a new revision")
    if status != 206:
        raise NoRangesError
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != start or match[3] not in {str(source.size), "*"}:
        raise ServerUnreachableError(f"{source.url} answers with other bytes than asked for", transient=True)
    return tag if tag.startswith('"') else None
