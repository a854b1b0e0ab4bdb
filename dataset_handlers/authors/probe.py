"""What a config and variants of it mean to a handler: ``python -I -m dataset_handlers.authors.probe describe FILE``.

The request is that of ``describe``, its ``config`` required. Before ``described`` comes one event, in which an *answer*
is ``{"effective_config"}`` or ``{"code", "message", "faults"?}``::

    {"event": "probed",
     "base":      answer to the config itself,
     "reversed":  ... with its options in the opposite order,
     "again":     ... to the effective config of the base, if there is one,
     "unknown":   ... with the option `runs.UNKNOWN` besides,
     "defaults":  {option: [answer without it, answer with its default spelt out]}}
"""

import sys
from pathlib import Path
from typing import Any

from ..commands import Emit, describe
from ..errors import HandlerError
from .runs import UNKNOWN


def probe(request: dict[str, Any], emit: Emit) -> None:
    """Describe the handler, its config and the config's variants."""
    config: dict[str, Any] = request["config"]
    described: list[dict[str, Any]] = []
    describe({**request, "config": None}, described.append)

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        try:
            describe({**request, "config": asked}, told.append)
        except HandlerError as error:
            return error.to_json()
        return {"effective_config": told[0]["effective_config"]}

    probed: dict[str, Any] = {
        "base": answer(config),
        "reversed": answer(dict(reversed(config.items()))),
        "unknown": answer({**config, UNKNOWN: 1}),
    }
    if effective := probed["base"].get("effective_config"):
        probed["again"] = answer(effective)
    probed["defaults"] = {}
    for name, option in described[0]["options"].items():
        if "default" in option:
            without = {other: value for other, value in config.items() if other != name}
            probed["defaults"][name] = [answer(without), answer({**without, name: option["default"]})]
    emit({"event": "probed", **probed})
    emit(described[0])


if __name__ == "__main__":
    from ..__main__ import read_request, run_protocol

    sys.exit(run_protocol(probe, lambda: read_request(Path(sys.argv[2]))))
