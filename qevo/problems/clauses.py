"""Formulas in clauses: the DIMACS files, and lists of where each literal occurs."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

from qevo.errors import QevoError
from qevo.problems.limits import check_bytes
from qevo.problems.text import Lines


class Formula(NamedTuple):
    """Clauses over variables 1..N, as a file gives them."""

    variables: int  # N
    clauses: list[list[int]]  # literals, negative for negated ones
    weights: list[int]
    hard: list[bool]


def read_formula(path: str | pathlib.Path) -> Formula:
    """A DIMACS file: ``p cnf``, ``p wcnf``, or the MaxSAT Evaluation's format of 2022.

    A clause ends with 0 and may go over lines in the first two. After ``p wcnf N M [top]`` it
    begins with its weight; one of at least ``top`` is hard. Without a ``p`` line, each clause
    begins with its weight or with ``h`` where it is hard, and the variables are those that occur.

    Raises:
      QevoError: the file is malformed; names the line.
    """
    lines = Lines(path, ("c",))
    header: list[int] | None = None
    weighted, top = True, None
    formula = Formula(0, [], [], [])
    clause: list[int] = []  # the one being read; its first number is its weight where it has one
    strict = False
    for words in lines:
        if words[0] == "p" and header is None and not formula.clauses:
            kind, *sizes = words[1:] or [""]
            if kind not in ("cnf", "wcnf") or len(sizes) not in (2, 3 if kind == "wcnf" else 2):
                lines.fail("expected 'p cnf variables clauses' or 'p wcnf variables clauses top'")
            header = lines.integers(sizes, None, "sizes after 'p'")
            weighted, top = kind == "wcnf", header[2] if len(header) == 3 else None
            if header[0] < 1 or header[1] < 0:
                lines.fail(f"a formula has at least 1 variable and 0 clauses, got {header[:2]}")
            continue
        if words[0] == "%":  # how the files of SATLIB end
            break
        if words[0] == "h" and header is None and not clause:
            strict, words = True, ["1", *words[1:]]
        for number in lines.integers(words, None, "literals and a closing 0"):
            closes = number == 0 and not (weighted and not clause)
            if not closes:
                clause.append(number)
                literal = not weighted or len(clause) > 1
                if literal and header is not None and abs(number) > header[0]:
                    lines.fail(f"literals are 1 to {header[0]} or negative, got {number}")
                continue
            if header is not None and len(formula.clauses) == header[1]:
                lines.fail(f"the header promises {header[1]} clauses, this is one more")
            weight, literals = (clause[0], clause[1:]) if weighted else (1, clause)
            strict |= top is not None and weight >= top
            if weight < 0:
                lines.fail(f"weights are at least 0, got {weight}")
            if weight > 0:
                formula.clauses.append(literals)
                formula.weights.append(weight)
                formula.hard.append(strict)
            elif header is not None:
                header[1] -= 1  # weighs nothing
            clause, strict = [], False
        if clause and header is None:
            lines.fail("expected literals and a closing 0, got no 0 (or no 'p cnf' line above)")
    if clause:
        lines.fail("the last clause has no closing 0")
    if header is None:
        if not formula.clauses:
            raise QevoError(f"{path}: expected clauses, got none")
        most = max((abs(v) for c in formula.clauses for v in c), default=0)
        return formula._replace(variables=most)
    lines.ended(len(formula.clauses), header[1], "clauses")
    return formula._replace(variables=header[0])


def occurrences(size: int, variables: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Where each literal occurs, int32 ``[N, 2, D]`` with M for padding.

    Args:
      size: N.
      variables: ``[M, k]``, N for padding.
      positive: ``[M, k]``, 0 or 1.

    Raises:
      QevoError: the table would take too much memory.
    """
    clause, column = np.nonzero(variables < size)
    literal = 2 * variables[clause, column] + positive[clause, column]
    count = np.bincount(literal, minlength=2 * size)
    longest = max(int(count.max(initial=0)), 1)
    check_bytes(
        f"a literal occurs {longest:,} times: lists of occurrences as long for {size:,} variables",
        8 * size * longest,
    )
    order = np.argsort(literal, kind="stable")
    place = np.arange(literal.size) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((2 * size, longest), variables.shape[0], np.int32)
    table[literal[order], place] = clause[order]
    return table.reshape(size, 2, longest)
