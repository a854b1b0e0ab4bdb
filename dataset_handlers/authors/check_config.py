"""Checks of what a handler says of itself and of configs; all are decided on the answers of `probe`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..contract import HANDLER_API
from .runs import UNKNOWN, Run
from .verdict import Verdict, judge, skip

#: Whole numbers beyond this are not the same in every JSON reader (RFC 8785, I-JSON).
_MAX_INTEGER = 2**53 - 1
_AFTER = ("options", "defaults", "unknown-option", "effective-config")


def check_description(run: Run) -> Iterator[Verdict]:
    """Verdicts on a run of the probe."""
    described, probed = run.of("described"), run.of("probed")
    if not described or not probed:
        yield judge("describe", [run.fault])
        yield from skip(_AFTER, "it does not describe itself")
        return
    event, answers = described[0], probed[0]
    faults = [f"a line of its output is no event: {line!r}" for line in run.garbage]
    if event.get("handler_api") != HANDLER_API:
        faults.append(f"it speaks handler_api {event.get('handler_api')}, this package {HANDLER_API}")
    if not event.get("doc"):
        faults.append("the handler class has no docstring; it is what people read before they ask for a dataset")
    yield judge("describe", faults)
    yield judge("options", _options(event), f"{len(event['options'])} options")
    if "effective_config" not in answers["base"]:
        refused = f"the config is refused: {answers['base']['message']}"
        yield judge("effective-config", [refused])
        yield from skip(("defaults", "unknown-option"), "the config is refused; give another with --config")
        return
    yield judge("defaults", list(_defaults(answers["defaults"])), f"{len(answers['defaults'])} defaults")
    yield judge("unknown-option", list(_unknown(answers["unknown"])))
    yield judge("effective-config", list(_effective(answers)))


def _options(event: Mapping[str, Any]) -> list[str]:
    options: Mapping[str, Any] = event["options"]
    faults = []
    for name, option in options.items():
        if not isinstance(option, dict):
            faults.append(f"option '{name}' is described by {option!r}, not by an object of type, default and doc")
            continue
        if not str(option.get("doc", "")).strip():
            faults.append(f"option '{name}' is not documented; give its Field a description")
        if "type" not in option:
            faults.append(f"option '{name}' has no type")
    understood = event.get("schema", {}).get("properties", options)
    faults += [
        f"option '{name}' is accepted but not documented: config_options() leaves it out"
        for name in understood
        if name not in options
    ]
    faults += [
        f"option '{name}' is documented, but there is none of that name" for name in options if name not in understood
    ]
    return faults


def _defaults(answers: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    for name, (left_out, spelt_out) in answers.items():
        if "effective_config" not in left_out:
            continue  # this config needs the option
        if "effective_config" not in spelt_out:
            yield f"the default of '{name}' is refused: {spelt_out['message']}"
        elif left_out != spelt_out:
            yield f"'{name}' with its default spelt out is another config than without it"


def _unknown(answer: Mapping[str, Any]) -> Iterator[str]:
    if "effective_config" in answer:
        yield "it accepts an option that does not exist: a typing error would silently make another dataset"
    elif answer["code"] != "config_refused":
        yield f"an unknown option ends in '{answer['code']}' where 'config_refused' belongs: {answer['message']}"
    elif not any(fault["path"] == f"/{UNKNOWN}" for fault in answer.get("faults", ())):
        yield f"the refusal does not name the option: {answer['message']}"


def _effective(answers: Mapping[str, Any]) -> Iterator[str]:
    effective = answers["base"]["effective_config"]
    yield from _not_canonical(effective, "")
    again = answers.get("again", {})
    if effective and "effective_config" not in again:
        yield f"the effective config is refused when it is sent: {again.get('message')}"
    elif effective and again["effective_config"] != effective:
        changed = [name for name in effective if again["effective_config"].get(name) != effective[name]]
        yield f"sent again, the effective config means another: {', '.join(changed) or 'it gains options'}"
    if answers["reversed"] != answers["base"]:
        yield "with its options in another order the config means another"


def _not_canonical(value: Any, path: str) -> Iterator[str]:
    """Values that canonical JSON (RFC 8785) cannot hold."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _not_canonical(item, f"{path}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_canonical(item, f"{path}/{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}, which JSON does not have"
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        yield f"{path} is {value}; whole numbers beyond 2**53 differ between JSON readers"
    elif isinstance(value, str) and value != value.encode(errors="replace").decode():
        yield f"{path} holds half of a surrogate pair"
