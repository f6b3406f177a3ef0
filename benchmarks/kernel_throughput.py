"""Evaluations per second of whole generations on OneMax: draw, score all candidates, learn.

The algorithm is the same for all that say so, a (64 + 64) evolutionary algorithm: parents are drawn
uniformly, a child flips as many bits as a binomial number of mean 1 says and at least one, the best
of parents and children stay. No crossover.

- *qevo*: `Genetic`, 100 generations a call.
- *numpy, masks*: as one writes it: a random number for every bit of every child.
- *numpy, positions*: the same trick as ours, drawn positions; the fastest form that we know.
- *deap*: `algorithms.eaMuPlusLambda` with `mutFlipBit` and `sum`, individuals as ``array.array``.

Two have laws of their own, as they come:

- *nevergrad*: `DiscreteOnePlusOne`, an evaluation at a time.
- *evosax*: `SimpleGA`, 64 float members, all genes moved, rounded, the best half stays; 100
  generations a call.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from kernel_peers import deap_individual, evosax_strategy, nevergrad_optimizer
from rich.table import Table

from qevo.algorithms import Genetic, GeneticConfig
from qevo.core.counting import count_ones
from qevo.core.evosax_rounding import RoundedProblem
from qevo.core.generation import Rules, first_carry, scan_generations
from qevo.core.problem import FunctionProblem
from qevo.core.space import Space

MEMBERS = 64
CALL = 100  # generations in a compiled call
SLOTS = 16  # a child flips a binomial number of bits, of so many with probability 1 / 16
_FOREVER = 1 << 30

Step = Callable[[], int]  # some generations; returns the evaluations


class Settings(Protocol):
    """The settings that this part reads."""

    @property
    def genes(self) -> tuple[int, ...]: ...
    @property
    def peers(self) -> bool: ...
    @property
    def throughput_seconds(self) -> float: ...


def measure(config: Settings, say: Callable[[str], Any]) -> dict[str, Any]:
    """All contenders at all sizes."""
    rows = []
    for genes in config.genes:
        for name, make in CONTENDERS.items():
            if name != "qevo" and not config.peers:
                continue
            if name in ("deap", "nevergrad") and importlib.util.find_spec(name) is None:
                say(f"{name} is not installed: pip install -e '.[bench]' in qevo's checkout")
                continue
            say(f"{name}, {genes:,} genes")
            rate = evaluations_per_second(make(genes), config.throughput_seconds)
            rows.append({"genes": genes, "contender": name, "evaluations_per_second": rate})
    ours = {
        row["genes"]: row["evaluations_per_second"] for row in rows if row["contender"] == "qevo"
    }
    for row in rows:
        row["qevo_is_faster_by"] = ours[row["genes"]] / row["evaluations_per_second"]
    return {"members": MEMBERS, "rows": rows}


def evaluations_per_second(step: Step, seconds: float) -> float:
    """The fastest call of those that fit into the seconds, or of one, after one to warm up."""
    step()
    rates, spent = [], 0.0
    while not rates or spent < seconds:
        began = time.perf_counter()
        count = step()
        took = time.perf_counter() - began
        rates.append(count / took)
        spent += took
    return max(rates)


def qevo(genes: int) -> Step:
    """Our genetic algorithm without crossover."""
    space = Space.integers(genes, 0, 1, dtype=np.int8)
    problem = FunctionProblem(space, lambda bits: genes - count_ones(bits))
    config = GeneticConfig(MEMBERS, tournament=1, crossed=0.0, mutated=1.0, slots=SLOTS)
    algorithm = Genetic(space, config)
    key, rules = jax.random.key(0), Rules(_FOREVER)
    carry = first_carry(algorithm, problem, key)
    run = jax.jit(
        lambda problem, key, carry: scan_generations(
            algorithm, problem, key, carry, length=CALL, rules=rules, chunk=None, mesh=None
        )
    )

    def step() -> int:
        nonlocal carry
        carry, _ = run(problem, key, carry)
        jax.block_until_ready(carry)
        return MEMBERS * CALL

    return step


def numpy_masks(genes: int) -> Step:
    """A mask of random bits over all children."""

    def flip(draws: np.random.Generator, children: np.ndarray) -> None:
        flips = draws.random(children.shape, np.float32) < 1 / genes
        none = np.flatnonzero(~flips.any(axis=1))
        flips[none, draws.integers(0, genes, none.size)] = True
        children ^= flips

    return _numpy(genes, flip)


def numpy_positions(genes: int) -> Step:
    """Positions of the flipped bits of all children; one drawn twice flips once."""

    def flip(draws: np.random.Generator, children: np.ndarray) -> None:
        count = np.maximum(draws.binomial(SLOTS, 1 / SLOTS, MEMBERS), 1)
        rows = np.repeat(np.arange(MEMBERS), count)
        columns = draws.integers(0, genes, rows.size)
        children[rows, columns] = ~children[rows, columns]

    return _numpy(genes, flip)


def _numpy(genes: int, flip: Callable[[np.random.Generator, np.ndarray], None]) -> Step:
    draws = np.random.default_rng(0)
    members = draws.integers(0, 2, (MEMBERS, genes), np.int8).astype(bool)
    fitness = genes - np.count_nonzero(members, axis=1)

    def step() -> int:
        nonlocal members, fitness
        children = members[draws.integers(0, MEMBERS, MEMBERS)]
        flip(draws, children)
        scores = genes - np.count_nonzero(children, axis=1)
        # Only children that stay are copied: each takes the place of a worse member.
        worst, best = np.argsort(-fitness), np.argsort(scores)
        stays = scores[best] <= fitness[worst]
        members[worst[stays]] = children[best[stays]]
        fitness[worst[stays]] = scores[best[stays]]
        return MEMBERS

    return step


def deap(genes: int) -> Step:
    """DEAP's (mu + lambda) algorithm."""
    from deap import algorithms, base, tools  # pyright: ignore[reportMissingImports]

    random.seed(0)
    individual = deap_individual()
    toolbox = base.Toolbox()
    toolbox.register("evaluate", lambda bits: (genes - sum(bits),))
    toolbox.register("mutate", tools.mutFlipBit, indpb=1 / genes)
    toolbox.register("select", tools.selBest)
    population = [individual(random.choices((0, 1), k=genes)) for _ in range(MEMBERS)]
    for member in population:
        member.fitness.values = toolbox.evaluate(member)  # pyright: ignore[reportAttributeAccessIssue]

    def step() -> int:
        algorithms.eaMuPlusLambda(
            population, toolbox, MEMBERS, MEMBERS, cxpb=0.0, mutpb=1.0, ngen=1, verbose=False
        )
        return MEMBERS

    return step


def nevergrad(genes: int) -> Step:
    """nevergrad's (1 + 1) algorithm."""
    optimizer = nevergrad_optimizer(genes, 0)

    def step() -> int:
        candidate = optimizer.ask()
        optimizer.tell(candidate, float(genes - np.sum(np.asarray(candidate.value))))
        return 1

    return step


def evosax(genes: int) -> Step:
    """evosax's simple genetic algorithm over floats."""
    problem = FunctionProblem(
        Space.integers(genes, 0, 1, dtype=np.int8), lambda bits: genes - count_ones(bits)
    )
    rounded = RoundedProblem(problem)
    strategy, params = evosax_strategy(genes, MEMBERS)
    key_first, key = jax.random.split(jax.random.key(0))
    first = jax.random.uniform(key_first, (MEMBERS, genes), jnp.float32)
    fitness, _, _ = rounded.eval(key_first, first, rounded.init(key_first))
    state = strategy.init(key_first, first, fitness, params)

    def generation(state: Any, key: jax.Array) -> tuple[Any, None]:
        key_ask, key_eval, key_tell = jax.random.split(key, 3)
        points, state = strategy.ask(key_ask, state, params)
        fitness, _, _ = rounded.eval(key_eval, points, rounded.init(key_eval))
        state, _ = strategy.tell(key_tell, points, fitness, state, params)
        return state, None

    length = max(CALL * 1000 // max(genes, 1000), 1)
    run = jax.jit(lambda state, keys: jax.lax.scan(generation, state, keys)[0])

    def step() -> int:
        nonlocal state, key
        key, here = jax.random.split(key)
        state = jax.block_until_ready(run(state, jax.random.split(here, length)))
        return MEMBERS * length

    return step


CONTENDERS: dict[str, Callable[[int], Step]] = {
    "qevo": qevo,
    "numpy, masks": numpy_masks,
    "numpy, positions": numpy_positions,
    "deap": deap,
    "nevergrad": nevergrad,
    "evosax": evosax,
}


def table(found: dict[str, Any]) -> Table:
    """Evaluations per second, and how many times as fast ours is."""
    shown = Table(title="OneMax, evaluations per second", title_justify="left")
    shown.add_column("")
    for column in ("genes", "evaluations/s", "qevo is faster by"):
        shown.add_column(column, justify="right")
    last = None
    for row in found["rows"]:
        if row["genes"] != last:
            last = row["genes"]
            shown.add_section()
        shown.add_row(
            row["contender"],
            f"{row['genes']:,}",
            f"{row['evaluations_per_second']:,.0f}",
            "" if row["contender"] == "qevo" else f"{row['qevo_is_faster_by']:,.2f}",
        )
    return shown
