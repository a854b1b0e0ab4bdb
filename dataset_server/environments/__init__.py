"""One Python environment for each handler version, made once, side by side with all others."""

from .environment import Environment
from .environments import Environments

__all__ = ["Environment", "Environments"]
