"""Who asks, and what they may do.

A token reads ``dsp_<id>_<secret>``: 12 hex digits that name it, and 32 random bytes that prove it. The setting
``token`` is one more, of the client "settings", who may do everything. Where there is neither a setting nor, in the
database, any token – not even a revoked one – everybody who reaches the loopback address may do everything, unless
something tells that it is others who do (`opening`, `origins.comes_from_elsewhere`).
"""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import IntEnum

from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from .errors import ForbiddenError, UnauthorizedError
from .store.tokens import Token, TokenStore

logger = logging.getLogger(__name__)

#: Seconds after which a token that was made or revoked is known to be so, at the latest.
FRESH_SECONDS = 5.0
#: Seconds between two readings of all tokens; requests find them read, and wait for no database.
_READ_SECONDS = 1.0
_NOTE_SECONDS = 60.0

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SETTINGS_CLIENT = "settings"

_TOKEN = re.compile(r"dsp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
#: What an unknown token is compared with, so that it takes no other path than a known one.
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class OpenToEveryoneError(PermissionError):
    """Others than this machine's users would reach the server, without being asked for a token."""


class Role(IntEnum):
    """What a client may do; each role may do what those before it may."""

    READ = 1
    REQUEST = 2
    ADMIN = 3

    @classmethod
    def called(cls, name: str) -> "Role":
        """The role of a name: ``read``, ``request`` or ``admin``; raises `KeyError` for another."""
        return cls[name.upper()]

    @property
    def label(self) -> str:
        """Its name in the table, on the command line and in answers."""
        return self.name.lower()


@dataclass(frozen=True)
class Client:
    """Who asks; the name is empty where no token is needed. None as a limit means the one of the settings.

    ``token_id`` is empty for the token of the settings and where none is needed.
    """

    name: str
    role: Role
    requests_per_minute: int | None = None
    queue_limit: int | None = None
    token_id: str = ""


#: Whoever reaches a server that needs no token.
ANYBODY = Client("", Role.ADMIN)
#: Who sent a request; the middleware `rights` sets it.
CLIENT = web.RequestKey("client", Client)


def make_token(
    name: str, role: Role, *, days: float | None, requests_per_minute: int | None, queue_limit: int | None
) -> tuple[str, Token]:
    """A new token: what its holder sends, and what is kept of it. Two tokens of one name are one client."""
    token_id = secrets.token_hex(6)
    text = f"dsp_{token_id}_{secrets.token_urlsafe(32)}"
    now = time.time()
    return text, Token(
        token_id=token_id,
        name=name,
        role=role.label,
        digest=digest(text),
        created_at=now,
        expires_at=None if days is None else now + days * 24 * 3600,
        revoked_at=None,
        last_used_at=None,
        requests_per_minute=requests_per_minute,
        queue_limit=queue_limit,
    )


def digest(text: str) -> str:
    """The sha256 of a token in hex."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def is_guessable(text: str) -> bool:
    """Whether it could be guessed: what has not the form of a token that was made, with its 256 random bits."""
    return _TOKEN.fullmatch(text) is None


def sent_token(authorization: str) -> str | None:
    """The token in an ``Authorization`` header (RFC 6750, 2.1); None where there is none."""
    scheme, _, text = authorization.partition(" ")
    return text.strip() or None if scheme.lower() == "bearer" else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_role(client: Client, needed: Role) -> None:
    """Raise `ForbiddenError` unless ``client`` has the role, or a higher one."""
    if client.role < needed:
        raise ForbiddenError(
            f"this needs the role '{needed.label}'; the token of '{client.name}' has '{client.role.label}'. "
            f"Whoever runs the server makes others: dataset-server token make NAME --role {needed.label}"
        )


def require_own(client: Client, owner: str) -> None:
    """Raise `ForbiddenError` unless ``client`` may change what ``owner`` asked for: its own, or an admin any."""
    if client.role < Role.ADMIN and client.name != owner:
        raise ForbiddenError("another client asked for this; changing it needs the role 'admin'")


class Access:
    """Knows every token, at most `FRESH_SECONDS` late, and who sends which."""

    def __init__(self, store: TokenStore, setting: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._has_setting = setting is not None
        self._setting = digest(setting) if setting is not None else _NOBODY
        self._clock = clock
        self._tokens: dict[str, Token] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._used: dict[str, float] = {}
        self._noted: dict[str, float] = {}

    async def is_needed(self) -> bool:
        """Whether a token is needed at all."""
        await self._refresh()
        return self._has_setting or bool(self._tokens)

    async def client_of(self, text: str) -> Client:
        """Who sends this token; raises `UnauthorizedError` if nobody may. Known and unknown ids take one path."""
        await self._refresh()
        sent = digest(text)
        if hmac.compare_digest(sent, self._setting):
            return Client(SETTINGS_CLIENT, Role.ADMIN)
        match = _TOKEN.fullmatch(text)
        token = self._tokens.get(match[1]) if match else None
        is_right = hmac.compare_digest(sent, token.digest if token else _NOBODY)
        if token is None or not is_right:
            raise UnauthorizedError("the token is not one of this server's")
        now = time.time()
        if not token.is_valid(now):
            raise UnauthorizedError("the token was revoked or has expired; ask whoever runs the server for another")
        self._used[token.token_id] = now
        return Client(token.name, Role.called(token.role), token.requests_per_minute, token.queue_limit, token.token_id)

    async def still_holds(self, client: Client) -> bool:
        """Whether the token that a client came with would let it in now."""
        needed = await self.is_needed()
        if client == ANYBODY:
            return not needed
        if not client.token_id:
            return True  # the setting's: it holds as long as the server runs
        token = self._tokens.get(client.token_id)
        return token is not None and token.is_valid(time.time())

    async def note_uses(self) -> None:
        """Write when tokens were last used, each at most once a minute."""
        due = {
            token_id: at for token_id, at in self._used.items() if at - self._noted.get(token_id, 0.0) >= _NOTE_SECONDS
        }
        if due:
            await self._store.note_uses(due)
            self._noted.update(due)
            for token_id, at in due.items():
                if self._used[token_id] == at:
                    del self._used[token_id]

    async def close(self) -> None:
        """Write the uses that were not yet due."""
        if self._used:
            with contextlib.suppress(SQLAlchemyError):  # no more than the time of a last use is lost
                await self._store.note_uses(self._used)

    async def _refresh(self) -> None:
        """Read the tokens again where they are not fresh. They are few: a read is cheaper than one for each guess."""
        if self._is_fresh():
            return
        async with self._reading:
            if not self._is_fresh():
                await self.read()

    async def read(self) -> None:
        """Read all tokens."""
        now = self._clock()  # before reading: what is revoked meanwhile is stale sooner
        self._tokens = {token.token_id: token for token in await self._store.all()}
        self._read_at = now

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < FRESH_SECONDS


def opening(host: str, public_origins: Collection[str], trusted_proxies: Collection[str]) -> str | None:
    """By which of its settings others than this machine's users reach a server; None if by none of them."""
    if not is_loopback(host):
        return f"listening on {host or 'every address'}"
    if public_origins:
        return "with public_origins"
    return "behind trusted_proxies" if trusted_proxies else None


async def require_tokens_beyond_loopback(opening: str | None, access: Access) -> None:
    """Raise `OpenToEveryoneError` where there is an `opening` for others, and no token is asked for."""
    if opening and not await access.is_needed():
        raise OpenToEveryoneError(
            f"{opening}, the server needs a token: make one with 'dataset-server token make NAME --role admin', "
            "or set DATASET_SERVER_TOKEN (16 characters or more)"
        )


async def watch(access: Access, end_revoked: Callable[[], Awaitable[None]]) -> None:
    """Keep the tokens read, close what revoked ones hold open, and note when they were used, for ever."""
    while True:
        await asyncio.sleep(_READ_SECONDS)
        try:
            await access.read()
            await end_revoked()
            await access.note_uses()
        except Exception:  # the boundary: sockets of revoked tokens would stay open
            logger.exception("the tokens cannot be read or written; trying again")
