"""Interpreters that have handlers which are not ours, for tests of the authors' tools."""

import shutil
import site
import sys
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Interpreter:
    """A virtual environment that has what ours has."""

    folder: Path

    @property
    def bin(self):
        return self.folder / "bin"

    @property
    def python(self):
        return str(self.bin / "python")

    @property
    def packages(self):
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    def add_handlers(self, module, handlers, *, copy=True):
        """Have the module file ``module`` importable, and its classes as handlers by dataset name."""
        if copy:
            shutil.copy(module, self.packages)
        else:
            (self.packages / f"{module.stem}.pth").write_text(f"{module.parent}\n")
        about = self.packages / f"{module.stem}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.stem}\nVersion: 1.0\n")
        lines = [f"{name} = {module.stem}:{handler}" for name, handler in handlers.items()]
        (about / "entry_points.txt").write_text("\n".join(["[dataset_handlers]", *lines, ""]))

    def add_program(self, name, entry):
        """A console script, as installers write them: ``entry`` is ``module:function``."""
        module, function = entry.split(":")
        script = self.bin / name
        script.write_text(f"#!{self.python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        script.chmod(0o755)


def make_interpreter(folder):
    venv.create(folder, symlinks=True, with_pip=False)
    made = Interpreter(folder)
    ours = [path for path in site.getsitepackages([sys.prefix]) if Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in ours]  # their .pth files are read, too
    (made.packages / "ours.pth").write_text("".join(lines))
    return made
