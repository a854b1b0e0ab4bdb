"""Who may do what: tokens, roles, limits, the audit, TLS."""

import asyncio
import contextlib
import dataclasses
import hmac
import json
import math
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from http.client import HTTPConnection

import pytest
import requests
import trustme
from sqlalchemy.exc import SQLAlchemyError
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dataset_client.protocol import hash_dataset_name
from dataset_server.__main__ import main
from dataset_server.auth import (
    ANYBODY,
    FRESH_SECONDS,
    Access,
    Client,
    OpenToEveryoneError,
    Role,
    is_loopback,
    make_token,
    opening,
    require_own,
    require_role,
    require_tokens_beyond_loopback,
    sent_token,
    watch,
)
from dataset_server.errors import ForbiddenError, UnauthorizedError
from dataset_server.routes import TABLE
from dataset_server.settings import Settings
from dataset_server.store import Database
from dataset_server.store.audit import Audit
from dataset_server.store.tokens import TokenStore
from dataset_server.tls import server_context
from tests.support import ROOT, Server, connect, wait_until

SETTING = "a token of the settings"
TOPIC = f"coco_1_{'0' * 32}.zip"


def new_token(name="somebody", role=Role.READ, **limits):
    return make_token(name, role, **{"days": None, "requests_per_minute": None, "queue_limit": None, **limits})


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


# -- without a server


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
    await database.create()
    yield database
    await database.close()


async def test_a_token_is_known_by_its_digest_alone(database, tmp_path):
    store = TokenStore(database)
    text, token = new_token("trainer", Role.REQUEST, requests_per_minute=7, queue_limit=3)
    assert re.fullmatch(rf"dsp_{token.token_id}_[A-Za-z0-9_-]{{43}}", text)
    await store.add(token)
    found = await Access(store, None).client_of(text)
    assert found == Client("trainer", Role.REQUEST, 7, 3, token.token_id)
    assert text.split("_", 2)[2].encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_who_is_not_let_in(database):
    store = TokenStore(database)
    good, token = new_token()
    gone, revoked = new_token()
    late, expired = new_token(days=1)
    for each in (token, revoked, dataclasses.replace(expired, expires_at=time.time() - 1)):
        await store.add(each)
    assert await store.revoke(revoked.token_id)
    assert await store.revoke(revoked.token_id) is None, "once"
    access = Access(store, SETTING)
    assert (await access.client_of(good)).name == "somebody"
    assert await access.client_of(SETTING) == Client("settings", Role.ADMIN)
    other, _ = new_token()
    swapped = f"dsp_{token.token_id}_{other.rpartition('_')[2]}"
    for text in (gone, late, other, swapped, good[:-1], good + "x", good.upper(), SETTING + " ", "", "\udcff"):
        with pytest.raises(UnauthorizedError):
            await access.client_of(text)
    with pytest.raises(UnauthorizedError):
        await Access(store, None).client_of("")


async def test_known_and_unknown_tokens_take_one_path(database, monkeypatch):
    """Every answer takes the same two comparisons of whole digests, whichever part is wrong."""
    store = TokenStore(database)
    good, token = new_token()
    await store.add(token)
    access = Access(store, SETTING)
    await access.is_needed()
    compared, real = [], hmac.compare_digest

    def compare(first, second):
        compared.append((len(first), len(second)))
        return real(first, second)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    wrong_secret = f"dsp_{token.token_id}_{'A' * 43}"
    unknown_id = f"dsp_{'0' * 12}_{'A' * 43}"
    for text in (good, wrong_secret, unknown_id, "nonsense", good[:-1]):
        compared.clear()
        with contextlib.suppress(UnauthorizedError):
            await access.client_of(text)
        assert compared == [(64, 64), (64, 64)], text


async def test_what_is_made_or_revoked_elsewhere_is_known_soon(database):
    clock, store = Clock(), TokenStore(database)
    access = Access(store, None, clock)
    assert not await access.is_needed()
    assert await access.still_holds(ANYBODY)
    text, token = new_token()
    await store.add(token)
    clock.now += FRESH_SECONDS
    assert await access.is_needed()
    assert not await access.still_holds(ANYBODY)
    client = await access.client_of(text)
    assert await access.still_holds(client)
    await store.revoke(token.token_id)
    clock.now += FRESH_SECONDS
    with pytest.raises(UnauthorizedError, match="revoked"):
        await access.client_of(text)
    assert not await access.still_holds(client)
    assert await access.is_needed(), "whoever revokes the last token does not open the server"


async def test_uses_are_noted_once_a_minute(database):
    store = TokenStore(database)
    text, token = new_token()
    await store.add(token)
    access = Access(store, None)
    await access.client_of(text)
    await access.note_uses()
    (first,) = await store.all()
    assert first.last_used_at == pytest.approx(time.time(), abs=60)
    await access.client_of(text)
    await access.note_uses()
    assert await store.all() == [first]
    await access.close()
    (last,) = await store.all()
    assert last.last_used_at > first.last_used_at


async def test_nobody_listens_to_everybody(database):
    access = Access(TokenStore(database), None)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert is_loopback(host)
        assert opening(host, (), ()) is None
    await require_tokens_beyond_loopback(None, access)
    open_hosts = [(host, (), ()) for host in ("0.0.0.0", "::", "192.0.2.1", "data.example.org", "")]
    behind_proxies = [("127.0.0.1", ("https://data.example.org",), ()), ("127.0.0.1", (), ("127.0.0.1",))]
    for others in open_hosts + behind_proxies:
        with pytest.raises(OpenToEveryoneError, match="token make"):
            await require_tokens_beyond_loopback(opening(*others), access)
        await require_tokens_beyond_loopback(opening(*others), Access(TokenStore(database), SETTING))


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", None), ("Bearer", None), ("Bearer ", None), ("", None)],
)
def test_the_token_of_a_header(header, token):
    assert sent_token(header) == token


def test_roles_and_owners():
    for needed in Role:
        for has in Role:
            if has >= needed:
                require_role(Client("x", has), needed)
            else:
                with pytest.raises(ForbiddenError, match=f"role '{needed.label}'"):
                    require_role(Client("x", has), needed)
    require_own(Client("x", Role.REQUEST), "x")
    require_own(Client("x", Role.ADMIN), "y")
    with pytest.raises(ForbiddenError):
        require_own(Client("x", Role.REQUEST), "y")


async def test_the_audit_counts_equal_requests_and_writes_deeds_at_once(database):
    audit = Audit(database)
    for _ in range(3):
        await audit.note("a", "request", "topic 1")
    await audit.note("b", "request", "topic 1")
    everything = {"client": None, "action": None, "subject": None, "after": 0, "limit": 100}
    assert await audit.find(**everything) == []
    async with audit.deed("c", "pin", "dataset 1", {"why": "needed"}):
        (pin,) = await audit.find(**everything)  # before it is done
    assert await audit.find(**everything) == [pin]
    assert (pin.client, pin.action, pin.subject, json.loads(pin.detail)) == ("c", "pin", "dataset 1", {"why": "needed"})
    await audit.flush()
    found = await audit.find(**{**everything, "subject": "topic 1"})
    assert [(each.client, json.loads(each.detail)) for each in found] == [("a", {"times": 3}), ("b", {})]
    assert await audit.find(**{**everything, "client": "a", "action": "request"}) == found[:1]
    assert await audit.find(**{**everything, "after": found[0].number}) == found[1:]
    assert await audit.find(**{**everything, "limit": 1}) == [pin]


@pytest.mark.parametrize(
    ("failure", "outcome"), [(ForbiddenError("no"), "forbidden"), (OSError("no"), "internal_error")]
)
async def test_the_audit_says_what_a_deed_came_to(database, failure, outcome):
    audit = Audit(database)
    with pytest.raises(type(failure)):
        async with audit.deed("a", "delete", "dataset", {"force": True}):
            raise failure
    (entry,) = await audit.find(client=None, action=None, subject=None, after=0, limit=9)
    assert json.loads(entry.detail) == {"force": True, "outcome": outcome}


async def test_what_cannot_be_noted_is_not_done(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
    done = []
    with pytest.raises(SQLAlchemyError):
        async with Audit(database).deed("a", "delete", "dataset"):
            done.append("deleted")
    assert not done
    await database.close()


async def test_tokens_are_read_again_after_whatever_fails(monkeypatch):
    """asyncpg raises `OSError` where a database is not reached."""
    monkeypatch.setattr("dataset_server.auth._READ_SECONDS", 0.0)
    told = [OSError("unreachable"), SQLAlchemyError("locked"), ValueError("unforeseen")]
    again = asyncio.Event()

    class Unsteady(Access):
        async def read(self):
            if told:
                raise told.pop()
            again.set()

    async def none_revoked():
        pass

    watching = asyncio.create_task(watch(Unsteady(None, None), none_revoked))
    await asyncio.wait_for(again.wait(), 60)
    watching.cancel()


async def test_the_audit_loses_nothing_while_the_database_refuses(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
    audit = Audit(database)
    await audit.note("a", "request", "topic")
    with pytest.raises(Exception, match="no such table"):
        await audit.flush()
    await audit.note("a", "request", "topic")
    await database.create()
    await audit.flush()
    (entry,) = await audit.find(client=None, action=None, subject=None, after=0, limit=9)
    assert json.loads(entry.detail) == {"times": 2}
    await database.close()


async def test_the_audit_forgets_what_is_old_and_writes_what_waits(database):
    audit = Audit(database, days=1)
    async with audit.deed("a", "pin", "x"):
        pass
    async with database.writing() as db:
        await db.exec_driver_sql("UPDATE audit SET at = at - 90000")
    async with audit.deed("a", "pin", "y"):
        pass
    audit.start()
    await audit.note("a", "request", "z")
    await audit.close()
    await audit.prune()
    found = await audit.find(client=None, action=None, subject=None, after=0, limit=9)
    assert [entry.subject for entry in found] == ["y", "z"]


# -- the command


def test_the_command_makes_lists_and_revokes(tmp_path, capsys):
    where = ["--raw-root", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    making = ["token", "make", "ci", "--role", "request", "--expires", "30", "--requests-per-minute", "60", *where]
    assert main(making) == 0
    text, told = capsys.readouterr()
    assert re.fullmatch(r"dsp_[0-9a-f]{12}_[A-Za-z0-9_-]{43}\n", text), "nothing else, for a script to read"
    assert text.strip() not in told
    token_id = text.split("_")[1]
    assert main(["token", "list", *where]) == 0
    listed = capsys.readouterr().out
    assert re.search(rf"{token_id} +ci +request +valid", listed)
    assert text.strip().split("_", 2)[2] not in listed
    assert main(["token", "revoke", token_id, *where]) == 0
    assert main(["token", "revoke", token_id, *where]) == 1
    assert "no token" in capsys.readouterr().err
    assert main(["token", "list", *where]) == 0
    assert re.search(rf"{token_id} +ci +request +revoked", capsys.readouterr().out)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "server.db")) as database:
        actions = list(database.execute("SELECT action, subject FROM audit ORDER BY number"))
    assert actions == [("token_made", token_id), ("token_revoked", token_id)]


@pytest.mark.parametrize(
    "wrong",
    [
        ["settings", "--role", "read"],
        ["", "--role", "read"],
        ["a b", "--role", "read"],
        ["--role", "read"],
        ["x" * 65, "--role", "read"],
        ["x", "--role", "root"],
        ["x"],
        ["x", "--role", "read", "--expires", "0"],
        ["x", "--role", "read", "--expires", "nan"],
        ["x", "--role", "read", "--requests-per-minute", "0"],
        ["x", "--role", "read", "--queue-limit", "1.5"],
    ],
)
def test_wrong_wishes_for_a_token(wrong, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["token", "make", *wrong])
    assert refused.value.code == 2
    assert "error" in capsys.readouterr().err


# -- a server with tokens


def add(server, *args, **limits):
    """A new token of a server, whether it runs or not."""
    text, token = new_token(*args, **limits)

    async def keep():
        database = Database(f"sqlite+aiosqlite:///{server.data_dir / 'server.db'}")
        await database.create()
        await TokenStore(database).add(token)
        await database.close()

    asyncio.run(keep())
    return text, token


def revoke(server, token):
    with contextlib.closing(sqlite3.connect(server.data_dir / "server.db", timeout=30)) as database, database:
        database.execute("UPDATE tokens SET revoked_at = 1 WHERE token_id = ?", [token.token_id])


@pytest.fixture(scope="module")
def guarded(raw_root, environments_dir, plugin_sources, tmp_path_factory):
    """A server with a token of the settings and one of each role; ``guarded.tokens`` by role."""
    folder = tmp_path_factory.mktemp("guarded")
    settings = {"token": SETTING, "workers": 1, "sockets_per_client": 3}
    server = Server(raw_root, folder, environments_dir, handlers=plugin_sources, settings=settings)
    server.tokens = {role: add(server, f"{role.label}er", role)[0] for role in Role}
    server.start()
    yield server
    assert server.stop() == 0
    log = (folder / "test-server.log").read_text()
    assert not any(text in log for text in (SETTING, *(text for text in server.tokens.values())))


def call(server, route, token=None):
    path = re.sub(r"\{\w+\}", "nonesuch", route.path)
    return requests.request(
        route.method, server.url + path, headers=bearer(token) if token else {}, timeout=60, allow_redirects=False
    )


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_asks_for_its_role(guarded, route):
    if route.role is None:
        assert call(guarded, route).status_code == 200
        return
    needed = Role.called(route.role)
    anonymous = call(guarded, route)
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "unauthorized")
    assert anonymous.headers["WWW-Authenticate"] == "Bearer"
    for role, token in guarded.tokens.items():
        answer = call(guarded, route, token)
        if role >= needed:
            assert answer.status_code in {200, 202, 400, 404, 409, 422}, answer.text
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
            assert f"role '{needed.label}'" in answer.json()["detail"]


def test_what_is_not_there_is_told_to_nobody_unknown(guarded):
    for method, path in (("GET", "/nothing"), ("DELETE", "/api/v1/handlers"), ("PUT", "/metrics"), ("GET", "//")):
        assert requests.request(method, guarded.url + path, timeout=60).status_code == 401


def test_the_audit_knows_who_asked(guarded):
    body = {"dataset_name": "tones", "handler_version": "1.0", "dataset_config": {"seed": 99}}
    answer = requests.post(
        f"{guarded.api}/datasets", json=body, headers=bearer(guarded.tokens[Role.REQUEST]), timeout=120
    )
    assert answer.status_code in (200, 202), answer.text
    topic = answer.json()["topic_id"]

    def entries():
        answer = requests.get(f"{guarded.api}/audit", params={"subject": topic}, headers=bearer(SETTING), timeout=60)
        return answer.json()["entries"]

    assert wait_until(entries)
    (entry,) = entries()
    assert (entry["client"], entry["action"], entry["subject"]) == ("requester", "request", topic)
    unknown = {"dataset_name": "nonesuch", "handler_version": "1.0"}
    headers = bearer(guarded.tokens[Role.REQUEST])
    assert requests.post(f"{guarded.api}/datasets", json=unknown, headers=headers, timeout=60).status_code == 404
    assert requests.get(f"{guarded.api}/handlers/nonesuch/1.0", headers=headers, timeout=60).status_code == 404

    def noted(action):
        query = {"client": "requester", "action": action, "limit": 1000}
        answer = requests.get(f"{guarded.api}/audit", params=query, headers=bearer(SETTING), timeout=60)
        return [(each["subject"], each["detail"].get("outcome")) for each in answer.json()["entries"]]

    asked = hash_dataset_name("nonesuch", "1.0", "{}")
    assert wait_until(lambda: (asked, "dataset_unknown") in noted("request"))
    assert wait_until(lambda: ("nonesuch 1.0", None) in noted("describe"))
    for query in ("limit=0", "after=-1", "surprise=1", "limit=1&limit=2"):
        wrong = requests.get(f"{guarded.api}/audit?{query}", headers=bearer(SETTING), timeout=60)
        assert (wrong.status_code, wrong.json()["code"]) == (400, "malformed_request")


def test_a_token_has_its_own_rate(guarded):
    slow, _ = add(guarded, "slow", requests_per_minute=3)
    asked = f"{guarded.api}/datasets"
    assert wait_until(lambda: requests.get(asked, headers=bearer(slow), timeout=60).status_code == 200)

    answers = []

    def is_refused():
        answers.append(requests.get(asked, headers=bearer(slow), timeout=60))
        return answers[-1].status_code == 429

    assert wait_until(is_refused)
    assert answers[0].status_code == 200
    answer = answers[-1]
    assert answer.json()["code"] == "too_many_requests"
    assert 1 <= int(answer.headers["Retry-After"]) <= math.ceil(60 / 3)
    assert requests.get(asked, headers=bearer(guarded.tokens[Role.READ]), timeout=60).status_code == 200


def test_guessing_is_slowed_down_by_address(guarded):
    """Another loopback address than that of the other tests. Made tokens cannot be guessed, and pass."""
    host, port = guarded.url.removeprefix("http://").split(":")

    def ask(token, source="127.0.0.77"):
        connection = HTTPConnection(host, int(port), timeout=60, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.request("GET", "/api/v1/datasets", headers=bearer(token))
            answer = connection.getresponse()
            return answer.status, answer.headers["Retry-After"]

    assert ask("wrong") == (401, None)
    guesses = []
    assert wait_until(lambda: guesses.append(ask("wrong")) or guesses[-1][0] == 429, timeout=60)
    assert len(guesses) >= 19
    assert guesses[-1][1] in {"1", "2", "3"}
    assert wait_until(lambda: ask("wrong")[0] == 429 and ask(SETTING)[0] == 429), "the setting's could be guessed"
    assert ask(guarded.tokens[Role.READ])[0] == 200
    assert ask("wrong", "127.0.0.78")[0] == 401


def test_a_revoked_token_and_its_sockets(guarded):
    text, token = add(guarded, "leaver")
    asked = f"{guarded.api}/datasets"
    assert wait_until(lambda: requests.get(asked, headers=bearer(text), timeout=60).status_code == 200)
    url = f"{guarded.api.replace('http', 'ws', 1)}/notifications?topic={TOPIC}"
    stays = bearer(guarded.tokens[Role.READ])
    with connect(url, additional_headers=bearer(text)) as leaving, connect(url, additional_headers=stays) as staying:
        assert json.loads(leaving.recv(60))["kind"] == json.loads(staying.recv(60))["kind"] == "subscribed"
        revoke(guarded, token)
        with pytest.raises(ConnectionClosed) as closed:
            leaving.recv(60)
        assert closed.value.rcvd.code == 1008
        staying.ping().wait(60)
    assert requests.get(asked, headers=bearer(text), timeout=60).status_code in {401, 429}
    with pytest.raises(InvalidStatus), connect(url, additional_headers=bearer(text)):
        pass


def test_a_client_holds_so_many_sockets(guarded):
    url = f"{guarded.api.replace('http', 'ws', 1)}/notifications?topic={TOPIC}"
    headers = bearer(guarded.tokens[Role.ADMIN])
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(url, additional_headers=headers)).recv(60)
        with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
            pass
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"]
        with connect(url, additional_headers=bearer(guarded.tokens[Role.READ])):
            pass
        polled = requests.get(f"{guarded.api}/events?topic={TOPIC}", headers=headers, timeout=60)
        assert (polled.status_code, polled.json()["messages"][0]["kind"]) == (200, "subscribed"), "it is no socket"

    def again():
        try:
            with connect(url, additional_headers=headers):
                return True
        except InvalidStatus:
            return False

    assert wait_until(again)


def test_last_use_is_kept(guarded):
    def used():
        with contextlib.closing(sqlite3.connect(guarded.data_dir / "server.db", timeout=30)) as database:
            return database.execute("SELECT last_used_at FROM tokens WHERE name = 'reader'").fetchone()[0]

    requests.get(f"{guarded.api}/datasets", headers=bearer(guarded.tokens[Role.READ]), timeout=60)
    assert wait_until(used)


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/datasets", "/nothing", "/api/v1/datasets/nonesuch/archive"])
def test_headers_of_every_answer(guarded, path):
    answer = requests.get(guarded.url + path, headers=bearer(guarded.tokens[Role.READ]), timeout=60)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Server"] == "dataset-server"
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 405), ("/readyz", 405), ("/metrics", 401), ("/nothing", 401)]
)
def test_other_methods_of_what_is_open_to_all_are_refused_as_such(guarded, path, status):
    answer = requests.request("TRACE", guarded.url + path, timeout=60)
    assert answer.status_code == status
    assert ("GET" in answer.headers.get("Allow", "")) is (status == 405)


# -- TLS, and a server that asks for no token


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def pair(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return folder


def test_tls_and_an_open_server_that_gets_its_first_token(make_server, authority, pair):
    files = {"tls_certificate": str(pair / "certificate.pem"), "tls_key": str(pair / "key.pem")}
    server = make_server(settings=files)
    trust = {"verify": str(pair / "authority.pem"), "timeout": 60}
    assert server.url.startswith("https://")
    answer = requests.get(f"{server.api}/datasets", **trust)
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{server.api}/datasets", timeout=60)
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url.replace("https", "http"), timeout=60)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    url = f"{server.api.replace('http', 'ws', 1)}/notifications?topic={TOPIC}"
    with connect(url, ssl=context, open_timeout=60) as listening:
        assert json.loads(listening.recv(60))["kind"] == "subscribed"
        host, port = server.url.removeprefix("https://").split(":")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(old)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((host, int(port))) as plain, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(plain, server_hostname=host)
        for told in ({"Host": "evil.example"}, {"X-Forwarded-For": "192.0.2.7"}, {"Sec-Fetch-Site": "cross-site"}):
            elsewhere = requests.get(f"{server.api}/datasets", headers=told, **trust)
            assert (elsewhere.status_code, elsewhere.json()["code"]) == (403, "forbidden")
        text, _ = add(server, "first")
        assert wait_until(lambda: requests.get(f"{server.api}/datasets", **trust).status_code == 401)
        assert requests.get(f"{server.api}/datasets", headers=bearer(text), **trust).status_code == 200
        with pytest.raises(ConnectionClosed):
            listening.recv(60)


def test_a_certificate_that_does_not_work(pair, tmp_path):
    certificate, key = pair / "certificate.pem", pair / "key.pem"
    server_context(certificate, key)
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(OSError, match="nothing.pem"):
        server_context(certificate, nothing)
    for wrong in ((key, key), (certificate, certificate), (pair / "authority.pem", key)):
        with pytest.raises(OSError, match=r"tls_certificate .* and tls_key .* are not"):
            server_context(*wrong)
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    if subprocess.run(command, capture_output=True).returncode == 0:
        with pytest.raises(OSError, match="encrypted"):
            server_context(certificate, locked)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tls_certificate": "x.pem"}, "go together"),
        ({"tls_key": "x.pem"}, "go together"),
        ({"public_origins": ["data.example.org"]}, "is no origin"),
        ({"public_origins": ["https://data.example.org/"]}, "is no origin"),
        ({"trusted_proxies": ["proxy.example.org"]}, "trusted_proxies"),
        ({"token": "short"}, "token"),
    ],
)
def test_wrong_settings(wrong, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        Settings(raw_root=tmp_path, data_dir=tmp_path, **wrong)


def test_a_server_for_everybody_does_not_start(tmp_path):
    command = [sys.executable, "-m", "dataset_server", "serve", "--host", "0.0.0.0", "--port", "0"]
    command += ["--raw-root", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.returncode == 2
    assert "dataset-server token make" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
