"""`dataset-handlers new`: a package that works as it is, and names that cannot be one."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from dataset_handlers.authors.new import create_package, names
from dataset_handlers.errors import RequestError
from tests.handlers.author_support import make_interpreter
from tests.handlers.support import REPOSITORY


def run(*arguments, cwd):
    command = [sys.executable, "-I", "-m", "dataset_handlers", "new", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package as the command writes it."""
    folder = tmp_path_factory.mktemp("new")
    done = run("ripe_pears", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "next: pip install --editable ripe_pears && python -m pytest ripe_pears"
    return folder / "ripe_pears"


def run_tests(python, folder, *options):
    """The tests in ``folder`` as their author runs them, without the plugins that happen to be installed here."""
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "--rootdir",
        str(folder),
        *options,
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([*command, str(folder)], capture_output=True, text=True, cwd=folder.parent, env=environment)


def test_the_test_of_a_new_package_passes(package, tmp_path):
    interpreter = make_interpreter(tmp_path / "venv")
    interpreter.add_handlers(package / "ripe_pears_handlers.py", {"ripe_pears": "RipePearsHandler"}, copy=False)
    done = run_tests(interpreter.python, package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_test_of_a_new_package_can_fail(package, tmp_path):
    """Masks that are turned upside down are noticed."""
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    module = copy / "ripe_pears_handlers.py"
    code = module.read_text().replace('"mask": mask[:, ::step]', '"mask": mask[::-1, :]')
    assert code != module.read_text()
    module.write_text(code)
    done = run_tests(sys.executable, copy, "-k", "examples")
    assert done.returncode == 1
    assert "2 failed" in done.stdout, done.stdout


def test_the_files_of_a_new_package_are_well_formed(package):
    project = tomllib.loads((package / "pyproject.toml").read_text())
    assert project["project"]["name"] == "ripe-pears-handlers"
    assert project["project"]["dependencies"] == ["dataset-handlers"]
    entry = {"ripe_pears": "ripe_pears_handlers:RipePearsHandler"}
    assert project["project"]["entry-points"]["dataset_handlers"] == entry
    for path in package.glob("*.py"):
        ast.parse(path.read_text())
        ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "--config", str(REPOSITORY / "pyproject.toml")]
        checked = subprocess.run(
            [*ruff, "--ignore", "INP,S101,ANN,D,E402,I001,PTH", str(path)], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout
    for path in package.iterdir():
        assert path.is_dir() or "$" not in path.read_text(), "everything is filled in"
        assert path.is_dir() or len(max(path.read_text().splitlines(), key=len)) <= 120


def test_nothing_is_overwritten(package):
    before = {path: path.read_bytes() for path in package.iterdir() if path.is_file()}
    done = run("ripe_pears", cwd=package.parent)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "dataset-handlers: ripe_pears is there already and is not empty; name another --directory"
    )
    with pytest.raises(RequestError, match="is there already"):
        create_package("pears", package / "pyproject.toml")
    assert {path: path.read_bytes() for path in package.iterdir() if path.is_file()} == before


def test_a_directory_may_be_named_and_may_be_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    assert {path.parent for path in create_package("pears", tmp_path / "empty")} == {tmp_path / "empty"}
    done = run("apples", "--directory", "deep/down", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "deep" / "down" / "apples_handlers.py").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        create_package("pears", tmp_path / "file" / "below")


def test_names():
    assert names("a1_b") == {
        "name": "a1_b",
        "distribution": "a1-b-handlers",
        "module": "a1_b_handlers",
        "class_name": "A1BHandler",
        "config_name": "A1BConfig",
    }
    assert names("class")["class_name"].isidentifier(), "keywords make good names, too"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Ripe-Pears", "'ripe_pears' would do"),
        ("1st", "a letter first"),
        ("../pears", "'pears' would do"),
        ("", "cannot name a dataset"),
        ("ä", "cannot name a dataset"),
        ("a" * 65, "cannot name a dataset"),
        ("duts", "is installed already"),
        ("dataset", "the package 'dataset-handlers' would be made, which is there already"),
        ("_dataset", "a letter first"),
        ("dataset_", "the package 'dataset-handlers'"),
        ("dataset__", "the package 'dataset-handlers'"),
        ("sample", "the class SampleHandler"),
        ("handler", "the class HandlerConfig"),
        ("photo", "the class PhotoConfig"),
    ],
)
def test_names_that_are_refused(name, word):
    with pytest.raises(RequestError, match=word):
        names(name)


def test_a_module_that_is_there_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "plums_handlers.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="the module 'plums_handlers'"):
        names("plums")


def test_distributions_have_normal_names():
    assert names("ripe__pears_")["distribution"] == "ripe-pears-handlers"
