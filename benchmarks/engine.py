"""The population engine against pure inference, against its peers, and as it grows.

    python benchmarks/engine.py [--output results/bench_engine.json]

*Share of pure inference*: candidate images per second of whole generations (draw, evaluate,
learn) over images per second of one network at its fastest measured path and batch, measured in
turns with them. *Free* generations edit any genes, so every candidate is computed from the first
layer on; *block* ones stay within a block, so what candidates share is computed once. Beside them:
what a user would use instead (`benchmarks/peers.py`), the machine's matrix-product peak, growth
from 16 to 4096 candidates, 60 million genes times 4096 candidates, and the overhead of sharding on
forced host devices.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from engine_report import draw, table
from engine_scale import GROUP, on_devices
from flax import linen as nn
from generation import ternary_network
from peers import PACKAGES
from record import record_of, write_record
from rich.console import Console

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.generation import Carry, Rules, first_carry, scan_generations
from qevo.core.space import Space
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.plan import Plan
from qevo.nets.planning import plan
from qevo.problems import NetworkProblem

BATCH = {"lenet_300_100": 1024, "lenet_5": 256, "resnet_20": 64}  # images per candidate
NEVER = 1 << 30
LENGTH = 2  # generations per call
DRAWS = 1 << 12
FASTEST = 3
TURN = 0.2  # seconds that a call is repeated for in its turn
LONG = 20.0  # seconds after which one round is enough


@dataclasses.dataclass(frozen=True)
class Config:
    """Benchmark the population engine."""

    networks: tuple[str, ...] = ("lenet_300_100", "lenet_5", "resnet_20")
    """Architectures."""
    populations: tuple[int, ...] = (16, 64, 256, 1024)
    """Candidates (P)."""
    seconds: float = 2.0
    """Time for each measurement of generations, at least."""
    peers: bool = True
    """Measure the peers too."""
    growth: bool = True
    """Measure growth, 60 million genes, and forced devices."""
    output: pathlib.Path | None = None
    """JSON file to write; a plot goes beside it."""


def main(config: Config) -> None:
    """Measure, print tables, write JSON and a plot."""
    console = Console(width=150)
    found: dict[str, Any] = {
        "peak": {name: matmul_peak(name) for name in ("int8", "float32")},
        "networks": [],
    }
    for name in config.networks:
        with console.status(name):
            found["networks"].append(measure(name, config))
        console.print(table(found["networks"][-1], found["peak"]))
    if config.growth:
        found["growth"] = growth()
        found["genes"] = on_devices(1, "genes")
        found["sharding"] = {n: on_devices(n, "sharding") for n in (1, 2, 4, 8)}
        console.print_json(json.dumps({k: found[k] for k in ("growth", "genes", "sharding")}))
    if config.output:
        packages = PACKAGES if config.peers else ()
        write_record(config.output, record_of(__file__, config, found, packages=packages))
        draw(config.output.with_suffix(".png"), found["networks"])


def measure(name: str, config: Config) -> dict[str, Any]:
    """One network: alone, and in populations of every size."""
    network, images, labels = ternary_network(name)
    batch = BATCH[name]
    began = time.perf_counter()
    machine = plan(network, batch=batch)
    row: dict[str, Any] = {
        "network": name,
        "batch": batch,
        "operations_per_image": sum(layer.operations for layer in machine.layers.values()),
        "plan": dataclasses.asdict(machine),
        "plan_seconds": time.perf_counter() - began,
        "populations": [],
        "peers": {},
    }
    alone = Alone(network, images, machine)
    row["single"] = {
        "paths": alone.best[0],
        "batch": alone.best[1],
        "images_per_second": alone.again(),
    }
    problem = NetworkProblem.of(
        network,
        images,
        labels,
        images[:64],
        labels[:64],
        batch_size=batch,
        arithmetic="fast",
        plan=machine,
    )
    for population in config.populations:
        for grouping in ("entropy", "block"):
            found = generations(problem, population, grouping, config.seconds, alone)
            row["populations"].append(found)
    if config.peers:
        before = alone.again()
        row["peers"] = peers(name, batch)
        one = max(before, alone.again())
        for peer in row["peers"].values():
            rate = peer["images_per_second"]
            peer["share_of_inference"] = rate and rate / one
    return row


class Alone:
    """One network at its fastest paths and batch: the better of its plan and the default paths."""

    def __init__(self, network: QuantizedNetwork, images: np.ndarray, machine: Plan):
        prepared = network.prepare(jnp.asarray(images[:1024]))
        self.calls: dict[tuple[str, int], Callable[[], Any]] = {}
        for paths in ("plan", "default"):
            module = network.integer_module("fast", machine.paths if paths == "plan" else None)
            for batch in (16, 64, 256, 1024):
                batches = prepared.reshape(-1, batch, *prepared.shape[1:])
                self.calls[paths, batch] = _over_batches(module, network, batches)
        self.images = len(prepared)
        spent = {key: _best(call, 1.0) for key, call in self.calls.items()}
        self.ranking = sorted(spent, key=lambda key: spent[key])

    @property
    def best(self) -> tuple[str, int]:
        """Paths and batch that were fastest at first."""
        return self.ranking[0]

    @property
    def fastest(self) -> dict[tuple[str, int], Callable[[], Any]]:
        """The few fastest; which of them is, may change with the machine's state."""
        return {key: self.calls[key] for key in self.ranking[:FASTEST]}

    def again(self) -> float:
        """Images per second now, at best."""
        return self.images / min(_best(call, 1.0) for call in self.fastest.values())


def _over_batches(
    module: nn.Module, network: QuantizedNetwork, batches: jax.Array
) -> Callable[[], Any]:
    """Batch after batch in one call."""
    call = jax.jit(lambda w, c, x: jax.lax.map(lambda b: forward(module, w, c, b), x))
    jax.block_until_ready(call(network.weights, network.constants, batches))
    return lambda: call(network.weights, network.constants, batches)


def generations(
    problem: NetworkProblem,
    population: int,
    grouping: str,
    seconds: float,
    alone: Alone | None = None,
) -> dict[str, Any]:
    """Whole generations in one compiled call, in turns with one network alone: medians.

    Blocks differ in cost, so each is measured by itself; a generation costs what they cost in the
    mean, weighed with how often a fresh search draws each.
    """
    algorithm = Coevolution(
        problem.space,
        CoevolutionConfig(population=population, group=GROUP, grouping=grouping),  # type: ignore[arg-type]
    )
    key = jax.random.key(0)
    carry = first_carry(algorithm, problem, key)
    rules = Rules(generations=NEVER, validate_every=NEVER)

    def call(problem: NetworkProblem, key: jax.Array, carry: Carry) -> Any:
        return scan_generations(
            algorithm,
            problem,
            key,
            carry,
            length=LENGTH,
            rules=rules,
            chunk=problem.candidate_chunk,
            mesh=None,
        )

    began = time.perf_counter()
    compiled = jax.jit(call).lower(problem, key, carry).compile()
    compilation = time.perf_counter() - began
    memory = compiled.memory_analysis()
    visits = _visits(algorithm, carry) if grouping == "block" else np.ones(1)
    places = _places(problem.space, grouping)
    calls: dict[Any, Callable[[], Any]] = {}
    for index, (_, inside) in enumerate(places):
        # A search draws genes in proportion to their uncertainty: without any, never.
        uncertainty = carry.state.uncertainty * jnp.asarray(inside, jnp.int16)
        there = carry._replace(state=dataclasses.replace(carry.state, uncertainty=uncertainty))
        calls[index] = functools.partial(compiled, problem, key, there)
    spent = _take_turns(calls | (alone.fastest if alone else {}), seconds)
    parts = [
        {"leaves": names, "visits": float(share), "seconds": spent[index] / LENGTH}
        for index, ((names, _), share) in enumerate(zip(places, visits, strict=True))
    ]
    per_generation = sum(part["visits"] * part["seconds"] for part in parts)
    found = {
        "population": population,
        "grouping": "free" if grouping == "entropy" else grouping,
        "batch": problem.batch_size,
        "seconds_per_generation": per_generation,
        "images_per_second": population * problem.batch_size / per_generation,
        "blocks": parts,
        "compile_seconds": compilation,
        "memory_bytes": memory.temp_size_in_bytes if memory else None,
    }
    if alone:
        one = alone.images / min(spent[key] for key in alone.fastest)
        found["single_images_per_second"] = one
        found["share_of_inference"] = found["images_per_second"] / one
    return found


def _take_turns(calls: dict[Any, Callable[[], Any]], seconds: float) -> dict[Any, float]:
    """Median seconds of each call; they take turns, so that a busy machine slows all alike."""
    turns: dict[Any, list[float]] = {key: [] for key in calls}
    began = time.perf_counter()
    rounds = 0
    while rounds < 3 or time.perf_counter() - began < seconds * len(calls):
        for key, call in calls.items():
            count, start = 0, time.perf_counter()
            while not count or time.perf_counter() - start < TURN:
                jax.block_until_ready(call())
                count += 1
            turns[key].append((time.perf_counter() - start) / count)
        rounds += 1
        if time.perf_counter() - began > LONG * len(calls):
            break
    return {key: statistics.median(times) for key, times in turns.items()}


def _visits(algorithm: Coevolution, carry: Carry) -> np.ndarray:
    """How often each block is drawn, as shares of many draws."""

    def block(key: jax.Array) -> jax.Array:
        place = algorithm.propose(key, carry.state)[0].place
        assert place is not None
        return place.block

    drawn = jax.jit(jax.vmap(block))(jax.random.split(jax.random.key(0), DRAWS))
    return np.bincount(drawn, minlength=len(algorithm.space.blocks)) / DRAWS


def _places(space: Space, grouping: str) -> list[tuple[list[str], np.ndarray]]:
    """The parts that generations stay within, names and bool ``[N]``: blocks, or everything."""
    if grouping != "block":
        return [(["all"], np.ones(space.size, bool))]
    places = []
    for block in space.blocks:
        leaves = [space.layout[index] for index in block.leaves]
        inside = np.zeros(space.size, bool)
        for leaf in leaves:
            inside[leaf.offset : leaf.offset + leaf.size] = True
        places.append(([leaf.name for leaf in leaves], inside))
    return places


def peers(name: str, batch: int) -> dict[str, Any]:
    """What `benchmarks/peers.py` measures."""
    # In a process of its own: idle threads of other libraries may spin.
    script = pathlib.Path(__file__).with_name("peers.py")
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "peers.json"
        options = ["--networks", name, "--population", "16", "--batch", str(batch)]
        command = [sys.executable, str(script), *options, "--output", str(output)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return json.loads(output.read_text())["networks"][name]


def matmul_peak(dtype: str) -> float:
    """Multiply-adds per second of a large matrix product, in this number format."""
    size = 1024
    x = jnp.ones((size, size), dtype)
    result = jnp.int32 if dtype == "int8" else jnp.float32
    product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=result))
    return size**3 / _best(lambda: product(x, x), 1.0)


def growth() -> list[dict[str, Any]]:
    """Time and memory of free and block generations from P = 16 to 4096."""
    network, images, labels = ternary_network("lenet_300_100")
    rows = []
    for grouping in ("entropy", "block"):
        for population in (16, 64, 256, 1024, 4096):
            problem = NetworkProblem.of(
                network, images, labels, images[:64], labels[:64], batch_size=64
            )
            rows.append(generations(problem, population, grouping, 1.0))
    return rows


def _best(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of the calls that fit into ``seconds``: at least three, or the first
    alone where it takes longer than that."""
    times: list[float] = []
    while sum(times) < seconds or (len(times) < 3 and times[0] < seconds):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
