"""What no problem can be made of is refused by name, before anything is built from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.problems import NK, QUBO, SAT, Coloring, Knapsack, MaxCut
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
        ([[1, 2], [3, 0.5]], "got 0.5 in place 3: round or scale them"),
        ([1.0, np.nan], "got nan in place 1"),
        (np.inf, "got inf: round"),
        ([2.0**63], r"got 9.2\d*e\+18 in place 0"),
        ([np.uint64(2**63)], "got 9223372036854775808 in place 0"),
        ([2**70], "fit 64 bits: "),
        (["1"], "fit 64 bits: they are <U1"),
        ([1, None], "fit 64 bits: "),
        ([[1], [2, 3]], "fit 64 bits: "),
        (1j, "fit 64 bits: they are complex128"),
    ],
)
def test_other_numbers_are_no_integers(given: Any, message: str) -> None:
    with pytest.raises(QevoError, match=f"^numbers must be integers.*{message}"):
        integers("numbers", given)
    with pytest.raises(QevoError, match=r"a number must be one integer, got .* shape \[2\]"):
        integer("a number", [1, 2])


Make = Callable[[], Any]

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
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_fractions_are_not_cut_to_integers(name: str) -> None:
    make, what = FRACTIONS[name]
    with pytest.raises(QevoError, match=f"^{what} must be integers that fit 64 bits, got"):
        make()
