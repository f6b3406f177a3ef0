"""The text of a ``.cfg`` file: sections of keys and values."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qevo.errors import QevoError


@dataclasses.dataclass(frozen=True)
class Section:
    """One ``[name]`` of a ``.cfg`` and what it says.

    Attributes:
      kind: the name.
      line: at which it begins, for errors.
      values: text by key.
    """

    kind: str
    line: int
    values: Mapping[str, str]

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number.

        Raises:
          QevoError: where there is none and no default, or something else.
        """
        return self._parsed(key, int, default, "a whole number")

    def number(self, key: str, default: float | None = None) -> float:
        """A number, as `integer`."""
        return self._parsed(key, float, default, "a number")

    def numbers(self, key: str, kind: Callable[[str], Any] = int) -> tuple[Any, ...]:
        """Numbers with commas between them, as `integer`."""
        return self._parsed(
            key, lambda text: tuple(map(kind, text.split(","))), None, "numbers with commas"
        )

    def _parsed(self, key: str, parse: Callable[[str], Any], default: Any, wanted: str) -> Any:
        text = self.values.get(key)
        if text is None and default is not None:
            return default
        try:
            return parse(text or "")
        except ValueError:
            raise self.error(f"{key}: expected {wanted}, found {text or 'nothing'}") from None

    def error(self, message: str) -> QevoError:
        """An error that says where."""
        return QevoError(f"line {self.line}, [{self.kind}]: {message}")


def read_cfg(path: str | os.PathLike[str]) -> list[Section]:
    """The sections of a ``.cfg`` file.

    Raises:
      QevoError: no such file, or a line that is neither a section nor ``key=value``.
    """
    path = Path(path)
    if not path.is_file():
        raise QevoError(f"no such file: {path}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QevoError(f"{path}: expected darknet's text ({error})") from None
    sections: list[tuple[str, int, dict[str, str]]] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].partition(";")[0].strip()
        key, equals, value = (part.strip() for part in text.partition("="))
        if text.startswith("[") and text.endswith("]"):
            sections.append((text[1:-1].strip().lower(), number, {}))
        elif equals and sections:
            sections[-1][2][key] = value
        elif text:
            raise QevoError(f"{path}, line {number}: expected [section] or key=value, found {text}")
    return [Section(*found) for found in sections]
