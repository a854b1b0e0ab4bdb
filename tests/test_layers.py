"""Who may import whom: training → client; server → client.protocol; handlers → nothing of ours."""

import ast
import subprocess
import sys

import pytest

from tests.support import ROOT

PACKAGES = ("dataset_client", "dataset_server", "dataset_handlers", "training")
ALLOWED = {
    "dataset_client": set(),
    "dataset_server": {"dataset_client.protocol"},
    "dataset_handlers": set(),
    "training": {"dataset_client"},
}


def imports(package: str) -> set[tuple[str, str]]:
    """(file, absolute module) of each import of one of our packages from another."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        if "build" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                if name.split(".")[0] in PACKAGES and name.split(".")[0] != package:
                    found.add((path.relative_to(ROOT).as_posix(), name))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_dependency_direction(package):
    wrong = [
        (file, name)
        for file, name in imports(package)
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[package])
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dataset_client", "numpy tensorflow aiohttp pydantic"),
        ("dataset_client.protocol", "requests websockets tqdm numpy"),
        ("dataset_server.app", "numpy tensorflow cv2 dataset_handlers"),
        ("dataset_handlers.commands", "tensorflow aiohttp requests"),
        ("training.launcher", "tensorflow keras torch jax"),
        ("training.cli", "tensorflow keras torch jax"),
    ],
)
def test_importing_stays_light(module, heavy):
    code = f"import sys, {module}; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == ""
