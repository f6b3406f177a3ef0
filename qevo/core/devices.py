"""Which devices a run uses, and whether it fits into their memory."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from qevo.errors import QevoError

Device: TypeAlias = Any  # a jax.Device; JAX exports it as a variable, not as a type


def choose_devices(
    wanted: Sequence[Device] | int | str | None, population: int, batch_devices: int = 1
) -> list[Device]:
    """The devices to share a population out over, as many of each process.

    Args:
      wanted: devices, how many of the default kind, or a kind ("cpu", "gpu", "tpu"). ``None`` and a
        kind take as many as can share it out.
      population: P.
      batch_devices: how many devices share each candidate's batch.

    Raises:
      QevoError: there are none of that kind, fewer than asked for, they do not divide P, or not
        every process has the same number of them.
    """
    if isinstance(wanted, int | np.integer):
        wanted = int(wanted)
        found = jax.devices()
        if not 1 <= wanted <= len(found):
            raise QevoError(f"{wanted} devices asked for, {len(found)} there: {_listing()}")
        each, rest = divmod(wanted, jax.process_count())
        if rest:
            raise QevoError(
                f"{wanted} devices cannot be shared out evenly over {jax.process_count()} processes"
            )
        chosen = [device for part in _by_process(found) for device in part[:each]]
    elif wanted is None or isinstance(wanted, str):
        parts = _by_process(devices_of(wanted))
        there = min(map(len, parts))
        groups = {d: divmod(d * len(parts), batch_devices) for d in range(1, there + 1)}
        fits = [d for d, (each, rest) in groups.items() if not rest and population % each == 0]
        chosen = [device for part in parts for device in part[: max(fits, default=there)]]
    else:
        chosen = list(wanted)
    if not chosen or population * batch_devices % len(chosen):
        raise QevoError(
            f"a population of {population} cannot be shared out evenly over {len(chosen)} devices"
        )
    if len({len(part) for part in _by_process(chosen)}) > 1:
        raise QevoError("every process must give the same number of devices, got " + _listing())
    return chosen


def own_devices(devices: Sequence[Device]) -> list[Device]:
    """Those that belong to this process."""
    if jax.process_count() == 1:
        return list(devices)
    return [device for device in devices if device.process_index == jax.process_index()]


def _by_process(devices: Sequence[Device]) -> list[list[Device]]:
    """The devices of each process, in its order; a process without any has an empty list."""
    if jax.process_count() == 1:
        return [list(devices)]
    parts: list[list[Device]] = [[] for _ in range(jax.process_count())]
    for device in devices:
        parts[device.process_index].append(device)
    return parts


def devices_of(kind: str | None) -> list[Device]:
    """All devices of a kind, or of the default one."""
    try:
        return jax.devices(kind) if kind else jax.devices()
    except RuntimeError:
        raise QevoError(f"no device of kind {kind!r} here; there is: {_listing()}") from None


def device_in_use() -> Device:
    """Where JAX computes by default: as `jax.default_device` says, or this process's first one."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if chosen is None or isinstance(chosen, str):
        return jax.local_devices(backend=chosen)[0]
    return chosen


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


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def peak_memory(devices: Sequence[Device]) -> int | None:
    """The most bytes in use at once since the process began.

    Of the fullest of ``devices`` where they count it, else of the process; ``None`` where nobody
    says. A CPU has no memory of its own, so there it is the process's.
    """
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in devices]
    known = [peak for peak in peaks if peak is not None]
    if known:
        return max(known)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _listing() -> str:
    found = [f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices()]
    return ", ".join(found)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
