"""Small searches that many tests share; also imported by the processes that some tests start."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from safetensors.numpy import load_file

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core import Algorithm, FunctionProblem, Leaf, Problem, Proposal, Result, Space, evolve
from qevo.core.space import Block


def environment(devices: int | None = None) -> dict[str, str]:
    """What a process of its own is started with, on so many devices that are forced on the host.

    It can import the tests' modules, and compiles as the tests do.
    """
    here = pathlib.Path(__file__).parent
    folders = [here, *(path for path in here.iterdir() if path.is_dir())]
    flags = os.environ.get("XLA_FLAGS", "")
    if devices is not None:
        flags += f" --xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
    }


def on_devices(count: int, code: str, *arguments: object) -> str:
    """What code prints in a process on ``count`` devices; warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(count), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def onemax(genes: int = 96) -> FunctionProblem:
    """The number of zeros among bits."""

    def zeros(bits: jax.Array) -> jax.Array:
        return jnp.sum(1 - bits, dtype=jnp.int32)

    return FunctionProblem(Space.integers(genes, 0, 1, dtype=jnp.int8), zeros, optimum=0)


def quadratic() -> FunctionProblem:
    """Squared distance, in steps, to a hidden solution; each leaf has its own bounds and step."""
    draw = np.random.RandomState(0)
    low, high = -draw.randint(0, 5, (4, 6)), draw.randint(0, 5, (4, 6))
    space = Space.of(
        {
            "weights": Leaf((4, 6), low, high),
            "bias": Leaf((8,), -8, 8, base=np.arange(8) * 1000, step=7, dtype=np.int32),
            "scale": Leaf((3,), -5, 6, [0, 4, 6], base=1 << 20, step=[1, 64, 4096], dtype=np.int32),
        }
    ).with_blocks([(["weights"], 4), (["scale", "bias"], None)])
    hidden = draw.randint(space.low, np.asarray(space.high, np.int32) + 1).astype(np.int8)

    def distance(solution: Any) -> jax.Array:
        steps = space.encode(solution).astype(jnp.int32) - hidden
        return jnp.sum(steps * steps)

    return FunctionProblem(space, distance, optimum=0)


def block_space() -> Space:
    """Blocks with and without runs of channels; one that cannot move, and one run that cannot."""
    channels = np.arange(4) // 2  # the first two are fixed
    leaves = {
        "a": Leaf((2, 3, 7), -1, 1),
        "b": Leaf((7,), -2, 2, base=9, step=3, dtype=np.int32),
        "c": Leaf((15,), 0, [0, 1, 1] * 5),
        "d": Leaf((5, 2), 3, 3, 3),
        "e": Leaf((4,), -3, 3),
        "f": Leaf((3, 4), 0, channels),
    }
    runs = [(["e", "c"], None), (["a", "b"], 3), (["d"], None), (["f"], 2)]
    return Space.of(leaves).with_blocks(runs)


def genes_of(space: Space, block: Block, channel: int | None = None) -> np.ndarray:
    """The positions of a block's genes, in order; at one place, those of the channels there."""
    parts = []
    for index in block.leaves:
        leaf = space.layout[index]
        part = np.arange(leaf.offset, leaf.offset + leaf.size).reshape(leaf.shape)
        if block.channels is not None and channel is not None:
            part = part[..., channel : channel + block.channels]
        parts.append(part.ravel())
    return np.concatenate(parts)


@struct.dataclass
class Medians(Problem):
    """Distance to a minibatch of noisy measurements of hidden numbers; validated on others.

    The best solution is the median of the measurements, one per gene.
    """

    space: Space
    measured: jax.Array  # int32 [n, N]
    held_out: jax.Array  # int32 [m, N]
    batch_chunk: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, genes: int = 48) -> Medians:
        draw = np.random.RandomState(1)
        hidden = draw.randint(-4, 5, genes)
        noise = draw.randint(-2, 3, (400, genes))
        rows = jnp.asarray(hidden + noise, jnp.int32)
        return cls(Space.integers(genes, -6, 6), rows[:256], rows[256:])

    def batch(self, key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, (32,), 0, self.measured.shape[0], jnp.int32)
        return self.measured[rows]

    def fitness(self, solution: jax.Array, batch: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(solution.astype(jnp.int32) - batch), dtype=jnp.int32)

    def validation(self, solution: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        farthest = jnp.max(jnp.abs(solution.astype(jnp.int32) - self.held_out))
        return self.fitness(solution, self.held_out), {"farthest": farthest}


class WalkState(NamedTuple):
    genes: jax.Array  # int8 [N]
    fitness: jax.Array  # int32 []
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]


class Walk(Algorithm):
    """The least search there is: every candidate redraws one gene, the best one is kept."""

    def __init__(self, space: Space, population_size: int = 8):
        super().__init__(space, population_size)

    def start(self, key: jax.Array) -> WalkState:
        space = self.space
        worst = jnp.int32(2**31 - 1)
        return WalkState(space.start, worst, space.low, space.high)

    def propose(self, key: jax.Array, state: WalkState) -> tuple[Proposal, WalkState]:
        key_positions, key_values = jax.random.split(key)
        shape = (self.population_size, 1)
        positions = jax.random.randint(key_positions, shape, 0, self.space.size, jnp.int32)
        low, high = (state.low[positions].astype(jnp.int32), state.high[positions])
        values = jax.random.randint(key_values, shape, low, high.astype(jnp.int32) + 1, jnp.int32)
        return Proposal(positions, values.astype(jnp.int8)), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: WalkState
    ) -> tuple[WalkState, dict[str, jax.Array]]:
        winner = jnp.argmin(fitness)
        better = fitness[winner] < state.fitness
        moved = state.genes.at[proposal.positions[winner]].set(proposal.values[winner])
        genes = jnp.where(better, moved, state.genes)
        fitness = jnp.minimum(fitness[winner], state.fitness)
        return state._replace(genes=genes, fitness=fitness), {"kept": better.astype(jnp.int32)}

    def context(self, state: WalkState) -> jax.Array:
        return state.genes


def walk(**settings: Any) -> Result:
    """A short walk on OneMax: the best of the run falls by about one a generation."""
    problem = onemax(24)
    settings = {"generations": 12, "progress": False, "devices": 1} | settings
    return evolve(Walk(problem.space), problem, settings.pop("seed", 5), **settings)


@functools.cache
def whole_walk() -> Result:
    """`walk` as it is, for tests that compare with it."""
    return walk()


def noisy_search(
    folder: pathlib.Path | None = None,
    *,
    callback: Callable[[dict[str, int]], None] | None = None,
    resume: bool = False,
    devices: Any = 1,
    batch_devices: int = 1,
) -> Result:
    """Coevolution with subgroups on `Medians`, checkpointed after every call."""
    problem = dataclasses.replace(Medians.of(), batch_chunk=5 if batch_devices > 1 else None)
    config = CoevolutionConfig(
        population=32, group=10, subgroups=2, spread=0.2, rate=4.0, schedule=60
    )
    return evolve(
        Coevolution(problem.space, config),
        problem,
        11,
        generations=90,
        validate_every=4,
        scan_length=3,
        devices=devices,
        batch_devices=batch_devices,
        folder=folder,
        checkpoint_generations=1,
        resume=resume,
        progress=False,
        callback=callback,
    )


def records(folder: pathlib.Path) -> list[dict[str, int]]:
    """The metrics of each generation that a run has written."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state(result: Result, folder: pathlib.Path) -> dict[str, str]:
    """Digests of everything that a run leaves behind."""
    arrays = load_file(folder / "checkpoint.safetensors")
    everything = {name: array.tobytes() for name, array in arrays.items()}
    everything |= {"genes": result.genes.tobytes(), "fitness": str(result.fitness).encode()}
    everything["metrics"] = (folder / "metrics.jsonl").read_bytes()
    return {name: hashlib.sha256(data).hexdigest() for name, data in everything.items()}
