"""Imports of optional dependencies, with an error that names the extra."""

import importlib
from typing import Any

from dataset_client.errors import MissingDependencyError


def require(module: str, *, extra: str) -> Any:
    """Import ``module``; raises `MissingDependencyError` that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"reading examples this way needs {module.partition('.')[0]}: {error}",
            remedy=f"pip install 'remote-dataset-pipeline[{extra}]'",
        ) from error
