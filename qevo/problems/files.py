"""One function that reads any problem file that qevo knows."""

from __future__ import annotations

import pathlib
import re
from typing import Literal, get_args

from qevo.core.moves import MoveProblem
from qevo.errors import QevoError
from qevo.problems.coloring import Coloring
from qevo.problems.knapsack import Knapsack
from qevo.problems.maxcut import MaxCut
from qevo.problems.qubo import QUBO
from qevo.problems.sat import SAT

ProblemKind = Literal["maxcut", "qubo", "sat", "knapsack", "coloring"]

_SUFFIXES: dict[str, ProblemKind] = {
    **dict.fromkeys((".cnf", ".wcnf", ".dimacs"), "sat"),
    **dict.fromkeys((".mc", ".rud", ".rudy", ".gset", ".maxcut"), "maxcut"),
    **dict.fromkeys((".qubo", ".bqp", ".sparse"), "qubo"),
    **dict.fromkeys((".kp", ".knapsack"), "knapsack"),
    **dict.fromkeys((".col",), "coloring"),
}


def problem_kind(path: str | pathlib.Path) -> ProblemKind:
    """What kind of problem a file holds, by its name.

    .cnf, .wcnf; .mc, .rud, .gset, or G1, G2, ... with or without .txt; .qubo, .bqp, .sparse; .kp,
    .knapsack; .col. A last .gz or .xz does not count.

    Raises:
      QevoError: the name does not say; the formats themselves are too alike to tell.
    """
    name = pathlib.Path(path).name.lower()
    name = re.sub(r"\.(gz|xz)$", "", name)
    suffix = pathlib.Path(name).suffix
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if re.fullmatch(r"g\d+(\.txt)?", name):
        return "maxcut"
    raise QevoError(
        f"{path}: the name does not say what kind of problem it is; name the file "
        f"{', '.join(_SUFFIXES)} or give the kind: {', '.join(get_args(ProblemKind))}"
    )


def read_problem(
    path: str | pathlib.Path,
    kind: ProblemKind | None = None,
    *,
    colors: int | None = None,
    maximise: bool = False,
    twice: bool = False,
) -> MoveProblem:
    """The problem in a file.

    Args:
      path: the file, which may be packed (.gz, .xz).
      kind: of the problem; by default what `problem_kind` says.
      colors: how many colours a colouring has.
      maximise, twice: how to take the entries of a QUBO; see `QUBO.read`.

    Raises:
      QevoError: the kind is unknown or the file malformed; names the line.
    """
    kind = kind or problem_kind(path)
    if kind == "maxcut":
        return MaxCut.read(path)
    if kind == "qubo":
        return QUBO.read(path, maximise=maximise, twice=twice)
    if kind == "sat":
        return SAT.read(path)
    if kind == "knapsack":
        return Knapsack.read(path)
    if kind == "coloring":
        if colors is None:
            raise QevoError(f"{path}: a colouring needs the number of colours")
        return Coloring.read(path, colors)
    raise QevoError(f"kind must be one of {', '.join(get_args(ProblemKind))}, got {kind!r}")
