"""Files that are replaced whole, and errors that say which one could not be written."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from safetensors import SafetensorError


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Have what the operating system says about a write name this file.

    A full disk says nothing of the file, safetensors raises an error of its own, and a temporary
    file has a name that nobody has asked for.

    Raises:
      OSError: with ``filename``, where one without or a `SafetensorError` was raised.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else _os_error(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _os_error(error: SafetensorError) -> int | None:
    """The operating system's number in the text of an error."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file and the folders that it lies in; otherwise as `write_atomically`."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_atomically(path: pathlib.Path, write: Any) -> None:
    """Call ``write(temporary)``, then move it to ``path``: a crash leaves the old file whole.

    Raises:
      OSError: it cannot be written; the old file is whole.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a kill leaves is used again
    with naming(path):
        try:
            write(temporary)
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # the first error counts
                temporary.unlink(missing_ok=True)
