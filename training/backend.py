"""Whether Keras can be imported, found out without importing it, which may take the GPU."""

import importlib.util
import json
import os
from pathlib import Path

from training.errors import BackendError

#: Keras' name of a backend, which is also its package's → how to install it.
_BACKENDS = {
    "tensorflow": "pip install 'remote-dataset-pipeline[tensorflow-cpu]', or [tensorflow] on a GPU",
    "jax": "pip install jax, or 'jax[cuda12]' on a GPU",
    "torch": "pip install torch",
}


def configured_backend() -> str:
    """Keras' choice: ``KERAS_BACKEND``, else its configuration file, else 'tensorflow'."""
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        configured = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):  # Keras goes on without the file, too
        configured = None
    return str(configured or "tensorflow")


def require_backend() -> str:
    """Return the name of the backend that training will run on.

    Raises `BackendError` if it, Keras or matplotlib is not installed, or if it cannot train. Imports none of
    them.
    """
    for package in ("keras", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise BackendError(f"{package} is not installed: pip install 'remote-dataset-pipeline[training]'")
    backend = configured_backend()
    if backend not in _BACKENDS:
        raise BackendError(
            f"the Keras backend {backend!r} cannot train; set KERAS_BACKEND to one of: {', '.join(_BACKENDS)}"
        )
    if importlib.util.find_spec(backend) is None:
        raise BackendError(
            f"the Keras backend {backend} is not installed: {_BACKENDS[backend]}; "
            f"or set KERAS_BACKEND to another of: {', '.join(_BACKENDS)}"
        )
    return backend
