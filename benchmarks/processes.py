"""Processes of their own, for their peak of memory or their number of devices."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pathlib
import resource
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def in_a_process(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a call returns in a fresh process, for its `peak_bytes`."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(call, *args, **kwargs).result()


def with_devices(count: int) -> dict[str, str]:
    """The environment of a process with so many devices forced on the host."""
    flags = f"--xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def peak_bytes() -> int:
    """The most memory of this process so far."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss would begin with the parent's
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
