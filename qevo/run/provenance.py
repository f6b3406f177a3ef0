"""Where a result comes from: versions, device, commit."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any

from qevo.core.devices import devices_of

PACKAGES = ("qevo", "jax", "jaxlib", "flax", "optax", "evosax", "numpy")


def origin(kind: str | None = None, *, others: dict[str, str] | None = None) -> dict[str, Any]:
    """What a record says of where it comes from: its "versions", "device" and "commit".

    Args:
      kind: of the devices, as in `device`.
      others: versions of more than `PACKAGES`.
    """
    return {"versions": versions() | (others or {}), "device": device(kind), "commit": commit()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def device(kind: str | None = None) -> str:
    """The devices of a kind, or of the default one, such as "8 x NVIDIA H100"."""
    devices = devices_of(kind)
    model = devices[0].device_kind
    if devices[0].platform == "cpu":
        model = f"{_processor()} ({os.cpu_count()} cores)"
    return f"{len(devices)} x {model}"


def commit() -> str | None:
    """The commit of the checkout that the package runs from, "+" added where it has changes.

    ``None`` for an installed package, or without git.
    """
    here = pathlib.Path(__file__).resolve().parents[2]
    if not (here / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "") or None


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
