"""The command lines that configurations stand for."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from typing import Any

from flax.traverse_util import flatten_dict

from qevo.run.config import AnyConfig, RefineConfig, SensitivityConfig, TrainConfig

_COMMANDS = {TrainConfig: "train", RefineConfig: "refine", SensitivityConfig: "sensitivity"}
_SESSION = {"resume", "max_seconds"}  # of one session, not of the run


def command_line(config: AnyConfig | SensitivityConfig, run: pathlib.Path | None = None) -> str:
    """The command with what differs from the defaults, for ``run`` where it takes a run folder."""
    words = ["qevo", _COMMANDS[type(config)], *([] if run is None else [str(run)])]
    known, ours = _flat(type(config)()), _flat(config)
    for name, value in ours.items():
        if name not in _SESSION and value != known.get(name):
            words += _flag(name, value)
    return shlex.join(words)


def flags(config: Any, *, leave_out: tuple[str, ...] = ("runs", "results")) -> list[str]:
    """The command line of a script with this flat configuration: what decides its result.

    Args:
      config: a dataclass.
      leave_out: fields that only say where files lie.
    """
    fields = dataclasses.asdict(config).items()
    return [word for name, v in fields if name not in leave_out for word in _flag(name, v)]


def _flag(name: str, value: Any) -> list[str]:
    """A flag as the command line reads it: one that is on or off has two names and no value."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        before, dot, last = flag.rpartition(".")
        return [f"--{flag}" if value else f"--{before}{dot}no-{last}"]
    return [f"--{flag}", *_words(value)]


def _words(value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [word for part in value for word in _words(part)]
    return [str(value)]


def _flat(config: Any) -> dict[str, Any]:
    return flatten_dict(dataclasses.asdict(config), sep=".")
