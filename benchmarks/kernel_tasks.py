"""The problems of the kernel's benchmark, and which of our algorithms are tried on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from qevo.algorithms import (
    EDA,
    Coevolution,
    EDAConfig,
    Genetic,
    GeneticConfig,
    RandomSearch,
    ShiftConfig,
    ShiftES,
    VoteES,
)
from qevo.algorithms.annealing import Annealing
from qevo.algorithms.focused import FocusedSearch
from qevo.algorithms.memetic import Memetic, MemeticConfig
from qevo.algorithms.tabu import TabuConfig, TabuSearch
from qevo.core.algorithm import Algorithm
from qevo.core.moves import MoveProblem
from qevo.core.problem import Problem
from qevo.problems.knapsack import Knapsack
from qevo.problems.maxcut import MaxCut
from qevo.problems.nk import NK
from qevo.problems.pbo import PBO
from qevo.problems.sat import SAT
from qevo.problems.traps import Trap

# Where genes matter together only with their neighbours, crossover of runs of genes does the rest.
NEIGHBOURS = TabuConfig(32, moves=1000), MemeticConfig("points", points=8, tournament=2, patience=6)
# Where a walk soon is as good as it gets, many short ones.
SHORT_WALKS = TabuConfig(128, moves=100), MemeticConfig("points", 16, tournament=2, patience=0)
# Many members, and nothing but crossover of runs of genes: what is good must be there at first.
RECOMBINATION = GeneticConfig(
    8192, tournament=1, crossed=1.0, crossover="points", points=20, mutated=0.0, slots=1
)
SOLVE = TabuConfig(), MemeticConfig()  # as `qevo solve` has it


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem with a known target.

    Attributes:
      title: what the table calls it.
      make: the instance of a seed.
      target: the fitness that counts as solved.
      chosen: the algorithm that gets all seeds and seconds: the one `docs/choosing.md` names.
      others: algorithms beside it.
      peers: whether the peers are run too.
    """

    title: str
    make: Callable[[int], Problem]
    target: Callable[[Problem], int]
    chosen: str
    others: tuple[str, ...] = ()
    peers: bool = True


def optimum(problem: Problem) -> int:
    """The least possible fitness."""
    assert problem.optimum is not None
    return problem.optimum


def within_1_percent(problem: Problem) -> int:
    """The worst fitness within 1 % of the optimum, which is negative."""
    return -((-99 * optimum(problem) + 99) // 100)


def best_known(problem: Problem) -> int:
    """The best known cut, as a fitness."""
    assert isinstance(problem, MaxCut)
    assert problem.best_known is not None
    return -problem.best_known


def memetic(problem: Problem, settings: tuple[TabuConfig, MemeticConfig]) -> Algorithm:
    """A pool improved by tabu search."""
    assert isinstance(problem, MoveProblem)
    walks, config = settings
    return Memetic(TabuSearch(problem, walks), config)


# The general algorithms have one setting for all problems, but for what their names say.
ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "shift": lambda problem: ShiftES(problem.space, ShiftConfig(slots=64, neutral=True)),
    "genetic, points": lambda problem: Genetic(problem.space, RECOMBINATION),
    "genetic, uniform": lambda problem: Genetic(problem.space, GeneticConfig(256)),
    "eda": lambda problem: EDA(problem.space, EDAConfig()),
    "coevolution": lambda problem: Coevolution(problem.space),
    "vote": lambda problem: VoteES(problem.space),
    "random": lambda problem: RandomSearch(problem.space),
    "annealing": Annealing,
    "tabu": TabuSearch,
    "memetic, uniform": lambda problem: memetic(problem, SOLVE),
    "memetic, points": lambda problem: memetic(problem, NEIGHBOURS),
    "memetic, short walks": lambda problem: memetic(problem, SHORT_WALKS),
    "focused": FocusedSearch,
}

WALKS = ("annealing", "tabu", "memetic, uniform", "memetic, points", "memetic, short walks")
WALKS += ("focused",)


def _cut(name: str, *, compared: bool) -> Task:
    return Task(
        f"max-cut {name}, best known cut",
        lambda seed: MaxCut.rudy(name),
        best_known,
        "memetic, uniform",
        ("shift", "genetic, uniform", "eda", "coevolution", "vote", "annealing", "tabu")
        if compared
        else (),
        peers=compared,
    )


TASKS: dict[str, Task] = {
    "trap": Task(
        "trap-5, n = 500, optimum",
        lambda seed: Trap.of(500),
        optimum,
        "memetic, short walks",
        ("shift", "genetic, points", "genetic, uniform", "eda", "annealing", "memetic, points"),
    ),
    "leading_ones": Task(
        "LeadingOnes, n = 500, optimum",
        lambda seed: PBO.of(2, 500),
        optimum,
        "shift",
        ("genetic, points", "genetic, uniform", "eda", "coevolution", "vote", "random"),
    ),
    "nk": Task(
        "adjacent NK, K = 5, n = 1,000, within 1 %",
        lambda seed: NK.random(jax.random.key(seed), 1000, 5),
        within_1_percent,
        "memetic, uniform",
        ("shift", "genetic, points", "annealing", "tabu", "memetic, points"),
    ),
    "knapsack": Task(
        "knapsack, n = 1,000, optimum",
        lambda seed: Knapsack.random(jax.random.key(seed), 1000),
        optimum,
        "memetic, uniform",
        ("shift", "genetic, uniform", "eda", "coevolution", "vote", "annealing", "tabu"),
    ),
    "sat": Task(
        "planted 3-SAT, n = 1,000, ratio 4.2, all clauses",
        lambda seed: SAT.planted(jax.random.key(seed), 1000, 4200),
        optimum,
        "focused",
        ("shift", "genetic, uniform", "annealing", "tabu", "memetic, uniform"),
    ),
    "g1": _cut("G1", compared=True),
    "g2": _cut("G2", compared=False),
    "g3": _cut("G3", compared=False),
    "g4": _cut("G4", compared=False),
}
