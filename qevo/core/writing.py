"""Files that are replaced whole, and errors that say which one could not be written."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Have what the operating system says about a write name this file.

    A full disk says nothing of the file, and a temporary file has a name that nobody has asked for.

    Raises:
      OSError: with ``filename``, where one was raised.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file and the folders that it lies in; otherwise as `write_atomically`."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Write beside ``path``, then move it there: a crash leaves the old file whole.

    What a link leads to is replaced; a device or a pipe is written to.

    Raises:
      OSError: it cannot be written; the old file is whole.
    """
    with naming(path):
        path = path.resolve()
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        # One name: what a kill leaves is used again.
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # the first error counts
                temporary.unlink(missing_ok=True)
