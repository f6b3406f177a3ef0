"""Where a result comes from: versions, device, commit."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess

import jax

PACKAGES = ("qevo", "jax", "jaxlib", "flax", "optax", "evosax", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def device() -> str:
    """The devices in use, such as "8 x NVIDIA H100"."""
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"{_processor()} ({_cores()} cores)"
    return f"{len(devices)} x {kind}"


def commit() -> str | None:
    """The commit of the checkout that the package runs from, "+" added where it has changes.

    ``None`` for an installed package.
    """
    here = pathlib.Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
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


def _cores() -> int:
    import os

    return os.cpu_count() or 1
