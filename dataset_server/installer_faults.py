"""What uv or git could not do: recognised by their own words, with what helps against it.

Nothing here decides what is right: an unknown message is told as it is, and counts as something that stays so.
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from .credentials import masked
from .errors import EnvironmentFailedError
from .processes import Finished


@dataclass(frozen=True)
class Trouble:
    """A class of failure: its name, what helps, and whether trying again later may do without any help."""

    name: str
    remedy: str
    retryable: bool = False


NO_PROGRAM = Trouble("no_program", "install that program on the server, or put it on the server's PATH")
DISK_FULL = Trouble("disk_full", "free space where the server keeps its environments and uv its cache", retryable=True)
TIMEOUT = Trouble(
    "timeout", "it is tried again; raise install_timeout if the installation is just large", retryable=True
)
NO_NETWORK = Trouble(
    "no_network", "check that the server reaches its package index and repositories (proxy, DNS, UV_* settings)", True
)
REFUSED = Trouble("refused", "give the server's user the right to read that index or repository")
HASH_MISMATCH = Trouble(
    "hash_mismatch",
    "what the index delivers is not what was locked: have the handler's requirements.lock made anew, and find out why",
)
NOT_LOCKED = Trouble(
    "not_locked", "the handler's requirements.lock must pin all that the handler needs, each with a hash: make it anew"
)
PYTHON = Trouble(
    "python", "that version needs another Python than the server gives it: set `python`, or ask for another version"
)
NO_REPOSITORY = Trouble("no_repository", "there is no such repository: check the handler's source in the settings")
NO_PACKAGE = Trouble(
    "no_package", "a package is not in the index: check its name and the index that the server uses (UV_INDEX)"
)
UNSATISFIABLE = Trouble(
    "unsatisfiable", "its requirements contradict each other or what the server locks: they must be changed"
)
BUILD = Trouble("build", "a package cannot be built: its last lines say why; its author can help")
UNKNOWN = Trouble("unknown", "its last lines say more")

_UNREACHABLE = (
    r"could not resolve host|dns error|connection refused|connection reset|network is unreachable|no route to host|"
    r"failed to connect|couldn't connect|timed out|error sending request|network was disabled|"
    r"http status server error|the requested url returned error: 5\d\d|early eof|remote end hung up|"
    r"could not read from remote repository"
)

#: What is looked for in what it printed as errors, the first match counts: what is more telling comes first.
_SIGNS: tuple[tuple[Trouble, str], ...] = (
    (DISK_FULL, r"no space left on device|os error 28\b|disk quota exceeded|os error 122\b"),
    (HASH_MISMATCH, r"hash mismatch for"),
    (NOT_LOCKED, r"`--require-hashes` mode|hash-checking is required"),
    (NO_REPOSITORY, r"does not appear to be a git repository|repository .*not found|repository .*does not exist"),
    (NO_NETWORK, _UNREACHABLE),
    (REFUSED, r"authentication failed|401 unauthorized|403 forbidden|returned error: 40[13]|could not read username"),
    (PYTHON, r"does not satisfy python|no interpreter found for python|requires-python"),
    (NO_PACKAGE, r"was not found in the (package registry|provided package locations)|was not found in the cache"),
    (BUILD, r"failed to build|build backend returned an error"),
    (UNSATISFIABLE, r"requirements are unsatisfiable|no solution found|because there is no version of"),
)


def recognise(finished: Finished) -> Trouble:
    """The class of a failure, from the status and the words of uv or git."""
    if finished.status == 127:
        return NO_PROGRAM
    if finished.status == 124:
        return TIMEOUT
    for trouble, pattern in _SIGNS:
        if re.search(pattern, finished.errors, re.IGNORECASE):
            return trouble
    return UNKNOWN


def installer_failed(what: str, finished: Finished, root: Path) -> EnvironmentFailedError:
    """The fault to raise when a program failed: ``what`` is a sentence's begin, such as "git cannot list … ".

    The program's last lines come along, without passwords, and without where below ``root`` the server works.
    """
    trouble = recognise(finished)
    message = f"{what} ({trouble.name}): {trouble.remedy}"
    return EnvironmentFailedError(message, told(finished, root), retryable=trouble.retryable)


def told(finished: Finished, root: Path) -> str:
    """A program's last lines as clients may read them: without passwords, and without where below ``root`` we work."""
    return masked(finished.tail).replace(str(root), "…")


def disk_failed(what: str, error: OSError) -> EnvironmentFailedError:
    """The fault to raise when our own writing failed."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = DISK_FULL.remedy if full else "check the environments' folder and its rights"
    return EnvironmentFailedError(f"{what}: {error.strerror or error}; {remedy}", retryable=full)
