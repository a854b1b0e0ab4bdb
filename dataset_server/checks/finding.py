"""One thing that was looked at, and how it is; what it says is without the credentials in addresses."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..credentials import masked


@dataclass(frozen=True)
class Finding:
    """``check`` names what was looked at, ``message`` says how it is, and ``remedy`` what to do about it."""

    check: str
    level: Literal["ok", "warning", "failed"]
    message: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        return asdict(self)

    def to_text(self) -> str:
        """As a line, or two."""
        line = f"{self.level:<8}{self.check}: {self.message}"
        return f"{line}\n{'':<8}-> {self.remedy}" if self.remedy else line


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", masked(message))


def warning(check: str, message: str, remedy: str) -> Finding:
    """It works, but not as it should."""
    return Finding(check, "warning", masked(message), remedy)


def failed(check: str, message: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, "failed", masked(message), remedy)
