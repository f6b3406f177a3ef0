"""How time and evaluations grow with the number of genes: noisy OneMax by frequency tables.

Fitness is the number of zeros plus noise of variance n / 4, which is what the zeros of random bits
vary by; one number for the whole vector. A run ends when the answer, the likelier level of every
gene, is the optimum, which is looked at without noise. The algorithm is `EDAConfig.noisy`, after
Friedrich, Kötzing, Krejca and Sutton, *The compact genetic algorithm is efficient under extreme
Gaussian noise*, IEEE TEC 2017, who prove that frequencies in small steps do it; steps and
population are ours.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from matplotlib.figure import Figure
from processes import in_a_process, peak_bytes
from rich.table import Table

from qevo.algorithms import EDA, EDAConfig
from qevo.core.counting import count_ones
from qevo.core.evolve import evolve
from qevo.core.generation import Rules, first_carry, scan_generations
from qevo.core.problem import Metrics, Problem
from qevo.core.space import Space

STEPS = 4  # sizes per decade
CALL = 10  # generations in a call, after each of which the answer is looked at
HUGE_POPULATION = 16  # candidates of the generation that is measured alone, two bytes a gene each
_FOREVER = 1 << 30
_ROWS = 120  # sums of as many bits fit an int8
_UNIFORMS = 12  # their sum is close to a normal number, of variance 1 in units of their range


class Settings(Protocol):
    """The settings that this part reads."""

    @property
    def scale_seconds(self) -> float: ...
    @property
    def huge(self) -> int: ...


@struct.dataclass
class NoisyOneMax(Problem):
    """Zeros plus noise of deviation sqrt(n) / 2, anew for each candidate in each generation.

    Noise is told apart by a hash of the bits: candidates with as many ones in every column of
    `_ROWS` rows have the same.
    """

    space: Space

    @classmethod
    def of(cls, size: int) -> NoisyOneMax:
        """With `_ROWS` to 10**8 bits."""
        if not _ROWS <= size <= 10**8:
            raise ValueError(f"the noise is made for {_ROWS} to 10**8 bits, got {size}")
        return cls(Space.integers(size, 0, 1, dtype=np.int8))

    def batch(self, key: jax.Array) -> jax.Array:
        """What a generation's noise hangs on: uint32 ``[]``."""
        return jax.random.bits(key, (), jnp.uint32)

    def fitness(self, solution: jax.Array, batch: jax.Array) -> jax.Array:
        """Zeros plus noise."""
        size, columns = self.space.size, self.space.size // _ROWS
        sums = jnp.sum(solution[: _ROWS * columns].reshape(_ROWS, columns), axis=0, dtype=jnp.int8)
        ones = jnp.sum(sums, dtype=jnp.int32) + count_ones(solution[_ROWS * columns :])
        key = jax.random.fold_in(jax.random.key(batch), hash_of(sums))
        return size - ones + normal(key, math.sqrt(size) / 2)

    def validation(self, solution: jax.Array) -> tuple[jax.Array, Metrics]:
        """Zeros, without noise."""
        return self.space.size - count_ones(solution), {}


def hash_of(sums: jax.Array) -> jax.Array:
    """A hash uint32 ``[]`` of small numbers int8 ``[n]``."""
    weights = jnp.arange(sums.shape[0], dtype=jnp.uint32) * np.uint32(2654435769)
    weights = (weights ^ (weights >> 15)) * np.uint32(2246822507)
    weights = weights ^ (weights >> 13)
    return jnp.sum(sums.astype(jnp.uint32) * weights, dtype=jnp.uint32)


def normal(key: jax.Array, deviation: float) -> jax.Array:
    """An integer int32 ``[]`` close to normal, in integers: the sum of twelve uniform ones.

    Args:
      key: PRNG key.
      deviation: standard deviation, at most 5,400.
    """
    draws = jax.random.bits(key, (_UNIFORMS,), jnp.uint16).astype(jnp.int32)
    around = jnp.sum(draws) - _UNIFORMS * 32768  # of deviation 2**16
    return (around * round(deviation) + 32768) >> 16


def measure(config: Settings, say: Callable[[str], Any]) -> dict[str, Any]:
    """One run for each size until the next is expected to take more time than is left."""
    rows: list[dict[str, Any]] = []
    began, step = time.monotonic(), 0
    while True:
        size = round(1000 * 10 ** (step / STEPS))
        left = config.scale_seconds - (time.monotonic() - began)
        if rows and expected(rows, size) > left:
            break
        say(f"noisy OneMax, {size:,} genes")
        rows.append(converge(size, max(left, 1.0)))
        if not rows[-1]["converged"]:
            break
        step += 1
    found: dict[str, Any] = {"rows": rows, "exponents": exponents(rows)}
    if config.huge:
        say(f"one generation of {config.huge:,} genes")
        huge = in_a_process(one_generation, config.huge) | extrapolated(rows, config.huge)
        found["huge"] = huge
        if "generations" in huge:
            huge["seconds_to_convergence"] = huge["generations"] * huge["seconds_per_generation"]
    return found


def converge(size: int, seconds: float) -> dict[str, Any]:
    """One run to the optimum, or until time is up."""
    problem = NoisyOneMax.of(size)
    result = evolve(
        EDA(problem.space, EDAConfig.noisy(size)),
        problem,
        0,
        generations=_FOREVER,
        validate_every=CALL,
        scan_length=CALL,
        keep_metrics=False,
        target=0,
        max_seconds=seconds,
        progress=False,
        devices=1,  # whose threads use all cores; several would each draw all candidates
    )
    state = result.carry.state
    return {
        "genes": size,
        "converged": result.fitness == 0,
        "zeros_left": result.fitness,
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "generations": result.generations,
        "evaluations": result.evaluations,
        "state_bytes_per_gene": sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / size,
    }


def expected(rows: list[dict[str, Any]], size: int) -> float:
    """Seconds for a size, by the growth between the last two; quadratic before there are two."""
    last = rows[-1]
    power = 2.0
    if len(rows) > 1:
        power = _power(rows[-2:], "seconds")
    return last["seconds"] * (size / last["genes"]) ** max(power, 1.0)


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """By which powers of the number of genes time and evaluations grow, by least squares."""
    done = [row for row in rows if row["converged"]]
    if len(done) < 2:
        return {}
    return {name: _power(done, name) for name in ("seconds", "evaluations")}


def _power(rows: list[dict[str, Any]], name: str) -> float:
    genes, values = (np.log([row[key] for row in rows]) for key in ("genes", name))
    return float(np.polyfit(genes, values, 1)[0])


def extrapolated(rows: list[dict[str, Any]], genes: int) -> dict[str, Any]:
    """Generations to convergence of a larger size, by the growth of evaluations; no measurement.

    As if so many candidates took as many evaluations as the 64 that the growth was measured with:
    `EDAConfig.noisy` moves a table as far for each.
    """
    power = exponents(rows).get("evaluations")
    if power is None:
        return {}
    last = [row for row in rows if row["converged"]][-1]
    evaluations = last["evaluations"] * (genes / last["genes"]) ** power
    return {"evaluations": evaluations, "generations": evaluations / HUGE_POPULATION}


def one_generation(genes: int) -> dict[str, Any]:
    """Seconds of a generation, the fastest of three, and the process's peak of memory."""
    problem = NoisyOneMax.of(genes)
    search = EDA(problem.space, EDAConfig.noisy(genes, HUGE_POPULATION))
    key, rules = jax.random.key(0), Rules(_FOREVER, validate_every=_FOREVER)
    carry = first_carry(search, problem, key)
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(carry.state))
    run = jax.jit(
        lambda problem, key, carry: scan_generations(
            search, problem, key, carry, length=1, rules=rules, chunk=1, mesh=None
        ),
        donate_argnums=2,
    )
    times = []
    for _ in range(4):
        began = time.perf_counter()
        carry, _ = jax.block_until_ready(run(problem, key, carry))
        times.append(time.perf_counter() - began)
    peak = peak_bytes()
    return {
        "genes": genes,
        "population": HUGE_POPULATION,
        "seconds_per_generation": min(times[1:]),
        "state_bytes_per_gene": state_bytes / genes,
        "peak_memory_bytes": peak,
        "peak_memory_bytes_per_gene": peak / genes,
    }


def table(found: dict[str, Any]) -> Table:
    """One line per size."""
    powers = "".join(f", {name} as n**{p:.2f}" for name, p in found["exponents"].items())
    shown = Table(title=f"Noisy OneMax, EDA{powers}", title_justify="left")
    columns = ("genes", "seconds", "evaluations", "zeros left", "state bytes/gene")
    for column in columns:
        shown.add_column(column, justify="right")
    for row in found["rows"]:
        shown.add_row(
            f"{row['genes']:,}",
            f"{row['seconds']:,.2f}",
            f"{row['evaluations']:,}",
            f"{row['zeros_left']:,}",
            f"{row['state_bytes_per_gene']:.1f}",
        )
    if huge := found.get("huge"):
        shown.caption = (
            f"{huge['genes']:,} genes: {huge['seconds_per_generation']:.2f} s a generation of "
            f"{huge['population']} candidates, "
            f"{huge['peak_memory_bytes_per_gene']:.1f} bytes of memory a gene at the peak"
        )
    return shown


def draw(path: pathlib.Path, found: dict[str, Any]) -> None:
    """Seconds and evaluations over the number of genes; nothing where no run converged."""
    rows = [row for row in found["rows"] if row["converged"]]
    if not rows:
        return
    genes = [row["genes"] for row in rows]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("seconds", "evaluations"), strict=True):
        axes.plot(genes, [row[name] for row in rows], marker="o", color="0.2")
        axes.set(xscale="log", yscale="log", xlabel="genes", title=name)
    figure.savefig(path, dpi=120)
