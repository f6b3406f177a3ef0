"""Whose a run folder is: made for a new run, or refused where it holds another one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Iterator
from typing import Any

from flax.traverse_util import flatten_dict

from qevo.core.writing import naming
from qevo.data import Dataset
from qevo.errors import QevoError
from qevo.quantize.importing import checkpoint_files
from qevo.run import folder as files
from qevo.run.config import RefineConfig, SearchConfig
from qevo.run.searching import LAST

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def claimed(config: SearchConfig, data: Dataset) -> Iterator[None]:
    """Make the run folder, or refuse one that holds another run; have it for oneself until the end.

    Raises:
      QevoError: another run is there, other settings, or another process that is at work.
    """
    folder, path = config.folder, config.folder / files.CONFIG
    _refuse(config)  # before anything is read
    values = {
        **files.config_values(config),
        "data_sha256": data.fingerprint(),
        files.VERSION: importlib.metadata.version("qevo"),
    }
    if isinstance(config, RefineConfig):
        content = b"".join(path.read_bytes() for path in checkpoint_files(config.checkpoint))
        values["checkpoint_sha256"] = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _refuse(config)  # what another process may have made meanwhile
        if config.resume:
            refuse_changes(config, files.read_json(path), values)
        files.write_json(path, values)
        yield


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Lock a run folder against other processes, as far as the system and its disk have locks.

    The lock goes with the process, however it ends; its empty file stays.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    with naming(path):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QevoError(
                f"another process is at work in {folder}: wait for its end, or choose another "
                "--name (nothing was changed)"
            ) from None
        except OSError:
            pass  # a disk without locks
        yield


def at_work(folder: pathlib.Path) -> bool | None:
    """Whether a process has a run folder for itself; ``None`` where no lock tells."""
    if fcntl is None:
        return None
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _refuse(config: SearchConfig) -> None:
    path = config.folder / files.CONFIG
    if not config.resume:
        refuse_occupied(config)
    elif not path.exists():
        raise QevoError(f"nothing to resume: {path} does not exist")


def refuse_occupied(config: SearchConfig) -> None:
    """Refuse a folder for a new run that has anything in it, but for the lock."""
    folder, path = config.folder, config.folder / files.CONFIG
    if folder.exists() and (
        not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir())
    ):
        holds = "holds a run: add --resume to go on with it, or" if path.exists() else "exists:"
        raise QevoError(f"{folder} already {holds} choose another --name (nothing was changed)")


# Settings that change no result.
NEUTRAL = {
    "arithmetic",
    "candidate_chunk",
    "device",
    "max_seconds",
    "name",
    "resume",
    "runs",
    "scan_length",
    "tensorboard",
}


def refuse_changes(config: SearchConfig, old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = (flatten_dict(values, sep=".") for values in (old, new))
    free = NEUTRAL | {files.VERSION}
    free |= {"weights.generations"}  # more of them only extend the run
    if old.get("data_sha256") == new["data_sha256"]:
        free |= {"data"}  # the same images by another path
    if "checkpoint_sha256" not in old:
        free |= {"checkpoint_sha256"}  # of a run that did not keep it
    if not (config.folder / LAST).exists():
        free |= {"constants.generations"}  # later stages start from what this one found
    changed = [
        f"{key}: {old.get(key, '(not set)')} -> {new.get(key, '(not set)')}"
        for key in sorted(old.keys() | new.keys())
        if key not in free and old.get(key) != new.get(key)
    ]
    if changed:
        raise QevoError(
            f"{config.folder} was run with other settings; changed:\n  "
            + "\n  ".join(changed)
            + "\nresume with the old ones, or choose another --name (nothing was changed)"
        )
