"""Which devices a run uses, and whether it fits into their memory."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax

from qevo.errors import QevoError

Device: TypeAlias = Any  # a jax.Device; JAX exports it as a variable, not as a type


def choose_devices(wanted: Sequence[Device] | int | str | None, population: int) -> list[Device]:
    """The devices to share a population out over.

    Args:
      wanted: devices, how many of the default kind, or a kind ("cpu", "gpu", "tpu"). ``None`` and a
        kind take as many as divide the population.
      population: P.

    Raises:
      QevoError: there are none of that kind, fewer than asked for, or they do not divide P.
    """
    if wanted is None or isinstance(wanted, str):
        found = devices_of(wanted)
        count = max(d for d in range(1, len(found) + 1) if population % d == 0)
        return found[:count]
    if isinstance(wanted, int):
        found = jax.devices()
        if not 1 <= wanted <= len(found):
            raise QevoError(f"{wanted} devices asked for, {len(found)} there: {_listing()}")
        chosen = found[:wanted]
    else:
        chosen = list(wanted)
    if not chosen or population % len(chosen):
        raise QevoError(
            f"a population of {population} cannot be shared out evenly over {len(chosen)} devices"
        )
    return chosen


def devices_of(kind: str | None) -> list[Device]:
    """All devices of a kind, or of the default one."""
    try:
        return jax.devices(kind) if kind else jax.devices()
    except RuntimeError:
        raise QevoError(f"no device of kind {kind!r} here; there is: {_listing()}") from None


def check_memory(compiled: Any, device: Device, population: int, chunk: int | None) -> None:
    """Refuse a program that would not fit into a device's memory, before it runs.

    Raises:
      QevoError: names what is needed, what is free, and about what population would fit.
    """
    analysis = compiled.memory_analysis()
    free = free_memory(device)
    if analysis is None or free is None:
        return
    needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    if needed > free:
        fits = max(int(population * 0.9 * free / needed) // 2 * 2, 0)
        raise QevoError(
            f"a population of {population} needs {_size(needed)} for one generation, {_size(free)} "
            f"are free: about {fits} would fit"
            + (", or try a smaller candidate_chunk" if chunk is None or chunk > 1 else "")
        )


def free_memory(device: Device) -> int | None:
    """Free bytes of a device, the host's for a CPU; ``None`` where nobody says."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _listing() -> str:
    found = [f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices()]
    return ", ".join(found)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
