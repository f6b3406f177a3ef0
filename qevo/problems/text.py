"""Lines of a problem file, and errors that name the file and the line."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import pathlib
import zlib
from collections.abc import Iterator
from typing import NoReturn

from qevo.errors import QevoError

_OPEN = {".gz": gzip.open, ".xz": lzma.open}


@contextlib.contextmanager
def naming(path: str | pathlib.Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with the problem that it holds."""
    try:
        yield
    except QevoError as error:
        raise QevoError(f"{path}: {error}") from None


class Lines:
    """The lines of a text file that are neither empty nor comments, split at white space.

    Files that end in .gz and .xz are unpacked on the way.

    Raises:
      QevoError: the file cannot be read.
    """

    def __init__(self, path: str | pathlib.Path, comments: tuple[str, ...] = ()):
        self.path = pathlib.Path(path)
        self.number = 0
        self.comments = comments

    def __iter__(self) -> Iterator[list[str]]:
        opened = _OPEN.get(self.path.suffix.lower(), open)
        try:
            with opened(self.path, "rt", encoding="utf-8", errors="replace") as file:
                for self.number, line in enumerate(file, 1):
                    words = line.split()
                    if words and not words[0].startswith(self.comments):
                        yield words
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise QevoError(f"{self.path}: cannot be read: {error}") from None

    def fail(self, wrong: str) -> NoReturn:
        """Raise what is wrong on the line read last."""
        raise QevoError(f"{self.path}, line {self.number}: {wrong}")

    def integers(self, words: list[str], count: int | None, what: str) -> list[int]:
        """The words as ``count`` integers; ``what`` says what the line should hold."""
        try:
            numbers = [int(word) for word in words]
        except ValueError:
            self.fail(f"expected {what}, got {_cut(words)}")
        if count is not None and len(numbers) != count:
            self.fail(f"expected {what}, got {_cut(words)}")
        return numbers

    def ended(self, found: int, expected: int, what: str) -> None:
        """Raise if the file ended before all that its header promised, or went on after it."""
        if found != expected:
            raise QevoError(
                f"{self.path}: the header promises {expected} {what}, the file holds {found}"
            )


def _cut(words: list[str]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 60 else text[:57] + "...")
