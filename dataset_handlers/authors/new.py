"""Writes the package of a new handler: it works as it is, has a test that passes, and is there to be edited."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from string import Template

import dataset_handlers

from ..errors import RequestError
from ..registry import installed
from .template import FILES

#: What servers accept as the name of a dataset.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def names(name: str) -> dict[str, str]:
    """Every name that is made of a dataset's: its package, module and classes.

    Raises `RequestError` for one that cannot be a name, or of which a package would be made that is there already.
    """
    if not _NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:64]
        hint = f"; '{better}' would do" if _NAME.fullmatch(better) else ""
        raise RequestError(
            f"'{name}' cannot name a dataset: lower-case letters, digits and underscores, a letter first{hint}"
        )
    if name in installed():
        raise RequestError(f"a handler '{name}' is installed already; choose another name")
    words = "".join(word.capitalize() for word in name.split("_"))
    made = {
        "name": name,
        "distribution": f"{re.sub('_+', '-', name.strip('_'))}-handlers",
        "module": f"{name}_handlers",
        "class_name": f"{words}Handler",
        "config_name": f"{words}Config",
    }
    if taken := _taken(made):
        raise RequestError(f"of '{name}' {taken} would be made, which is there already; choose another name")
    return made


def _taken(made: dict[str, str]) -> str:
    """What of ``made`` belongs to another package: a distribution or module is replaced, a class is hidden."""
    try:
        importlib.metadata.distribution(made["distribution"])
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        return f"the package '{made['distribution']}'"
    if importlib.util.find_spec(made["module"]):
        return f"the module '{made['module']}'"
    classes = (made["class_name"], made["config_name"])
    return next((f"the class {name}" for name in classes if hasattr(dataset_handlers, name)), "")


def create_package(name: str, folder: Path) -> list[Path]:
    """Write the package of a handler for the dataset ``name`` into ``folder``; return its files.

    Raises `RequestError` for a name that cannot be one, and where ``folder`` holds anything already.
    """
    filled_in = names(name)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RequestError(f"{folder} is there already and is not empty; name another --directory")
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for file, text in FILES.items():
            path = folder / Template(file).substitute(filled_in)
            path.write_text(Template(text).substitute(filled_in), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise RequestError(f"the package cannot be written to {folder}: {error.strerror}") from error
    return written
