"""`qevo solve`: files in, the best solution and a verdict out."""

from __future__ import annotations

import gzip
import itertools
import pathlib

import pytest
import tiny

from qevo.errors import QevoError
from qevo.run.solving import SolveConfig, solve_file

RING = "5 5\n1 2 1\n2 3 1\n3 4 1\n4 5 1\n5 1 1\n"  # an odd ring: the best cut is 4
ITEMS = [(60, 10), (100, 20), (120, 30), (30, 7)]
CLAUSES = [[1, 2], [-1, 3], [-2, -3], [-1, -3]]


def knapsack(capacity: int) -> int:
    packings = itertools.product((0, 1), repeat=len(ITEMS))
    sums = [
        [sum(x * item[i] for x, item in zip(p, ITEMS, strict=True)) for i in (0, 1)]
        for p in packings
    ]
    return max(value for value, weight in sums if weight <= capacity)


def solve(file: pathlib.Path, **settings) -> int | None:
    output = file.with_suffix(".solution")
    return solve_file(SolveConfig(file, output=output, chains=2, **{"seconds": 0.5} | settings))


def test_a_cut_and_its_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ring.mc"
    file.write_text(RING)
    assert solve(file, best_known=4) == 4
    assert "the best known value of 4" in capsys.readouterr().out
    first, *sides = (tmp_path / "ring.solution").read_text().splitlines()
    assert first == "# cut 4"
    sides = [int(side) for side in sides]
    assert sum(a != b for a, b in itertools.pairwise([*sides, sides[0]])) == 4


def test_a_formula_in_the_words_of_the_sat_competitions(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "formula.cnf.gz"
    body = "".join(" ".join(map(str, [*clause, 0])) + "\n" for clause in CLAUSES)
    file.write_bytes(gzip.compress(f"p cnf 3 {len(CLAUSES)}\n{body}".encode()))
    assert solve(file) == 0
    lines = (tmp_path / "formula.cnf.solution").read_text().splitlines()
    assert lines[:2] == ["o 0", "s SATISFIABLE"]
    true = {int(word) for word in lines[2].split()[1:-1]}
    assert all(true & set(clause) for clause in CLAUSES)


def test_a_weighted_formula_that_cannot_be_satisfied(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "formula.wcnf"
    file.write_text("p wcnf 1 2\n3 1 0\n5 -1 0\n")
    assert solve(file) == 3
    lines = (tmp_path / "formula.solution").read_text().splitlines()
    assert lines == ["o 3", "s SATISFIABLE", "v -1 0"]


def test_a_weighted_formula_whose_cost_is_nothing(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "formula.wcnf"
    file.write_text("h 1 0\n5 1 2 0\n")
    assert solve(file) == 0
    lines = (tmp_path / "formula.solution").read_text().splitlines()
    assert lines[:2] == ["o 0", "s OPTIMUM FOUND"]


def test_violated_hard_clauses_are_counted_and_have_no_weight(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "formula.wcnf"
    file.write_text("p wcnf 2 5 9\n9 1 0\n9 -1 0\n2 2 0\n1 -2 0\n4 2 0\n")
    assert solve(file) is None
    assert "1 hard clause unsatisfied, soft weight 1 after" in capsys.readouterr().out
    head, status, values = (tmp_path / "formula.solution").read_text().splitlines()
    assert (head, status) == ("c 1 hard clause unsatisfied, soft weight 1", "s UNKNOWN")
    assert values in ("v 1 2 0", "v -1 2 0")


def test_a_knapsack_stops_at_its_optimum(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "items.txt"
    rows = "".join(f"{value} {weight}\n" for value, weight in ITEMS)
    file.write_text(f"{len(ITEMS)} 50\n{rows}")
    assert solve(file, kind="knapsack", seconds=60) == knapsack(50)


def test_qubo_both_ways_and_a_verdict(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.qubo"
    file.write_text("2 3\n1 1 -3\n2 2 4\n1 2 1\n")
    values = [-3 * x + 4 * y + x * y for x in (0, 1) for y in (0, 1)]
    assert solve(file, best_known=min(values)) == min(values)
    assert solve(file, maximise=True, best_known=max(values) + 2, method="tabu") == max(values)
    assert "2 short of the best known 6" in capsys.readouterr().out
    assert solve(file, maximise=True, best_known=max(values) - 2, method="annealing") == max(values)
    assert "better than the best known 2" in capsys.readouterr().out


def test_a_qubo_entry_for_two(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "pair.qubo"
    file.write_text("2 1\n1 2 3\n")
    assert solve(file, maximise=True, best_known=3) == 3
    assert solve(file, maximise=True, twice=True, best_known=6) == 6


def test_a_colouring(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ring.col"
    file.write_text("p edge 5 5\ne 1 2\ne 2 3\ne 3 4\ne 4 5\ne 5 1\n")
    assert solve(file, colors=3) == 0
    assert "s, a proper colouring" in capsys.readouterr().out
    assert solve(file, colors=2, seconds=1) == 1
    assert "s; 0 would be a proper colouring" in capsys.readouterr().out
    with pytest.raises(QevoError, match="needs --colors"):
        solve(file)


def test_what_cannot_be_solved_is_said(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "ring.mc"
    file.write_text(RING.replace("4 5 1", "4 five 1"))
    with pytest.raises(QevoError, match=r"ring\.mc, line 5"):
        solve(file)
    with pytest.raises(QevoError, match="give the kind"):
        solve(tmp_path / "something.dat")
    file.write_text(RING)
    with pytest.raises(QevoError, match="for cnf and wcnf"):
        solve(file, method="focused")
    with pytest.raises(QevoError, match="--seconds"):
        solve(file, seconds=0)


def test_the_command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring.mc").write_text(RING)
    words = "solve ring.mc --best-known 4 --chains 2 --seconds 5"
    assert tiny.exit_code(*words.split()) == 0
    assert (tmp_path / "ring.mc.solution").exists()
