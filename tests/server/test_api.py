"""The OpenAPI document, and that the server's answers are what it says; lists of datasets."""

import re
from pathlib import Path

import jsonschema_rs
import pytest
import requests
import schemathesis
from aiohttp import hdrs
from sqlalchemy import insert, text
from sqlalchemy.dialects import sqlite

import dataset_server
from dataset_client.protocol import EVENT_KINDS, STATES
from dataset_server import answers, errors
from dataset_server.models import State
from dataset_server.openapi import all_faults, codes_of, document
from dataset_server.routes import ROUTES, TABLE
from dataset_server.store import Database
from dataset_server.store.listing import ORDERS, page_of_datasets, queries
from dataset_server.store.schema import datasets

DOCUMENT = document()


def operations():
    return {
        (path, method.upper()): operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


def fits(schema, value) -> None:
    """Raise if ``value`` is not what a schema of the document says."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole).validate(value)


def check(answer: requests.Response, path: str, status: int) -> requests.Response:
    """Hold an answer to the document: status, media type, headers and body."""
    assert answer.status_code == status, answer.text
    documented = operations()[path, answer.request.method]["responses"][str(status)]
    for name, header in documented.get("headers", {}).items():
        assert name in answer.headers, (path, name)
        value = answer.headers[name]
        fits(header["schema"], int(value) if header["schema"].get("type") == "integer" else value)
    if answer.request.method == "HEAD" or "content" not in documented:
        assert not answer.content
        return answer
    media_type = answer.headers["Content-Type"].partition(";")[0]
    schema = documented["content"][media_type]["schema"]
    if media_type.endswith("json"):
        fits(schema, answer.json())
    return answer


# -- the document


def test_it_is_openapi_3_1():
    schemathesis.openapi.from_dict(document()).validate()
    assert DOCUMENT["openapi"] == "3.1.0"
    identifiers = [operation["operationId"] for operation in operations().values()]
    assert len(identifiers) == len(set(identifiers))


def test_every_route_is_in_it_and_nothing_else():
    served = {(route.path, route.method) for route in ROUTES}
    described = {key for key in operations() if key[1] != hdrs.METH_HEAD}
    assert served == described
    heads = {path for path, method in operations() if method == hdrs.METH_HEAD}
    assert heads == {route.path for route in TABLE if 206 in route.responses}


def test_every_fault_is_described():
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {fault for fault in all_faults() if fault.__module__ == errors.__name__} == {
        value for value in classes if issubclass(value, errors.ServerFault)
    }
    for fault in all_faults():
        for code in codes_of(fault):
            assert f"| `{code}` | {fault.status} |" in DOCUMENT["info"]["description"]


def test_every_code_in_the_source_is_one_of_its_class():
    """Codes that are given where a fault is raised; those of ``HandlerFaultError`` may be the handlers' own, too."""
    raised = re.compile(r"(\w+(?:Error|Fault))\([^()]*\"((?:handler|queue|too|stopping|unavailable)\w*)\"")
    found = set()
    for path in Path(dataset_server.__file__).parent.rglob("*.py"):
        for name, code in raised.findall(path.read_text()):
            if issubclass(getattr(errors, name, type(None)), errors.ServerFault):
                found.add(code)
                assert code in codes_of(getattr(errors, name)), (path.name, name, code)
    assert {"queue_full", "stopping", "handler_timeout"} <= found


def test_the_words_are_those_of_the_protocol():
    assert set(State.__args__) == set(STATES)
    kinds = {
        member.model_fields["kind"].annotation.__args__[0]
        for member in answers.SocketMessage.model_fields["root"].annotation.__args__
    }
    assert kinds == {"subscribed", *EVENT_KINDS}


# -- the answers of a real server


@pytest.fixture(scope="module")
def made(server):
    """A dataset that is there, and everything said of it."""
    api = "/api/v1/datasets"
    answer = check(server.post("tones", {"count": 4}, "1.0"), api, 202).json()
    events = server.events(answer["topic_id"])
    assert events[-1]["kind"] == "ready", events[-1]
    check(server.post("tones", {"count": 4}, "1.0"), api, 200)
    return {"topic": answer["topic_id"], "events": events, **events[-1]["data"]}


def test_what_is_read_fits(server, made):
    one = "/api/v1/datasets/{id}"
    dataset = f"datasets/{made['dataset_id']}"
    detail = check(server.get(dataset), one, 200).json()
    assert detail["revision"] == 1
    assert detail["shards"]
    check(server.get("datasets?sort=bytes&order=asc&pinned=false&version=" + "1"), "/api/v1/datasets", 200)
    check(server.get(f"{dataset}/manifest"), f"{one}/manifest", 200)
    archive = check(server.get(f"{dataset}/archive"), f"{one}/archive", 200)
    assert len(archive.content) == made["archive"]["bytes"]
    shard, path = f"{dataset}/shards/{detail['shards'][0]['file']}", f"{one}/shards/{{file}}"
    for file, place in ((f"{dataset}/archive", f"{one}/archive"), (shard, path)):
        tag = check(requests.head(f"{server.api}/{file}", timeout=30), place, 200).headers["ETag"]
        check(server.get(file, headers={"Range": "bytes=2-5"}), place, 206)
        check(server.get(file, headers={"Range": "bytes=99999999-"}), place, 416)
        check(server.get(file, headers={"If-None-Match": tag}), place, 304)
        check(server.get(file, headers={"If-Match": '"other"'}), place, 412)
    topic = f"topic={made['topic'].replace('+', '%2B')}"
    said = check(server.get(f"events?{topic}"), "/api/v1/events", 200).json()["messages"]
    assert said[0]["kind"] == "subscribed"
    lasting = [event for event in made["events"] if event["kind"] != "progress"]
    assert [event for event in said[1:] if event["kind"] != "progress"] == lasting, "what the socket said"
    last = made["events"][-1]["number"]
    assert len(check(server.get(f"events?{topic}&after={last}"), "/api/v1/events", 200).json()["messages"]) == 1
    for query in ("", "topic=x", f"{topic}&wait=51", f"{topic}&wait=1.5", f"{topic}&wait=1&wait=2", "wait=1"):
        check(server.get(f"events?{query}"), "/api/v1/events", 400)
    check(server.get("handlers"), "/api/v1/handlers", 200)
    check(server.get("handlers/tones/1.0"), "/api/v1/handlers/{name}/{version}", 200)
    check(server.get("audit?action=request"), "/api/v1/audit", 200)
    assert check(server.get("openapi.json"), "/api/v1/openapi.json", 200).json() == DOCUMENT
    for path in ("/healthz", "/readyz", "/metrics"):
        check(requests.get(server.url + path, timeout=30), path, 200)


def test_what_is_done_fits(server):
    one = "/api/v1/datasets/{id}"
    dataset_id = server.make("tones", {"count": 2}, "1.0")["dataset_id"]
    url = f"{server.api}/datasets/{dataset_id}"
    check(requests.post(f"{url}/cancel", timeout=30), f"{one}/cancel", 409)
    check(requests.post(f"{url}/retry", timeout=30), f"{one}/retry", 409)
    check(requests.post(f"{url}/pin", timeout=30), f"{one}/pin", 200)
    assert server.get("datasets?pinned=true").json()["total"] == 1
    check(requests.delete(url, timeout=30), one, 409)
    check(requests.post(f"{url}/unpin", timeout=30), f"{one}/unpin", 200)
    check(requests.delete(url, timeout=30), one, 204)
    check(server.get(f"datasets/{dataset_id}"), one, 404)


def test_refusals_fit(server, made):
    datasets_path = "/api/v1/datasets"
    check(server.post("nonesuch", {}), datasets_path, 404)
    check(server.post("tones", {}, "9.9"), datasets_path, 404)
    check(server.post("tones", {"count": -1}, "1.0"), datasets_path, 422)
    check(server.post("tones", {}, "1.0", config_md5="0" * 32), datasets_path, 400)
    check(server.post("tones", {"x": "x" * 2_000_000}, "1.0"), datasets_path, 413)
    for query in ("limit=0", "surprise=1", "sort=name", "limit=1&limit=2", "state=lost"):
        check(server.get(f"datasets?{query}"), datasets_path, 400)
    check(server.get("notifications?topic=x"), "/api/v1/notifications", 400)
    check(server.get(f"datasets/{made['dataset_id']}/shards/none"), datasets_path + "/{id}/shards/{file}", 404)


def test_what_the_socket_says_fits(made):
    for message in made["events"]:
        fits({"$ref": "#/components/schemas/SocketMessage"}, message)
    with pytest.raises(jsonschema_rs.ValidationError):
        fits({"$ref": "#/components/schemas/SocketMessage"}, {**made["events"][0], "kind": "other"})


def test_no_method_but_those_allowed(server):
    answer = requests.put(f"{server.api}/datasets", timeout=30)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


# -- lists


@pytest.fixture
async def database(tmp_path):
    """Six datasets: 0 was made first; the sizes and uses run otherwise."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
    await database.create()
    rows = [
        {
            "dataset_id": f"d{number}",
            "dataset_name": "coco" if number % 2 else "duts",
            "resolved_version": f"{number // 3}.0",
            "config": "{}",
            "state": "failed" if number == 5 else "ready",
            "attempt": 1,
            "created_at": float(number),
            "archive_bytes": None if number == 5 else 100 - number,
            "last_used_at": None if number == 0 else 10.0 * (number % 3),
            "pinned": number == 4,
        }
        for number in range(6)
    ]
    async with database.writing() as db:
        await db.execute(insert(datasets), rows)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("wanted", "total", "found"),
    [
        ({}, 6, "543210"),
        ({"descending": False, "limit": 2, "offset": 1}, 6, "12"),
        ({"sort": "bytes"}, 6, "012345"),
        ({"sort": "bytes", "descending": False}, 6, "543210"),
        ({"sort": "last_used_at"}, 6, "524130"),
        ({"name": "coco", "state": "ready"}, 2, "31"),
        ({"version": "1.0", "pinned": False}, 2, "53"),
        ({"pinned": True}, 1, "4"),
        ({"name": "logos"}, 0, ""),
        ({"offset": 2**53}, 6, ""),
    ],
)
async def test_pages(database, wanted, total, found):
    counted, page = await page_of_datasets(database, **{"limit": 100, **wanted})
    assert (counted, "".join(dataset.dataset_id[1:] for dataset in page)) == (total, found)


@pytest.mark.parametrize("sort", ORDERS)
async def test_lists_are_read_from_an_index(database, sort):
    """No row but those of the page: rows are long, since each holds a config."""
    plans = []
    async with database.reading() as db:
        for statement in queries(name="coco", state="ready", version="1.0", pinned=False, sort=sort, limit=10):
            sql = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
            plans.append(str((await db.execute(text(f"EXPLAIN QUERY PLAN {sql}"))).all()))
    count, page = plans
    assert "USING COVERING INDEX datasets_by_name" in count
    assert f"USING COVERING INDEX datasets_by_{ORDERS[sort].name}" in page
