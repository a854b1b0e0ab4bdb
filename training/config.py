"""`FitOptions` from a TOML file: the same names, with tables for ``model_options``, ``augmentation`` and the like."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from training.augmentation import Augmentation
from training.errors import OptionsError
from training.options import FitOptions

_KNOWN = [field.name for field in fields(FitOptions)]
_TABLES = ("model_options", "loss_options", "optimizer_options", "augmentation")


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options in a TOML file, their names checked. Raises `OptionsError`, also for a file that is none."""
    try:
        with Path(path).open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise OptionsError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path} is not TOML: {error}") from error
    _require_known(values, _KNOWN, str(path), "")
    if isinstance(values.get("augmentation"), Mapping):
        _require_known(values["augmentation"], list(Augmentation.__dataclass_fields__), str(path), "augmentation.")
    return values


def make_options(values: Mapping[str, Any], over: Mapping[str, Any] | None = None) -> FitOptions:
    """`FitOptions` of ``values`` with ``over`` in their place; tables are merged entry by entry.

    Raises `OptionsError` or `ModelError`.
    """
    merged = dict(values)
    for name, value in (over or {}).items():
        if name in _TABLES and isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = {**merged[name], **value}
        else:
            merged[name] = value
    _require_known(merged, _KNOWN, "the options", "")
    for name in _TABLES:
        if name in merged and not isinstance(merged[name], Mapping | Augmentation):
            raise OptionsError(f"{name} is a table of options, not {merged[name]!r}")
    return FitOptions(**merged)


def _require_known(values: Mapping[str, Any], known: list[str], where: str, prefix: str) -> None:
    """Raise `OptionsError` for a name that is none, with the nearest that is one."""
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; there are: {', '.join(known)}"
            raise OptionsError(f"{where}: there is no option {prefix}{name}{hint}")
