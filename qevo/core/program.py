"""The compiled call of a run: some generations at once, and what it took to compile them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from qevo.core.algorithm import Algorithm
from qevo.core.devices import Device
from qevo.core.generation import Carry, Rules, scan_generations
from qevo.core.problem import Problem
from qevo.core.spread import BATCH_AXIS, POPULATION_AXIS

_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Program(NamedTuple):
    """``compiled(problem, key, carry)`` gives the new carry, whose old buffers it takes over, and
    metrics."""

    compiled: Any
    seconds: float  # spent on tracing and compiling
    cached: bool  # whether the executable came from JAX's persistent cache


def placement(devices: list[Device], batch_devices: int = 1) -> tuple[Mesh | None, Sharding]:
    """The mesh that work is shared out over, if any, and where all else lies: whole on every
    device.

    Args:
      devices: in the order of their processes.
      batch_devices: how many neighbours share each candidate's batch; it divides their number.
    """
    if len(devices) == 1:
        return None, SingleDeviceSharding(devices[0])
    grid = np.asarray(devices).reshape(-1, batch_devices)
    mesh = Mesh(grid, (POPULATION_AXIS, BATCH_AXIS))
    return mesh, NamedSharding(mesh, PartitionSpec())


def compile_generations(
    algorithm: Algorithm,
    problem: Problem,
    key: jax.Array,
    carry: Carry,
    *,
    length: int,
    rules: Rules,
    chunk: int | None,
    mesh: Mesh | None,
    place: Sharding,
) -> Program:
    """Compile ``length`` generations for arguments that lie at ``place``."""

    def call(problem: Problem, key: jax.Array, carry: Carry) -> Any:
        return scan_generations(
            algorithm, problem, key, carry, length=length, rules=rules, chunk=chunk, mesh=mesh
        )

    hits: list[str] = []

    def note(event: str, **_: Any) -> None:
        if event == _CACHE_HIT:
            hits.append(event)

    began = time.monotonic()
    jax.monitoring.register_event_listener(note)
    try:
        traced = jax.jit(call, donate_argnums=2, out_shardings=place).lower(problem, key, carry)
        compiled = traced.compile()
    finally:
        jax.monitoring.unregister_event_listener(note)
    return Program(compiled, time.monotonic() - began, bool(hits))
