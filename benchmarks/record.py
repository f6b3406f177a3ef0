"""The records that the scripts beside it write: what was found, and how to find it again."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import shlex
from collections.abc import Iterable
from typing import Any

from qevo.run.command import flags
from qevo.run.folder import write_json
from qevo.run.provenance import origin


def record_of(
    script: str,
    config: Any,
    found: dict[str, Any],
    *,
    packages: Iterable[str] = (),
    kind: str | None = None,
) -> dict[str, Any]:
    """What was found, between the "command" and "settings" that found it and its `origin`.

    Args:
      script: its ``__file__``.
      config: its dataclass; "output" says where the record lies, which is no part of it.
      found: what was measured.
      packages: whose versions matter besides; those that are installed.
      kind: of the devices, as in `origin`.
    """
    words = flags(config, leave_out=("output",))
    settings = dataclasses.asdict(config)
    del settings["output"]
    return {
        "command": shlex.join(["python", f"benchmarks/{pathlib.Path(script).name}", *words]),
        "settings": settings,
        **found,
        **origin(kind, others=_installed(packages)),
    }


def write_record(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _installed(packages: Iterable[str]) -> dict[str, str]:
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
