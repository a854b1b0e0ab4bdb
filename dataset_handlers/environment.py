"""What a handler runs in, as far as it may decide the bytes of a dataset."""

import platform
import sys
import zlib
from importlib.metadata import distributions
from typing import Any


def describe_environment() -> dict[str, Any]:
    """Python's minor version, its zlib, the machine's architecture, and every installed distribution by version.

    The instruction-set level is not listed: with the libraries of this version the bytes do not depend on it, which
    a test holds them to.
    """
    read = (item.metadata for item in distributions())  # once for each: that takes a millisecond
    packages = {metadata["Name"].lower().replace("_", "-"): metadata["Version"] for metadata in read}
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "zlib": zlib.ZLIB_RUNTIME_VERSION,  # packs the masks
        "machine": platform.machine(),
        "packages": dict(sorted(packages.items())),
    }
