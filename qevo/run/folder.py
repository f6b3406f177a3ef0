"""The files of a run folder."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import typing
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from qevo.core.writing import write_atomically
from qevo.data import Dataset
from qevo.errors import QevoError
from qevo.nets.file import tuples
from qevo.run.config import AnyConfig, RefineConfig, SearchConfig, TrainConfig

CONFIG = "config.json"
NETWORK = "network.safetensors"
RESULT = "result.json"
TEACHER = "teacher.safetensors"
TARGETS = "targets.safetensors"
SECONDS = "seconds.json"
PICTURE = "run.png"
LAYERS = "layers.json"
LAYERS_PICTURE = "layers.png"
SENSITIVITY = "sensitivity.json"
SENSITIVITY_PICTURE = "sensitivity.png"
VERSION = "qevo_version"  # the key, in `CONFIG` and in the files of `save_arrays`


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write indented JSON, atomically; paths become text."""
    text = json.dumps(value, indent=2, default=os.fspath) + "\n"
    write_atomically(path, text.encode())


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      QevoError: the file is missing or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise QevoError(f"{path} does not exist; is {path.parent} a run folder?") from None
    except ValueError as error:
        raise QevoError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise QevoError(f"{path} holds no JSON object, but a {type(values).__name__}")
    return values


def network_file(path: pathlib.Path) -> pathlib.Path:
    """A network's file; of a run folder, that of its network."""
    return path / NETWORK if path.is_dir() else path


def planned(values: dict[str, Any]) -> dict[str, int]:
    """The generations of each stage, by `config_values`."""
    return {stage: values[stage]["generations"] for stage in ("constants", "weights")}


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """What came out of the run in a folder; ``None`` before its end, or while it is extended.

    Raises:
      QevoError: a file is no JSON object, or the folder holds no run.
    """
    if not (folder / RESULT).exists():
        return None
    result = read_json(folder / RESULT)
    return result if result.get("planned") == planned(read_json(folder / CONFIG)) else None


_COMMANDS: dict[str, type[AnyConfig]] = {"train": TrainConfig, "refine": RefineConfig}


def config_values(config: SearchConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    (command,) = (name for name, kind in _COMMANDS.items() if isinstance(config, kind))
    return json.loads(
        json.dumps({"command": command} | dataclasses.asdict(config), default=os.fspath)
    )


def read_config(folder: pathlib.Path) -> AnyConfig:
    """The configuration of the run in a folder.

    Raises:
      QevoError: the folder holds no run, or one of another version of qevo.
    """
    values = read_json(folder / CONFIG)
    for name in ("data_sha256", "checkpoint_sha256", VERSION):
        values.pop(name, None)
    try:
        return _record(_COMMANDS[values.pop("command", "train")], values)
    except (TypeError, KeyError, AttributeError) as error:
        raise QevoError(
            f"{folder / CONFIG} is not the configuration of this version of qevo: {error}"
        ) from None


def refuse_changed_data(folder: pathlib.Path, data: Dataset) -> None:
    """Refuse other images than those of the run in a folder.

    Raises:
      QevoError: they have changed since.
    """
    known = read_json(folder / CONFIG).get("data_sha256")
    if known is not None and known != data.fingerprint():
        raise QevoError(f"{data.source} has changed since the run in {folder}")


def _record(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from its JSON values: nested records, tuples and paths as their fields say."""
    hints, made = typing.get_type_hints(kind), {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            value = _record(hint, value)
        elif isinstance(value, list):
            value = tuples(value)
        elif isinstance(value, str) and pathlib.Path in (hint, *typing.get_args(hint)):
            value = pathlib.Path(value)
        made[name] = value
    return kind(**made)


def save_arrays(path: pathlib.Path, tree: Any) -> None:
    """Write a tree of arrays, such as a teacher's variables, to one safetensors file.

    Its metadata names the version of qevo.
    """
    flat = flatten_dict(tree, sep="/")
    arrays = {name: np.asarray(value, order="C") for name, value in flat.items()}
    metadata = {VERSION: importlib.metadata.version("qevo")}
    write_atomically(path, save(arrays, metadata))


def load_arrays(path: pathlib.Path) -> Any:
    """Read what `save_arrays` wrote.

    Raises:
      QevoError: the file is missing or damaged.
    """
    if not path.is_file():
        raise QevoError(f"no such file: {path}")
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise QevoError(f"{path} is damaged or no safetensors file: {error}") from None
    try:
        return unflatten_dict(arrays, sep="/")
    except (IndexError, TypeError, ValueError):
        raise QevoError(f"{path} holds an array whose name is that of others' folder") from None
