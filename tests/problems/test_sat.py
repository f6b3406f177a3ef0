"""SAT: DIMACS files in all dialects, weights and hard clauses, planted formulas."""

import lzma
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.problems import SAT, read_problem


def _fitness(problem: SAT, *bits: int) -> int:
    return int(problem.fitness(jnp.asarray(bits, jnp.int8), ()))


def test_cnf(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.cnf"
    path.write_text("c three clauses\np cnf 3 3\n1 -2\n3 0 -1 0\n2 -3 0\n%\n0\n")
    problem = SAT.read(path)
    assert (problem.space.size, problem.weight.shape[0]) == (3, 3)
    assert [_fitness(problem, 0, 1, 0), _fitness(problem, 0, 0, 0)] == [1, 0]
    assert [_fitness(problem, 1, 1, 1), _fitness(problem, 1, 0, 1)] == [1, 2]


OLD = "p wcnf 2 4 10\n10 1 2 0\n3 -1 0\n4 -2 0\n0 1 0\n"
NEW = "c of 2022\nh 1 2 0\n3 -1 0\n4 -2 0\n"


@pytest.mark.parametrize(("name", "text"), [("old.wcnf", OLD), ("new.wcnf.xz", NEW)])
def test_wcnf_with_a_hard_clause(tmp_path: pathlib.Path, name: str, text: str) -> None:
    path = tmp_path / name
    if name.endswith(".xz"):
        with lzma.open(path, "wt") as file:
            file.write(text)
    else:
        path.write_text(text)
    problem = read_problem(path)
    assert isinstance(problem, SAT)
    assert problem.hard_weight == 8  # more than both soft clauses together
    found = [_fitness(problem, *bits) for bits in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert found == [8, 3, 4, 7]
    hard = [int(problem.violated_hard(jnp.asarray(bits, jnp.int8))) for bits in ((0, 0), (1, 0))]
    assert hard == [1, 0]


def test_weights_without_a_top_are_soft(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "soft.wcnf"
    path.write_text("p wcnf 2 2\n7 1 0\n5 -1 2 0\n")
    problem = SAT.read(path)
    assert problem.hard_weight is None
    assert [_fitness(problem, 0, 0), _fitness(problem, 1, 0), _fitness(problem, 1, 1)] == [7, 5, 0]


def test_many_hard_clauses_weigh_as_much_as_fits() -> None:
    hard = [[1]] * 3000 + [[2]]
    problem = SAT.of(2, hard, [1] * 3000 + [300_000], [True] * 3000 + [False])
    assert problem.hard_weight == 300_001  # all soft ones together, and one more
    crowded = SAT.of(2, hard + [[2]] * 9, [1] * 3000 + [300_000] * 10, [True] * 3000 + [False] * 10)
    assert crowded.hard_weight is not None
    assert 300_000 < crowded.hard_weight < 10 * 300_000
    assert 0 < _fitness(crowded, 0, 0) < 2**30
    with pytest.raises(QevoError, match="3000 hard clauses have no room in int32"):
        SAT.of(2, hard, [1] * 3000 + [500_000_000], [True] * 3000 + [False])


MALFORMED = {
    "header": ("p cnf 3\n", "line 1: expected 'p cnf variables clauses' or 'p wcnf"),
    "outside": ("p cnf 2 1\n1 3 0\n", "line 2: literals are 1 to 2 or negative, got 3"),
    "word": ("p cnf 2 1\n1 x 0\n", "line 2: expected literals and a closing 0, got '1 x 0'"),
    "open": ("p cnf 2 1\n1 2\n", "line 2: the last clause has no closing 0"),
    "few": ("p cnf 2 2\n1 2 0\n", "the header promises 2 clauses, the file holds 1"),
    "many": ("p cnf 2 1\n1 0\n2 0\n", "line 3: the header promises 1 clauses, this is one more"),
    "bare": ("1 2\n", "line 1: expected literals and a closing 0, got no 0"),
    "negative": ("-4 1 0\n", "line 1: weights are at least 0, got -4"),
    "empty": ("c nothing\n", "expected clauses, got none"),
    "always": ("p cnf 2 1\n1 -1 0\n", "all clauses hold a literal and its opposite"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_formulas_name_the_line(tmp_path: pathlib.Path, name: str) -> None:
    text, message = MALFORMED[name]
    path = tmp_path / "a.cnf"
    path.write_text(text)
    with pytest.raises(QevoError, match=f"^{re.escape(str(path))}.*{message}"):
        SAT.read(path)


def test_one_clause_that_is_too_long_for_a_table_of_all_is_refused() -> None:
    clauses = [[1]] * 100_000 + [list(range(1, 50_001))]
    with pytest.raises(QevoError, match=r"100,001 clauses of up to 50,000 literals would take 111"):
        SAT.of(50_000, clauses)


def test_literals_of_clauses_in_python() -> None:
    with pytest.raises(QevoError, match=r"clause 1: literals are 1 to 2 or negative, got \[3\]"):
        SAT.of(2, [[1], [3]])
    with pytest.raises(QevoError, match="weights of soft clauses must be at least 1"):
        SAT.of(2, [[1]], [0])
    assert _fitness(SAT.of(2, [[], [1, 1, -2]]), 1, 0) == 1  # an empty clause is always violated


def test_a_planted_formula_hides_its_solution() -> None:
    problem = SAT.planted(jax.random.key(3), 400, 4000)
    assert problem.optimum == 0
    hidden = jax.random.bits(jax.random.split(jax.random.key(3))[0], (400,), jnp.uint8) & 1
    hidden = hidden.astype(jnp.int8)
    assert int(problem.fitness(hidden, ())) == 0
    variables = np.asarray(problem.variables)
    assert all(len(set(row)) == 3 for row in variables.tolist())
    # Of the clauses that agree with it in t of three literals, 3 q, 3 q**2 and q**3 are left: half
    # of all literals are true, so that no majority points to it.
    true = np.bincount(np.asarray(problem.true_literals(hidden)), minlength=4) / 4000
    q = (5**0.5 - 1) / 2
    expected = np.asarray([0, 3 * q, 3 * q**2, q**3]) / (3 * q + 3 * q**2 + q**3)
    assert np.abs(true - expected).max() < 0.03
    assert abs((true * np.arange(4)).sum() - 1.5) < 0.05
