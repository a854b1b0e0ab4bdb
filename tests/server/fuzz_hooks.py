"""Hooks for Schemathesis: most of what it makes up is unknown to the server; let much of it name what is there.

Only values that are valid by themselves are replaced, so that bad requests stay bad. What is deleted or cancelled is
what the run itself has asked for.
"""

import json
import os
import re
import zlib
from urllib.parse import unquote

import schemathesis

from dataset_client.protocol import (
    ID_PATTERN,
    NAME_PATTERN,
    VERSION_PATTERN,
    MalformedConfigError,
    canonical_json,
    config_md5,
)

#: What exists, as `fuzzing.prepare` wrote it down.
KNOWN = json.loads(os.environ["FUZZ_KNOWN"])
#: What the run has asked for.
MADE = ["tones_1.0_" + "0" * 32 + ".zip"]


def draw(value: object, count: int) -> int:
    """A number below ``count`` that depends on nothing but ``value``."""
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass")) % count


@schemathesis.hook
def before_call(context, case, kwargs):
    safe = case.method in ("GET", "HEAD")
    replaced = {
        "id": (ID_PATTERN, KNOWN["ids"] if safe else MADE),
        "file": (re.compile(r"[a-z]\w*-[a-z]\w*\.tfrecord-[0-9]{5,9}-of-[0-9]{5,9}", re.ASCII), KNOWN["files"]),
        "name": (NAME_PATTERN, [KNOWN["name"]]),
        "version": (VERSION_PATTERN, [KNOWN["version"]]),
    }
    path = case.path_parameters or {}
    # What a link filled in is quoted already. After an edit beside it Schemathesis would judge the quoted text by the
    # schema, call the request a bad one, and expect that it is refused.
    linked = any(isinstance(value, str) and unquote(value) != value for value in path.values())
    for name, value in () if linked else path.items():
        pattern, known = replaced[name]
        if isinstance(value, str) and pattern.fullmatch(value) and draw(value, 8):
            case.path_parameters[name] = known[draw(value, len(known))]
    if isinstance(case.body, dict):
        case.body = body_about_what_is_there(case.body)


def body_about_what_is_there(body: dict) -> dict:
    body = dict(body)
    if draw(body, 4):
        if isinstance(name := body.get("dataset_name"), str) and NAME_PATTERN.fullmatch(name):
            body["dataset_name"] = KNOWN["name"]
        if isinstance(version := body.get("handler_version"), str) and VERSION_PATTERN.fullmatch(version):
            body["handler_version"] = KNOWN["version"]
    try:
        canonical = canonical_json(body.get("dataset_config", {}))
    except MalformedConfigError:
        return body
    if draw(canonical, 3) and "dataset_config" in body:
        body["dataset_config"] = {"count": 1 + draw(canonical, 3), "seed": draw(canonical, 50)}
        canonical = canonical_json(body["dataset_config"])
    if isinstance(md5 := body.get("config_md5"), str) and re.fullmatch("[0-9a-f]{32}", md5):
        body["config_md5"] = config_md5(canonical)
    return body


@schemathesis.hook
def after_call(context, case, response):
    if case.method == "POST" and response.status_code in (200, 202) and response.content.startswith(b"{"):
        dataset_id = response.json().get("dataset_id")
        if dataset_id and dataset_id not in KNOWN["ids"] and dataset_id not in MADE:
            MADE.append(dataset_id)
