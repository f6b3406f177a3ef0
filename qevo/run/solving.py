"""`qevo solve`: the best solution of a problem file that can be found in the time given."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tyro

from qevo.algorithms.annealing import Annealing, AnnealingConfig
from qevo.algorithms.focused import FocusedConfig, FocusedSearch
from qevo.algorithms.local_search import LocalSearch
from qevo.algorithms.memetic import Memetic
from qevo.algorithms.tabu import TabuConfig, TabuSearch
from qevo.core.algorithm import Algorithm
from qevo.core.evolve import evolve
from qevo.core.moves import FocusedProblem, MoveProblem
from qevo.core.writing import write_whole
from qevo.errors import QevoError
from qevo.problems.coloring import Coloring
from qevo.problems.files import ProblemKind, problem_kind, read_problem
from qevo.problems.knapsack import Knapsack
from qevo.problems.maxcut import MaxCut
from qevo.problems.qubo import QUBO
from qevo.problems.sat import SAT
from qevo.run.console import console, say

Method = Literal["memetic", "tabu", "annealing", "focused"]

_FOREVER = 1 << 30  # generations; the clock or the target ends a search


@dataclasses.dataclass(frozen=True)
class SolveConfig:
    """Solve a max-cut, QUBO, MaxSAT, knapsack or graph colouring file.

    Writes the best solution each time it improves, so that nothing is lost on the way, and says
    how it stands against a known optimum or --best-known.
    """

    file: tyro.conf.Positional[pathlib.Path]
    """The problem: a G-set graph, a sparse QUBO, a DIMACS cnf, wcnf or col, or a knapsack
    ("items capacity", then "value weight" lines); .gz and .xz are unpacked on the way."""
    kind: ProblemKind | None = None
    """What the file holds, where its name (.mc .qubo .cnf .wcnf .kp .col, G1) does not tell."""
    method: Method | None = None
    """How to search: by default focused for cnf without weights, else memetic: a pool of solutions,
    crossed, each child improved by tabu search."""
    seconds: float = 60.0
    """Time to search, compilation not counted."""
    best_known: int | None = None
    """Best value known, in the file's terms; the search stops there."""
    colors: int | None = None
    """Colours of a graph colouring."""
    maximise: bool = False
    """Maximise a QUBO."""
    twice: bool = False
    """An entry of a QUBO with i != j stands for both q_ij and q_ji, as in Beasley's OR-Library and
    the Biq Mac library."""
    chains: int = 16
    """Solutions at work side by side."""
    seed: int = 0
    """Of the search; with --seconds large enough for the target, the run repeats bit for bit."""
    output: pathlib.Path | None = None
    """Where the solution goes: by default to the file's name with .solution, in the current folder.
    One value a line, or the output format of SAT competitions and MaxSAT evaluations."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem, and how its fitness reads in the file's terms."""

    problem: MoveProblem
    unit: str  # of the value
    sign: int  # value = sign * fitness
    optimum: int | None  # in the file's terms, or the best known
    ideal: str = ""  # what the optimum is, where it may not exist
    method: Method = "memetic"

    def violated_hard(self, solution: Any, fitness: int) -> int:
        """How many hard clauses a solution violates: none where it costs less than one of them."""
        least = self.problem.hard_weight if isinstance(self.problem, SAT) else None
        if least is None or fitness < least:
            return 0
        assert isinstance(self.problem, SAT)
        return int(self.problem.violated_hard(solution))

    def value(self, fitness: int, violated_hard: int = 0) -> int:
        """A fitness in the file's terms, which give violated hard clauses no weight."""
        if violated_hard:
            assert isinstance(self.problem, SAT)
            assert self.problem.hard_weight is not None
            fitness -= violated_hard * self.problem.hard_weight
        return self.sign * fitness


def solve_file(config: SolveConfig) -> int | None:
    """Search, write the best solution as it improves, and print a verdict.

    Returns:
      Its value in the file's terms; None where it violates hard clauses, so that it is no solution.

    Raises:
      QevoError: as `problem_kind` and `read_problem`, or settings that do not fit.
    """
    if config.seconds <= 0 or config.chains < 1:
        raise QevoError(
            f"--seconds must be above 0 and --chains at least 1, got {config.seconds} and "
            f"{config.chains}"
        )
    began = time.monotonic()
    kind = config.kind or problem_kind(config.file)
    if kind == "coloring" and config.colors is None:
        raise QevoError("a graph colouring needs --colors, how many there are")
    task = task_of(
        read_problem(
            config.file, kind, colors=config.colors, maximise=config.maximise, twice=config.twice
        )
    )
    known = config.best_known if config.best_known is not None else task.optimum
    output = config.output or pathlib.Path(f"{config.file.name}.solution")
    method = config.method or task.method
    search = algorithm(task.problem, method, config.chains)
    console.print(
        f"{config.file}: {kind}, {task.problem.space.size:,} variables, read in "
        f"{time.monotonic() - began:.1f} s; {method}",
        markup=False,
        highlight=False,
    )
    written: list[int] = []

    def keep(solution: Any, fitness: int) -> None:
        write_whole(output, _text(task, solution, fitness).encode())
        written.append(fitness)

    result = evolve(
        search,
        task.problem,
        config.seed,
        generations=_FOREVER,
        target=None if known is None else task.sign * known,
        max_seconds=config.seconds,
        scan_length=1,
        keep_metrics=False,
        title=kind,
        accepted=keep,
    )
    if not written or written[-1] != result.fitness:
        keep(result.solution, result.fitness)
    violated = task.violated_hard(result.solution, result.fitness)
    value = task.value(result.fitness, violated)
    found = f"{task.unit} {value:,}"
    if violated:
        found, judged = f"{_unsatisfied(violated)}, soft weight {value:,}", ", not a solution"
    elif task.ideal and config.best_known is None:
        judged = f", {task.ideal}" if value == known else f"; {known} would be {task.ideal}"
    else:
        judged = verdict(task.sign, value, known)
    console.print(f"{found} after {result.seconds:.1f} s{judged}", highlight=False)
    say(f"wrote {output}")
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return None if violated else value


def task_of(problem: MoveProblem) -> Task:
    """How a problem's fitness reads in the terms of its file, and what searches it best."""
    if isinstance(problem, MaxCut):
        return Task(problem, "cut", -1, problem.best_known)
    if isinstance(problem, QUBO):
        return Task(problem, "value", -1 if problem.maximise else 1, None)
    if isinstance(problem, Knapsack):
        optimum = problem.optimum
        return Task(problem, "packed value", -1, None if optimum is None else -optimum)
    if isinstance(problem, Coloring):
        return Task(problem, "edges within a colour", 1, 0, "a proper colouring")
    assert isinstance(problem, SAT)
    if _weighted(problem):
        return Task(problem, "unsatisfied weight", 1, 0, "all satisfied")
    return Task(problem, "unsatisfied clauses", 1, 0, "all satisfied", "focused")


def algorithm(problem: MoveProblem, method: Method, chains: int) -> Algorithm:
    """A search by its name.

    Raises:
      QevoError: the problem has no violated constraints for a focused search to pick.
    """
    if method == "focused":
        if not isinstance(problem, FocusedProblem):
            raise QevoError("focused search picks a violated clause: it is for cnf and wcnf files")
        return FocusedSearch(problem, FocusedConfig(population=chains))
    make: dict[str, Callable[[], LocalSearch]] = {
        "tabu": lambda: TabuSearch(problem, TabuConfig(population=chains)),
        "annealing": lambda: Annealing(problem, AnnealingConfig(population=chains)),
    }
    if method == "memetic":
        return Memetic(make["tabu"]())
    return make[method]()


def verdict(sign: int, value: int, known: int | None) -> str:
    """How a value stands against the best known one, as the end of a sentence."""
    if known is None:
        return ""
    short = sign * (value - known)
    if short == 0:
        return f", the best known value of {known:,}"
    if short < 0:
        return f", better than the best known {known:,}"
    return f", {short:,} short of the best known {known:,}"


def _text(task: Task, solution: Any, fitness: int) -> str:
    genes = np.asarray(solution).reshape(-1)
    violated = task.violated_hard(solution, fitness)
    value = task.value(fitness, violated)
    if isinstance(task.problem, SAT):
        literals = np.where(genes == 1, 1, -1) * np.arange(1, genes.size + 1)
        values = f"v {' '.join(map(str, literals.tolist()))} 0"
        lines = [*_status(value, violated, weighted=_weighted(task.problem)), values]
    else:
        lines = [f"# {task.unit} {value}", *map(str, genes.tolist())]
    return "\n".join(lines) + "\n"


def _status(value: int, violated_hard: int, *, weighted: bool) -> list[str]:
    """What the competitions' formats say of a solution: SAT's, or the MaxSAT Evaluation's.

    There, SATISFIABLE means that all hard clauses are satisfied, and only then there is a cost.
    """
    if violated_hard:
        return [f"c {_unsatisfied(violated_hard)}, soft weight {value}", "s UNKNOWN"]
    if weighted:
        return [f"o {value}", "s SATISFIABLE" if value else "s OPTIMUM FOUND"]
    return [f"o {value}", "s UNKNOWN" if value else "s SATISFIABLE"]


def _unsatisfied(hard: int) -> str:
    return f"{hard:,} hard {'clause' if hard == 1 else 'clauses'} unsatisfied"


def _weighted(problem: SAT) -> bool:
    """Whether clauses have weights, or some are hard."""
    return problem.hard_weight is not None or bool(np.any(np.asarray(problem.weight) != 1))
