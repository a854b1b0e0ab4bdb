"""Which bytes of a file a request is for: the decision of RFC 9110 for one file with a strong entity tag.

Conditions come first (13.2.2): ``If-Match``, ``If-None-Match``, then ``Range`` where ``If-Range`` holds. One range is
served. Several, or a header that is not understood, get the whole file, as 14.2 allows: what a client can make the
server send is never more than one copy of the file for each request. There are no dates: an ``If-Range`` with one does
not hold, and ``If-Modified-Since`` is not looked at, since the sha256 says it better.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
#: More digits than any file has bytes; longer numbers are cut to it.
_FAR = 10**18


@dataclass(frozen=True)
class Wanted:
    """What to answer: ``status`` 200, 206, 304, 412 or 416, and for the first two the bytes of the file."""

    status: int
    bytes: range = range(0)


def wanted(method: str, headers: Mapping[str, str], sha256: str, size: int) -> Wanted:
    """The answer to ``method`` (``GET`` or ``HEAD``) on a file of ``size`` bytes whose entity tag is ``sha256``."""
    if (match := headers.get("If-Match")) is not None and not _lists(match, sha256, weak=False):
        return Wanted(412)
    if (none_match := headers.get("If-None-Match")) is not None and _lists(none_match, sha256, weak=True):
        return Wanted(304)
    asked = headers.get("Range")
    if method != "GET" or asked is None or not _same(headers.get("If-Range"), sha256):
        return Wanted(200, range(size))
    return _range(asked, size)


def _range(header: str, size: int) -> Wanted:
    """One range of ``size`` bytes (14.1.1): ``first-last``, ``first-``, or the last so many as ``-count``."""
    found = _RANGE.fullmatch(header)
    if found is None or found.groups() == ("", ""):
        return Wanted(200, range(size))
    first, last = (_number(text) if text else None for text in found.groups())
    if first is None:
        assert last is not None
        part = range(max(0, size - last), size)
    elif last is None:
        part = range(first, size)
    elif last < first:
        return Wanted(200, range(size))  # invalid, thus not there
    else:
        part = range(first, min(last + 1, size))
    return Wanted(206, part) if part else Wanted(416)


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= 18 else min(int(digits.lstrip("0")[:19] or "0"), _FAR)


def _same(if_range: str | None, sha256: str) -> bool:
    """Whether an ``If-Range`` allows a part: only by the strong comparison of a tag (13.1.5)."""
    return if_range is None or if_range.strip() == f'"{sha256}"'


def _lists(header: str, sha256: str, *, weak: bool) -> bool:
    """Whether a list of tags has ours; ``*`` is every tag. Weak tags count only in weak comparison (8.8.3.2)."""
    if header.strip() == "*":
        return True
    return any(tag == sha256 and (weak or not is_weak) for is_weak, tag in _TAG.findall(header))
