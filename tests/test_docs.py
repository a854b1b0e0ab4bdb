"""The documentation says what the code does: options, settings, commands, and the example in the README."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_handlers.registry import installed, load_handler
from dataset_server.metrics import Metrics
from dataset_server.settings import Settings
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_every_setting_is_documented():
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([^|]*) \|$", page, re.MULTILINE))
    assert rows == {name: field.description for name, field in Settings.model_fields.items()}


def section(page: str, title: str) -> str:
    """What stands in a page of the docs under a heading of the second level."""
    text = (ROOT / "docs" / page).read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_operators_are_told_of_every_setting():
    rows = re.findall(r"^\| (`.*?) \|", section("operations.md", "Every setting"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(Settings.model_fields)


def test_every_metric_is_documented_and_alerts_name_real_ones():
    text = section("operations.md", "Metrics")
    families = list(Metrics.create().registry.collect())
    own = {f.name + "_total" * (f.type == "counter") for f in families if f.name.startswith("dataset_server_")}
    assert set(re.findall(r"^\| `(dataset_server_\w+)` \|", text, re.MULTILINE)) == own
    assert set(re.findall(r"dataset_server_\w+", text)) == own


def test_links_within_the_handbook_lead_somewhere():
    text = (ROOT / "docs" / "operations.md").read_text()
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


@pytest.mark.parametrize("handler", installed())
def test_every_option_is_documented(handler):
    page = (ROOT / "docs" / "handlers.md").read_text()
    for name, option in load_handler(handler).config_options().items():
        assert f"| `{name}` | `{json.dumps(option['default'])}` | {option['doc']} |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def commands() -> list[str]:
    text = "\n".join(page.read_text() for page in PAGES)
    return [line for block in blocks(text, "console") for line in block.splitlines() if line]


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line):
    """Make targets are there, and programs know each option they are shown with."""
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    command = [str(Path(sys.executable).with_name(Path(program).name)), *arguments[:1], "--help"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in run.stdout, f"{line}: {option} is no option"


def test_the_example_in_the_readme_runs(server, tmp_path):
    (example,) = blocks(README, "python")
    assert len(example.strip().splitlines()) <= 10
    environment = {**os.environ, "DATASET_SERVER_URL": server.url, "DATASET_CACHE_DIR": str(tmp_path)}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, env=environment, timeout=180)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(16, 224, 224, 3) (16, 224, 224, 1)"


def test_the_handler_in_the_documentation_works(make_server, raw_root, tmp_path):
    page = (ROOT / "docs" / "handlers.md").read_text()
    (module,) = blocks(page, "python")
    (project,) = blocks(page, "toml")
    package = tmp_path / "flowers"
    package.mkdir()
    (package / "flower_handlers.py").write_text(module)
    build = '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n\n'
    (package / "pyproject.toml").write_text(build + project + '\n[tool.setuptools]\npy-modules = ["flower_handlers"]\n')
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "flowers").symlink_to(raw_root / "backgrounds")
    server = make_server(raw_root=raw, handlers={"flowers": str(package)})
    ready = server.make("flowers", {"side": 32, "variations_per_sample": 2}, version="1.0")
    assert ready["kind"] == "ready", ready
    manifest = server.get(f"datasets/{ready['dataset_id']}/manifest").json()
    assert manifest["splits"]["train"]["examples"] == 2 * len(list((raw / "flowers").iterdir()))
