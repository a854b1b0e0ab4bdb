"""``dataset-server token``: make, list and revoke tokens, also while the server runs."""

import argparse
import asyncio
import getpass
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from ..auth import NAME_PATTERN, SETTINGS_CLIENT, Role, make_token
from ..migrations import SchemaTooNewError, SchemaTooOldError
from ..settings import Settings
from ..store import Database
from ..store.audit import Audit
from ..store.tokens import Token, TokenStore
from .options import Commands, add_command, add_settings, settings_of

_EXAMPLES = """\
examples:
  dataset-server token make trainer --role request --config server.toml
      prints the token, this once: clients send it as DATASET_SERVER_TOKEN
  dataset-server token make ci --role read --expires 30 --requests-per-minute 600
  dataset-server token list
  dataset-server token revoke 3f2a9c0b71de

roles:
  read      list, download, follow notifications
  request   ... and ask for datasets; try again or cancel what it asked for
  admin     ... and delete, pin, read the audit, and change what others asked for

To replace a token, make another of the same name, hand it out, then revoke the old one: a name is one client.
A running server follows within seconds.
"""

_HEAD = ("ID", "NAME", "ROLE", "STATE", "MADE", "LAST USED", "EXPIRES", "A MINUTE", "QUEUE")


def add_parser(commands: Commands) -> None:
    """Add the command and its three actions."""
    parser = add_command(commands, "token", "make, list and revoke tokens", _EXAMPLES)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    making = actions.add_parser("make", help="make a token and print it")
    making.add_argument("name", type=_name, metavar="NAME", help="whose it is; two of one name are one client")
    making.add_argument("--role", required=True, choices=[role.label for role in Role], help="what it may do")
    making.add_argument("--expires", type=_positive, metavar="DAYS", help="days after which it ends (never)")
    making.add_argument("--requests-per-minute", type=_whole, metavar="N", help="its limit (the setting's)")
    making.add_argument("--queue-limit", type=_whole, metavar="N", help="datasets on their way at a time")
    listing = actions.add_parser("list", help="list all tokens, without their secrets")
    revoking = actions.add_parser("revoke", help="take a token back, for good")
    revoking.add_argument("id", metavar="ID", help="as `token list` shows it")
    for action in (making, listing, revoking):
        add_settings(action)


def run(options: argparse.Namespace) -> int:
    """Do one action; 1 if the database cannot be reached or holds no such token."""
    actions: dict[str, Callable[[Database, argparse.Namespace], Awaitable[int]]] = {
        "make": _make,
        "list": _list,
        "revoke": _revoke,
    }
    try:
        return asyncio.run(_with_database(settings_of(options), actions[options.action], options))
    except (OSError, SQLAlchemyError, SchemaTooNewError, SchemaTooOldError) as error:
        print(f"dataset-server: the tokens cannot be reached: {error}", file=sys.stderr)
        return 1


async def _with_database(
    settings: Settings, action: Callable[[Database, argparse.Namespace], Awaitable[int]], options: argparse.Namespace
) -> int:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database)
    try:
        await database.join()
        return await action(database, options)
    finally:
        await database.close()


async def _make(database: Database, options: argparse.Namespace) -> int:
    text, token = make_token(
        options.name,
        Role.called(options.role),
        days=options.expires,
        requests_per_minute=options.requests_per_minute,
        queue_limit=options.queue_limit,
    )
    detail = {"name": token.name, "role": token.role}
    async with Audit(database).deed(_operator(), "token_made", token.token_id, detail):
        await TokenStore(database).add(token)
    print(text)
    print(f"token {token.token_id} of '{token.name}', role {token.role}; it is not shown again", file=sys.stderr)
    return 0


async def _list(database: Database, _: argparse.Namespace) -> int:
    now = time.time()
    rows = [_HEAD, *(_shown(token, now) for token in await TokenStore(database).all())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


async def _revoke(database: Database, options: argparse.Namespace) -> int:
    store = TokenStore(database)
    found = [token for token in await store.all() if token.token_id == options.id and token.revoked_at is None]
    if not found:
        print(f"dataset-server: no token '{options.id}' holds; see dataset-server token list", file=sys.stderr)
        return 1
    (token,) = found
    detail = {"name": token.name, "role": token.role}
    async with Audit(database).deed(_operator(), "token_revoked", token.token_id, detail):
        await store.revoke(token.token_id)
    print(f"token {token.token_id} of '{token.name}' is revoked; a running server follows within seconds")
    return 0


def _shown(token: Token, now: float) -> tuple[str, ...]:
    state = "revoked" if token.revoked_at else "valid" if token.is_valid(now) else "expired"
    return (
        token.token_id,
        token.name,
        token.role,
        state,
        _day(token.created_at),
        _day(token.last_used_at),
        _day(token.expires_at),
        _number(token.requests_per_minute),
        _number(token.queue_limit),
    )


def _day(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _operator() -> str:
    """Who sits at the command line, as the audit names them."""
    try:
        return f"local:{getpass.getuser()}"[:64]
    except (KeyError, OSError):  # a user without an entry in the user database
        return f"local:{os.getuid()}"


def _name(text: str) -> str:
    if not NAME_PATTERN.fullmatch(text) or text == SETTINGS_CLIENT:
        raise argparse.ArgumentTypeError(
            f"'{text[:80]}' is no name: 1 to 64 letters, digits or ._@-, and not '{SETTINGS_CLIENT}'"
        )
    return text


def _positive(text: str) -> float:
    value = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else 0.0
    if not value:
        raise argparse.ArgumentTypeError(f"'{text[:80]}' is not a number above 0")
    return value


def _whole(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"'{text[:80]}' is not a whole number from 1 to 999999999")
    return int(text)
