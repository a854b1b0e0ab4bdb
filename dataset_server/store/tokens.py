"""Tokens in the database: who may ask, as what, and how much.

Only the sha256 of a token is kept. Its secret has 256 random bits, so a slow hash – which makes guessing a password
dear – would add nothing but time to each request.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from .database import Database
from .schema import tokens


@dataclass(frozen=True)
class Token:
    """A token as the table has it; times are seconds since the epoch, ``digest`` is in hex."""

    token_id: str
    name: str
    role: str
    digest: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    requests_per_minute: int | None
    queue_limit: int | None

    def is_valid(self, now: float) -> bool:
        """Whether it lets anybody in at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class TokenStore:
    """Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Token]:
        """Every token that was ever made, oldest first."""
        async with self._database.reading() as db:
            rows = await db.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.token_id))
            return [Token(**row._mapping) for row in rows]

    async def add(self, token: Token) -> None:
        """Keep a new token."""
        async with self._database.writing() as db:
            await db.execute(insert(tokens).values(**vars(token)))

    async def revoke(self, token_id: str) -> Token | None:
        """Take a token back, once; returns it as it was, or None if there is none or it was revoked before."""
        async with self._database.writing() as db:
            where = (tokens.c.token_id == token_id, tokens.c.revoked_at.is_(None))
            row = (await db.execute(select(tokens).where(*where))).one_or_none()
            await db.execute(update(tokens).where(*where).values(revoked_at=time.time()))
            return Token(**row._mapping) if row else None

    async def note_uses(self, uses: Mapping[str, float]) -> None:
        """Note when each token was last used."""
        async with self._database.writing() as db:
            for token_id, at in uses.items():
                await db.execute(update(tokens).where(tokens.c.token_id == token_id).values(last_used_at=at))
