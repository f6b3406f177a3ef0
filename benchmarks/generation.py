"""Where a generation's time goes, and its share of pure inference.

    python benchmarks/generation.py [--output results/generation.json]

For each network: the time of ask (minibatch and proposal), evaluate (all candidates) and tell, and
candidate images per second against the images per second of one network at its fastest measured
path and batch. Medians over repetitions that take turns, so that a busy machine slows all alike.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.registry import architecture
from qevo.problems import NetworkProblem
from qevo.quantize import quantize_network

SHAPES = {
    "lenet_300_100": (28, 28, 1),
    "lenet_5": (28, 28, 1),
    "resnet_8": (32, 32, 3),
    "resnet_20": (32, 32, 3),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Benchmark one generation."""

    networks: tuple[str, ...] = ("lenet_300_100", "lenet_5")
    """Architectures."""
    population: int = 64
    """Candidates (P)."""
    batch: int = 1024
    """Images per candidate (B)."""
    single_batches: tuple[int, ...] = (64, 128, 256, 1024)
    """Batches tried for one network."""
    repeats: int = 9
    """Repetitions of each measurement."""
    output: pathlib.Path | None = None
    """JSON file to write."""


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    rows = [measure(name, config) for name in config.networks]
    table = Table(title=f"P = {config.population}, B = {config.batch}", title_justify="left")
    for column in ("network", "path", "ask ms", "evaluate ms", "tell ms", "evaluate %"):
        table.add_column(column, justify="left" if column in ("network", "path") else "right")
    for column in ("population img/s", "one network img/s", "(path, batch)", "share"):
        table.add_column(column, justify="right")
    for row in rows:
        for arithmetic, part in row["population"].items():
            table.add_row(
                row["network"],
                arithmetic,
                *(f"{1e3 * part[k]:.1f}" for k in ("ask", "evaluate", "tell")),
                f"{100 * part['evaluate_share']:.0f}",
                f"{part['images_per_second']:,.0f}",
                f"{row['single']['images_per_second']:,.0f}",
                f"{row['single']['arithmetic']}, {row['single']['batch']}",
                f"{part['share_of_inference']:.2f}",
            )
    Console(width=160).print(table)
    if config.output:
        write_record(config.output, record_of(__file__, config, {"networks": rows}))


def measure(name: str, config: Config) -> dict[str, Any]:
    """All measurements of one architecture."""
    network, images, labels = ternary_network(name)
    calls: dict[Any, Callable[[], Any]] = {}
    prepared = jnp.asarray(network.prepare(jnp.asarray(images)))
    for arithmetic in ("int", "fast"):
        for batch in config.single_batches:
            calls["single", arithmetic, batch] = _single(network, prepared, arithmetic, batch)
        problem = NetworkProblem.of(
            network,
            images,
            labels,
            images[:1000],
            labels[:1000],
            genes=("weights",),
            batch_size=config.batch,
            arithmetic=arithmetic,
        )
        for part, call in _generation(problem, config).items():
            calls[part, arithmetic] = call
    seconds = _take_turns(calls, config.repeats)
    singles = {
        key: config_batch / seconds[key]
        for key, config_batch in ((k, k[2]) for k in calls if k[0] == "single")
    }
    best = max(singles, key=lambda key: singles[key])
    population = {}
    for arithmetic in ("int", "fast"):
        parts = {part: seconds[part, arithmetic] for part in ("ask", "evaluate", "tell")}
        rate = config.population * config.batch / parts["evaluate"]
        population[arithmetic] = {
            **parts,
            "evaluate_share": parts["evaluate"] / sum(parts.values()),
            "images_per_second": rate,
            "share_of_inference": rate / singles[best],
        }
    return {
        "network": name,
        "single": {
            "arithmetic": best[1],
            "batch": best[2],
            "images_per_second": singles[best],
            "all": {f"{key[1]}, {key[2]}": value for key, value in singles.items()},
        },
        "population": population,
    }


def ternary_network(name: str) -> tuple[QuantizedNetwork, np.ndarray, np.ndarray]:
    """A ternary network with random weights: speed does not depend on what it has learnt."""
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (8192, *SHAPES[name])).astype(np.uint8)
    labels = generator.randint(0, 10, 8192).astype(np.int32)
    module = architecture(name)
    variables = module.init(jax.random.key(0), images[:1])
    network = quantize_network(module, variables, images[:256], bits="ternary")
    return network, images, labels


def _single(network: QuantizedNetwork, images: Any, arithmetic: Any, batch: int) -> Any:
    module = network.integer_module(arithmetic)
    call = jax.jit(lambda w, c, x: forward(module, w, c, x))
    return lambda: call(network.weights, network.constants, images[:batch])


def _generation(problem: NetworkProblem, config: Config) -> dict[str, Callable[[], Any]]:
    algorithm = Coevolution(problem.space, CoevolutionConfig(population=config.population))
    key = jax.random.key(0)
    state = algorithm.start(key)

    @jax.jit
    def ask(problem: NetworkProblem, key: jax.Array, state: Any) -> Any:
        return problem.batch(key), *algorithm.propose(key, state)

    @jax.jit
    def evaluate(problem: NetworkProblem, state: Any, proposal: Any, batch: Any) -> jax.Array:
        context = algorithm.context(state)
        return problem.scores(context, proposal.share, batch, chunk=problem.candidate_chunk)

    tell = jax.jit(algorithm.update)
    batch, proposal, state = ask(problem, key, state)
    fitness = evaluate(problem, state, proposal, batch)
    return {
        "ask": lambda: ask(problem, key, state),
        "evaluate": lambda: evaluate(problem, state, proposal, batch),
        "tell": lambda: tell(key, proposal, fitness, state),
    }


def _take_turns(calls: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """Median seconds of each call."""
    spent: dict[Any, list[float]] = {key: [] for key in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(repeats):
        for key, call in calls.items():
            inner = 0
            began = time.perf_counter()
            while inner < 3 or time.perf_counter() - began < 0.05:
                jax.block_until_ready(call())
                inner += 1
            spent[key].append((time.perf_counter() - began) / inner)
    return {key: statistics.median(times) for key, times in spent.items()}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
