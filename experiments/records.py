"""What the scripts beside it leave: claimed run folders, and records."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from qevo import Result
from qevo.errors import QevoError
from qevo.run import folder as files


def claim(folder: pathlib.Path, config: Any, *, free: tuple[str, ...]) -> None:
    """Make a run folder, or accept one of the same settings.

    Args:
      folder: of the run.
      config: a dataclass.
      free: fields that may differ.

    Raises:
      QevoError: the folder is one of other settings.
    """
    values = json.loads(json.dumps(dataclasses.asdict(config), default=os.fspath))
    for name in free:
        values.pop(name)
    path = folder / files.CONFIG
    if path.exists() and files.read_json(path) != values:
        raise QevoError(f"{folder} holds a run of other settings; give another --runs")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(path, values)


def write_record(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, record)


def finished(result: Result) -> Result:
    """A search's result, or KeyboardInterrupt where it was cut off: that is nothing to record."""
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result
