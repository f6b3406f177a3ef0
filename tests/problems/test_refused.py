"""What no problem can be made of is refused by name, before anything is built from it."""

from __future__ import annotations

import pathlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.problems import NK, QUBO, SAT, Coloring, Knapsack, MaxCut, Trap, read_problem
from qevo.problems.integers import integer, integers


def test_integers_keep_what_is_whole() -> None:
    for given in ([2.0, -3.0], jnp.asarray([2, -3], jnp.int8), np.asarray([2, -3], object)):
        found = integers("numbers", given)
        assert (found.dtype, found.tolist()) == (np.int64, [2, -3])
    assert integers("numbers", []).shape == (0,)
    assert integer("a number", np.float32(7)) == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1, 2], [3, 0.5]], "got 0.5 in place 3: round or scale"),
        ([1.0, np.nan], "got nan in place 1"),
        (np.inf, "got inf: round"),
        ([2.0**63], r"got 9.2\d*e\+18 in place 0"),
        ([2**31 - 1, 2**31], "got 2147483648 in place 1"),
        ([-(2**31), -(2**31) - 1], "got -2147483649 in place 1"),
        ([np.uint64(2**63)], "got 9223372036854775808 in place 0"),
        ([2**70], "fit int32: "),
        (["1"], "fit int32: got <U1"),
        ([1, None], "fit int32: "),
        ([[1], [2, 3]], "fit int32: "),
        (1j, "fit int32: got complex128"),
    ],
)
def test_other_numbers_are_no_integers(given: Any, message: str) -> None:
    with pytest.raises(QevoError, match=f"^numbers must be whole and .*{message}"):
        integers("numbers", given)
    with pytest.raises(QevoError, match=r"a number must be one integer, got .* shape \[2\]"):
        integer("a number", [1, 2])


Make = Callable[[], Any]
KEY = jax.random.key(0)

FRACTIONS: dict[str, tuple[Make, str]] = {
    "weights of a graph": (lambda: MaxCut.of(3, [0, 1], [1, 2], [0.5, 1.7]), "weights of edges"),
    "vertices": (lambda: MaxCut.of(3.5, [0], [1]), "the number of vertices"),  # pyright: ignore
    "ends": (lambda: MaxCut.of(3, [0.2], [1]), "the ends of edges"),
    "colours": (lambda: Coloring.of(3, [0], [1], 2.5), "the number of colours"),  # pyright: ignore
    "ends of a colouring": (lambda: Coloring.of(3, [0], [1.5], 3), "the ends of edges"),
    "coefficients": (lambda: QUBO.of(2, [0, 1], [1, 1], [0.9, -0.5]), "coefficients"),
    "indices": (lambda: QUBO.of(2, [0.5], [1], [1]), "indices"),
    "values": (lambda: Knapsack.of([1.5, 2], [1, 1], 2), "values of items"),
    "weights of items": (lambda: Knapsack.of([1, 2], [1, np.nan], 2), "weights of items"),
    "capacity": (lambda: Knapsack.of([1], [1], 1.5), "the capacity"),  # pyright: ignore
    "contributions": (lambda: NK.of(np.random.RandomState(0).rand(5, 4)), "contributions"),
    "weights of clauses": (lambda: SAT.of(1, [[1]], [1.5]), "weights of clauses"),  # pyright: ignore
    "literals": (lambda: SAT.of(2, [[1], [1.7]]), "literals"),  # pyright: ignore
    "planted": (lambda: SAT.planted(KEY, 10.5, 3), "the number of variables"),  # pyright: ignore
    "landscape": (lambda: NK.random(KEY, 9, 2.5), "K"),  # pyright: ignore
    "random items": (lambda: Knapsack.random(KEY, 9.5), "items"),  # pyright: ignore
    "bits": (lambda: Trap.of(10.5), "the number of bits"),  # pyright: ignore
    "vertices beyond int32": (lambda: MaxCut.of(3 * 10**9, [0], [1]), "the number of vertices"),
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_fractions_are_not_cut_to_integers(name: str) -> None:
    make, what = FRACTIONS[name]
    with pytest.raises(QevoError, match=f"^{what} must be whole and fit int32, got"):
        make()


MANY = 10**9

HUGE: dict[str, tuple[Make, str]] = {
    "vertices": (lambda: MaxCut.of(2 * MANY, [0], [1]), "the links of 2,000,000,000 genes"),
    "colouring": (lambda: Coloring.of(MANY, [0], [1], 3), "the links of 1,000,000,000 genes"),
    "qubo": (lambda: QUBO.of(MANY, [0, 1], [1, 1], [2, 3]), "the links of 1,000,000,000 genes"),
    "star": (
        lambda: MaxCut.of(100_000, [0] * 9999, range(1, 10_000)),
        "a gene has 9,999 links: lists as long for 100,000 genes",
    ),
    "variables": (lambda: SAT.of(MANY, [[1]]), "the occurrences of 1,000,000,000 variables"),
    "literal": (
        lambda: SAT.of(10**7, [[1, i] for i in range(2, 99)]),
        "a literal occurs 97 times: lists of occurrences as long for 10,000,000 variables",
    ),
    "planted": (lambda: SAT.planted(KEY, MANY, 3), "the occurrences of 1,000,000,000 variables"),
    "planted clauses": (lambda: SAT.planted(KEY, 9, MANY), "what 1,000,000,000 clauses are drawn"),
    "items": (lambda: Knapsack.random(KEY, MANY), "1,000,000,000 items"),
    "traps": (lambda: Trap.of(MANY), "1,000,000,000 bits"),
    "landscape": (
        lambda: NK.random(KEY, 81, 40),
        "the contributions of N = 81 and K = 40",
    ),
    "wide": (lambda: NK.random(KEY, 9999, 4999), "N = 9,999 and K = 4999"),
    "optimum": (
        lambda: NK.random(KEY, 40, 16, bits=8, solve=True),
        "the optimum of K = 16, which solve=False leaves out",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_memory_cannot_hold_is_refused_before_it_is_allocated(name: str) -> None:
    make, what = HUGE[name]
    tracemalloc.start()
    try:
        with pytest.raises(QevoError, match=rf"{what}.* would take .*; 2\.0 GiB is the limit"):
            make()
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


def test_a_short_file_cannot_ask_for_all_memory(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.cnf"
    path.write_text("p cnf 1000000000 1\n1 0\n")
    with pytest.raises(QevoError, match=r"a\.cnf: the occurrences of 1,000,000,000 variables"):
        read_problem(path)


def test_a_landscape_is_solved_unasked_where_that_takes_seconds() -> None:
    assert NK.random(KEY, 40, 16, bits=8).optimum is None
    assert NK.random(KEY, 20, 5, bits=8).optimum is not None
    assert NK.random(KEY, 20, 5, bits=8, solve=False).optimum is None


ODD: dict[str, tuple[Make, str]] = {
    "ends": (lambda: MaxCut.of(3, [0, 1], [1]), "the ends of edges come in pairs, got 2 and 1"),
    "ends of a colouring": (lambda: Coloring.of(3, [0], [1, 2], 3), "in pairs, got 1 and 2"),
    "edge weights": (
        lambda: MaxCut.of(3, [0, 1], [1, 2], [1, 2, 3]),
        "weights of edges must be one for all or 2, one each, got 3",
    ),
    "indices": (lambda: QUBO.of(3, [0, 1], [1], [1, 1]), "indices come in pairs, got 2 and 1"),
    "coefficients": (lambda: QUBO.of(3, [0, 1], [1, 1], []), "coefficients must be .*, got 0"),
    "clause weights": (
        lambda: SAT.of(2, [[1], [2]], [1]),
        "2 clauses, 1 weights and 2 marks of hard ones",
    ),
    "no list": (lambda: SAT.of(2, [1, 2]), "one of them is no list"),  # pyright: ignore
    "hard clauses": (lambda: SAT.of(2, [[1]], hard=[True] * 3), "1 clauses, 1 weights and 3 marks"),
    "no planted clauses": (lambda: SAT.planted(KEY, 10, 0), "and 1 clause, got 10 and 0"),
    "planted variables": (lambda: SAT.planted(KEY, 2, 5), "at least 3 variables.*got 2 and 5"),
    "a number": (lambda: NK.of(3), r"shape \[N, 2\*\*\(K \+ 1\)\], got \[\]"),
    "a column": (lambda: NK.of([[1], [2]]), r"got \[2, 1\]"),
    "nothing": (lambda: NK.of([[], []]), r"got \[2, 0\]"),
    "many bits": (lambda: NK.random(KEY, 9, 2, bits=33), "1 to 30 bits, got 33"),
    "no bits": (lambda: NK.random(KEY, 9, 2, bits=0), "1 to 30 bits, got 0"),
    "neighbours": (lambda: NK.random(KEY, 9, -1), "must be at least 0, got -1"),
    "short ring": (lambda: NK.random(KEY, 4, 2), "K = 2 needs N of at least 5, got 4"),
    "largest": (lambda: Knapsack.random(KEY, 9, largest=0), "largest 1 to 2147483646, got 9, 0"),
    "items": (lambda: Knapsack.random(KEY, 0), "items must be at least 1 .*, got 0, 1000"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_does_not_fit_together_is_said(name: str) -> None:
    make, message = ODD[name]
    with pytest.raises(QevoError, match=message):
        make()


FAR = 10**30

FILES = {  # numbers that int64 does not hold, or whose sums wrapped around in it
    "literal.wcnf": f"1 {FAR} 0\n",
    "variables.cnf": f"p cnf {FAR} 1\n1 0\n",
    "weight.mc": f"2 1\n1 2 {FAR}\n",
    "weights.mc": "2 4\n" + f"1 2 {2**62}\n" * 4,
    "index.qubo": f"{FAR} 1\n1 {FAR} 1\n",
    "twice.qubo": f"2 1\n1 2 {2**63}\n",
    "value.kp": f"1 1\n{FAR} 1\n",
    "weights.kp": "4 5\n" + f"1 {2**62}\n" * 4,
    "edge.col": f"p edge {FAR} 1\ne 1 {FAR}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_numbers_that_leave_all_widths_name_the_file(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    with pytest.raises(QevoError, match=rf"{name}: .*(must be whole and fit int32|would take)"):
        read_problem(tmp_path / name, colors=3)


def test_sums_of_contributions_do_not_wrap() -> None:
    with pytest.raises(QevoError, match="contributions must be whole and fit int32"):
        NK.of(np.full((16, 2), 2**60))
