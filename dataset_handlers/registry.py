"""Which handlers are installed: the entry points of the group ``dataset_handlers``, by dataset name."""

from importlib.metadata import EntryPoint, entry_points

from .contract import DatasetHandler
from .errors import HandlerError, UnknownDatasetError

GROUP = "dataset_handlers"


def installed() -> dict[str, EntryPoint]:
    """Entry points by dataset name."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def load_handler(name: str) -> type[DatasetHandler]:
    """The handler class of ``name``; raises `UnknownDatasetError`, or `HandlerError` if it cannot be imported."""
    entries = installed()
    if name not in entries:
        raise UnknownDatasetError(
            f"no installed package offers a handler '{name}' (entry point group '{GROUP}'); "
            f"installed are: {', '.join(entries) or 'none'}"
        )
    try:
        handler = entries[name].load()
    except Exception as error:  # the boundary: foreign code runs at import
        raise HandlerError(f"{entries[name].value} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(handler, type) and issubclass(handler, DatasetHandler)):
        raise HandlerError(f"{entries[name].value} is not a DatasetHandler class")
    return handler
