"""What the population engine's benchmark measures in processes of their own.

    python benchmarks/engine_scale.py genes|sharding

Prints one line of JSON: 60 million genes times 4096 candidates, or a search over all devices of the
process.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from generation import ternary_network
from processes import peak_bytes, with_devices

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.evolve import evolve
from qevo.core.space import Space
from qevo.problems import NetworkProblem

Part = Literal["genes", "sharding"]

GROUP = 500


def genes_of_60_million() -> dict[str, Any]:
    """Propose and update 4096 candidates of 60 million genes; their scores are drawn."""
    population, genes = 4096, 60_000_000
    before = peak_bytes()
    space = Space.integers(genes, -1, 1, dtype=np.int8)
    algorithm = Coevolution(space, CoevolutionConfig(population=population, group=5000))

    def step(state: Any, key: jax.Array) -> Any:
        keys = jax.random.split(key, 3)
        proposal, state = algorithm.propose(keys[0], state)
        fitness = jax.random.randint(keys[1], (population,), 0, 1000, jnp.int32)
        return algorithm.update(keys[2], proposal, fitness, state)[0]

    call = jax.jit(step, donate_argnums=0)
    state = jax.tree.map(jnp.array, algorithm.start(jax.random.key(0)))  # not the space's arrays
    state = call(state, jax.random.key(1))
    jax.block_until_ready(state)
    began = time.perf_counter()
    for turn in range(3):
        state = call(state, jax.random.key(turn))
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - began) / 3
    return {
        "genes": genes,
        "population": population,
        "seconds_per_generation": seconds,
        "peak_bytes": peak_bytes(),
        "of_which_before": before,
    }


def sharded() -> dict[str, Any]:
    """Generations over all forced devices of this process, and what came out."""
    network, images, labels = ternary_network("lenet_300_100")
    problem = NetworkProblem.of(
        network, images, labels, images[:256], labels[:256], batch_size=1024
    )
    config = CoevolutionConfig(population=64, group=GROUP, grouping="block")
    result = evolve(Coevolution(problem.space, config), problem, 0, generations=60, progress=False)
    return {
        "devices": jax.device_count(),
        "seconds": result.seconds,
        "genes_sha256": hashlib.sha256(np.asarray(result.genes).tobytes()).hexdigest(),
    }


def on_devices(count: int, part: Part) -> dict[str, Any]:
    """Measure a part on so many devices that are forced on the host."""
    command = [sys.executable, __file__, part]
    environment = with_devices(count)
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(part: tyro.conf.Positional[Part]) -> None:
    """Measure one part."""
    print(json.dumps(genes_of_60_million() if part == "genes" else sharded()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
