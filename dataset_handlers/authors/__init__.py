"""Tools for authors of handlers: a new package, its check, previews and statistics."""
