"""Tiny handler packages that need nothing: wheels written by hand, and folders with a build backend of their own."""

import base64
import hashlib
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

#: A handler that can describe itself, which is what an installation asks of it.
MAIN = """\
import json
print(json.dumps({"event": "described", "handler_api": 1, "options": {}, "effective_config": {}}))
"""
_BACKEND = """\
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    {before}
    from tiny_packages import write_wheel
    return write_wheel(Path(wheel_directory), "tiny-handlers", **{facts!r}).name
"""


def write_wheel(folder: Path, name: str, version: str, *, requires=(), python=">=3.8", main: str | None = MAIN) -> Path:
    """A wheel with a ``dataset_handlers`` package, or with nothing but a module of its own name."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n{needs}"
    files = {f"{module}.py": "", f"{info}/METADATA": metadata}
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if main is not None:
        files |= {"dataset_handlers/__init__.py": "", "dataset_handlers/__main__.py": main}

    def entry(file: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{file},sha256={digest},{len(text.encode())}\n"

    files[f"{info}/RECORD"] = "".join(entry(*item) for item in files.items()) + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return wheel


def write_source(folder: Path, *, version="1.0", requires=(), python=">=3.8", before="pass", main=MAIN) -> Path:
    """A source folder whose own backend builds the wheel; it runs the statement ``before`` first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(
        textwrap.dedent(f"""\
        [build-system]
        requires = []
        build-backend = "backend"
        backend-path = ["."]
        [project]
        name = "tiny-handlers"
        version = "{version}"
        requires-python = "{python}"
        dependencies = {list(requires)!r}
        """)
    )
    facts = {"version": version, "requires": list(requires), "python": python, "main": main}
    (folder / "backend.py").write_text(_BACKEND.format(before=before, facts=facts, tests=str(Path(__file__).parent)))
    return folder


def settings(tmp_path: Path, source: str, **more):
    """Settings of a server whose dataset ``tiny`` comes from ``source``."""
    from dataset_server.settings import Settings  # builds, in environments of their own, do without

    (tmp_path / "raw").mkdir(exist_ok=True)
    given = {"raw_root": tmp_path / "raw", "data_dir": tmp_path / "data", "handlers": {"tiny": {"source": source}}}
    return Settings(**{**given, **more})


def another_server(tmp_path: Path, source: str) -> subprocess.Popen:
    """A process that installs version 1.0 of ``tiny`` and prints the key of its environment."""
    program = (
        "import asyncio, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tiny_packages import settings; from dataset_server.environments import Environments\n"
        "from dataset_server.references import References\n"
        "given = settings(Path(sys.argv[2]), sys.argv[3]); environments = Environments(given); environments.clean()\n"
        "async def main():\n"
        "    references = References(given, environments.find)\n"
        "    found = await references.resolve('tiny', given.sources['tiny'], '1.0')\n"
        "    print((await environments.ensure(found)).key)\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path), source]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
