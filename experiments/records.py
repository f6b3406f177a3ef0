"""What the scripts beside it leave: claimed run folders, and records."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
from collections.abc import Callable
from typing import Any

from qevo.errors import QevoError
from qevo.run import RefineConfig, TrainConfig, run_once
from qevo.run import folder as files
from qevo.run.claim import NEUTRAL
from qevo.run.command import flags

Record = dict[str, Any]
PLACES = ("runs", "results")  # fields that say where files lie


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
    write_record(path, values)


def kept(path: pathlib.Path, make: Callable[[], Record]) -> Record:
    """A record of a run folder: read if it is there, else made and written."""
    if not path.exists():
        write_record(path, make())
    return files.read_json(path)


def write_record(path: pathlib.Path, record: Record) -> None:
    """Write a record as JSON, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, record)


def command(script: str, config: Any, *, leave_out: tuple[str, ...] = PLACES) -> str:
    """The command line of a script that makes a record, but for where files lie."""
    words = flags(config, leave_out=leave_out)
    return shlex.join(["python", f"experiments/{script}.py", *words])


def run_record(config: TrainConfig | RefineConfig) -> Record:
    """What a run found, and all settings that it hangs on; done now if it is not there yet."""
    return run_once(config) | {"settings": settings(config)}


def settings(config: TrainConfig | RefineConfig) -> Record:
    """What decides the result of a run; of files the names."""
    values = dataclasses.asdict(config).items()
    found = {name: value for name, value in values if name not in NEUTRAL}
    return json.loads(json.dumps(found, default=lambda path: path.name))
