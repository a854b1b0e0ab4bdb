"""The OpenAPI 3.1 document of the API, made of the table of routes and of the models.

OpenAPI knows no sockets: the notification socket is a ``GET`` that is answered with 101, and ``x-websocket`` names the
messages that follow.
"""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from dataset_client.protocol import MAX_CONFIG_DEPTH

from . import answers, errors, models
from .handler_events import ShardFile
from .notifications import LONGEST_WAIT
from .routes import TABLE, Fault, Route

_PROBLEM = "application/problem+json"
_REF = "#/components/schemas/"

#: What each part of a path may be, by its name in the braces.
_PATH_PARTS: dict[str, tuple[str, Any]] = {
    "id": ("The dataset's id.", models.DatasetId),
    "file": ("The shard's file name, as the `shard` event and the manifest give it.", ShardFile),
    "name": ("The dataset's name.", models.Name),
    "version": ("The handler's version.", models.Version),
}

#: What canonical JSON (RFC 8785) can carry; integers beyond 2**53 - 1 it cannot.
_CONFIG_VALUE = {
    "description": f"An option of a handler, or a part of one; configs are at most {MAX_CONFIG_DEPTH} levels deep.",
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "number", "minimum": 1 - 2**53, "maximum": 2**53 - 1},
        {"type": "array", "items": {"$ref": f"{_REF}ConfigValue"}},
        {"type": "object", "additionalProperties": {"$ref": f"{_REF}ConfigValue"}},
    ],
}

_VALIDATORS = {
    "ETag": ("Names these bytes, for `If-Range` and `If-None-Match`.", {"type": "string", "pattern": '^(W/)?"[^"]*"$'}),
    "Accept-Ranges": ("Ranges of bytes can be asked for.", {"const": "bytes"}),
}
_CONTENT_RANGE = ("The range, and the size of the whole.", {"type": "string", "pattern": r"^bytes \d+-\d+/\d+$"})
_PROBLEM_HEADERS: dict[int, dict[str, tuple[str, dict[str, Any]]]] = {
    401: {"WWW-Authenticate": ("How to say who you are.", {"const": "Bearer"})},
    416: {"Content-Range": ("The size of the whole.", {"type": "string", "pattern": r"^bytes \*/\d+$"})},
    429: {"Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0})},
    503: {"Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0})},
}
_CONDITIONS = {
    "Range": "The bytes wanted (RFC 9110, 14.2), one range.",
    "If-Range": "The `ETag` the range is wanted of; all bytes are sent if it is another now.",
    "If-Match": "The `ETag` the request is about; 412 if it is another now.",
    "If-None-Match": "The `ETag` the client has; 304 if it is still the same.",
}


#: Of the notification socket and of what takes its place; pydantic has no word for pairs that repeat.
_SUBSCRIPTIONS = [
    {
        "name": "topic",
        "in": "query",
        "required": True,
        "description": "A topic to follow; may be repeated, as far as a request line of 8,190 bytes goes.",
        "schema": {"type": "array", "items": TypeAdapter(models.DatasetId).json_schema(), "minItems": 1},
    },
    {
        "name": "after",
        "in": "query",
        "required": False,
        "description": "Of the topic before it in the query: the number of the last event that is known.",
        "schema": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}},
    },
]


_WAIT = {
    "name": "wait",
    "in": "query",
    "required": False,
    "description": "Seconds to wait for the first event.",
    "schema": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT},
}


class _Schemas(GenerateJsonSchema):
    """pydantic's own, without a title for each field."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False


def document(table: Sequence[Route] = TABLE) -> dict[str, Any]:
    """The document, fit for JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        operations = paths.setdefault(route.path, {})
        operations[route.method.lower()] = _operation(route)
        if 206 in route.responses:
            operations["head"] = _head(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dataset server",
            "version": version("remote-dataset-pipeline"),
            "description": _description(),
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(table),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `dataset-server token`; none is needed where the server has none.",
                }
            },
        },
        "security": [{"bearer": []}],
    }


def faults_of(route: Route) -> list[Fault]:
    """Every fault that a call may be answered with."""
    common: list[Fault] = [errors.MalformedRequestError, errors.ServerFault]
    if route.role:
        common += [errors.UnauthorizedError, errors.ForbiddenError, errors.TooManyRequestsError]
    if route.method != "GET":
        common += [errors.ForbiddenError, errors.RequestTimeoutError, errors.RequestTooLargeError]
    return list(dict.fromkeys([*route.faults, *common]))


def codes_of(fault: Fault) -> tuple[str, ...]:
    """The codes of a fault; a handler's faults have more, which are its own."""
    return fault.codes or (fault.code,)


def all_faults(base: Fault = errors.ServerFault) -> Iterator[Fault]:
    """Every fault there is, in the order of `errors`."""
    yield base
    for fault in base.__subclasses__():
        yield from all_faults(fault)


def _description() -> str:
    codes = [f"| `{code}` | {fault.status} | {fault.title} |" for fault in all_faults() for code in codes_of(fault)]
    return (
        "Ask for a dataset, hear when it is ready, fetch it. Faults are problem documents (RFC 9457) with one of these "
        "codes, which a `failed` event carries too; others come from the handlers.\n\n"
        "| code | status | |\n|---|---|---|\n" + "\n".join(codes)
    )


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.view.__name__,
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": {**_successes(route), **_problems(route)},
    }
    if route.role:
        operation["description"] = f"Needs the role `{route.role}`."
    else:
        operation["security"] = []
    if route.body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    if 101 in route.responses:
        operation["x-websocket"] = {"messages": _reference(answers.SocketMessage)}
    return operation


def _head(route: Route) -> dict[str, Any]:
    """The same without bodies (RFC 9110, 9.3.2)."""
    operation = _operation(route)
    responses = {
        status: {key: value for key, value in response.items() if key != "content"}
        for status, response in operation["responses"].items()
    }
    return {
        **operation,
        "operationId": f"head_{operation['operationId'].removeprefix('get_')}",
        "summary": f"{operation['summary'].removesuffix('.')}: its head.",
        "responses": responses,
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARTS[name][0],
            "schema": TypeAdapter(_PATH_PARTS[name][1]).json_schema(),
        }
        for name in names
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if 101 in route.responses:
        return _SUBSCRIPTIONS
    if answers.Messages in route.responses.values():
        return [*_SUBSCRIPTIONS, _WAIT]
    if route.query is None:
        return []
    schema = route.query.model_json_schema(schema_generator=_Schemas)
    required = schema.get("required", [])
    return [
        _query_parameter(name, dict(field), required=name in required) for name, field in schema["properties"].items()
    ]


def _query_parameter(name: str, field: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """A field as a parameter: what may be null in the model may be left out in the query."""
    description = field.pop("description", "")
    if field.get("default", ...) is None:
        del field["default"]
    if "anyOf" in field:
        (field,) = (option for option in field["anyOf"] if option != {"type": "null"})
    return {"name": name, "in": "query", "required": required, "description": description, "schema": field}


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    if 206 not in route.responses:
        return []
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in _CONDITIONS.items()
    ]


def _successes(route: Route) -> dict[str, Any]:
    responses = {str(status): _success(status, shape) for status, shape in route.responses.items()}
    if 206 in route.responses:
        for status in ("200", "206"):
            responses[status]["headers"] = _headers(_VALIDATORS)
        responses["206"]["headers"] |= _headers({"Content-Range": _CONTENT_RANGE})
        responses["304"] = {"description": HTTPStatus.NOT_MODIFIED.phrase}
    return responses


def _success(status: int, shape: type[BaseModel] | str) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(shape, str):
        if status not in (HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.NO_CONTENT):
            described["content"] = {shape: {"schema": {}}}
    else:
        described["content"] = {"application/json": {"schema": _reference(shape)}}
    return described


def _headers(headers: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return {
        name: {"required": True, "description": description, "schema": schema}
        for name, (description, schema) in headers.items()
    }


def _problems(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[Fault]] = {}
    for fault in faults_of(route):
        by_status.setdefault(fault.status, []).append(fault)
    return {str(status): _problem(status, by_status[status]) for status in sorted(by_status)}


def _problem(status: int, faults: Sequence[Fault]) -> dict[str, Any]:
    narrowed: dict[str, Any] = {"status": {"const": status}}
    if errors.HandlerFaultError not in faults:  # whose codes are the handlers'
        narrowed["code"] = {"enum": sorted({code for fault in faults for code in codes_of(fault)})}
    described: dict[str, Any] = {
        "description": "; ".join(fault.title for fault in faults),
        "content": {
            _PROBLEM: {
                "schema": {"allOf": [_reference(answers.Problem), {"properties": narrowed}]},
                "examples": {
                    code: {"summary": fault.title, "value": _example(fault, code)}
                    for fault in faults
                    for code in codes_of(fault)
                },
            }
        },
    }
    if status in _PROBLEM_HEADERS:
        described["headers"] = _headers(_PROBLEM_HEADERS[status])
    return described


def _example(fault: Fault, code: str) -> dict[str, Any]:
    (first, *_) = (fault.__doc__ or "").partition("\n")
    return {
        "type": f"urn:dataset-server:{code}",
        "title": fault.title,
        "status": fault.status,
        "detail": first,
        "code": code,
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"{_REF}{model.__name__}"}


def _schemas(table: Sequence[Route]) -> dict[str, Any]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (answers.Problem, "serialization"),
        (answers.SocketMessage, "serialization"),
    ]
    for route in table:
        wanted += [(shape, "serialization") for shape in route.responses.values() if not isinstance(shape, str)]
        if route.body:
            wanted.append((route.body, "validation"))
    _, schemas = models_json_schema(wanted, ref_template=f"{_REF}{{model}}", schema_generator=_Schemas)
    # What `canonical_json` refuses, the model does not know.
    config = schemas["$defs"][models.DatasetRequest.__name__]["properties"]["dataset_config"]
    config["additionalProperties"] = {"$ref": f"{_REF}ConfigValue"}
    return {"ConfigValue": _CONFIG_VALUE, **schemas["$defs"]}
