"""Integer least squares: how good, within which bounds, in what sense exact, what is refused."""

import dataclasses
import functools
import itertools
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from qevo.algorithms import Columns, ColumnSearch, evolve_columns, integer_columns, least_squares
from qevo.algorithms.least_squares import LIMIT, MAX_DEPTH
from qevo.errors import QevoError
from qevo.integer import audit

SHORT = ColumnSearch(generations=300)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A correlated quadratic form, its minimum in levels, and bounds; arrays are ``[K, C]``."""

    gram: np.ndarray
    target: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(
        cls, genes: int, columns: int, *, low: int = -1, high: int = 1, seed: int = 0
    ) -> "Problem":
        draw = np.random.RandomState(seed)
        inputs = draw.normal(size=(3 * genes, genes)) + 2 * draw.normal(size=(3 * genes, 1))
        shape = genes, columns
        return cls(
            inputs.T @ inputs / len(inputs),
            draw.normal(0, 0.8 * high, shape),
            np.full(shape, low),
            np.full(shape, high),
        )

    @property
    def nearest(self) -> np.ndarray:
        return np.clip(np.rint(self.target), self.low, self.high).astype(np.int64)

    def error(self, levels: np.ndarray) -> np.ndarray:
        residual = levels.astype(np.float64) - self.target
        return np.einsum("kc,kl,lc->c", residual, self.gram, residual)

    def columns(self, start: np.ndarray, **options: int) -> Columns:
        return integer_columns(
            start, self.target, self.gram, low=self.low, high=self.high, **options
        )

    def solve(
        self, start: np.ndarray, config: ColumnSearch = SHORT, *, seed: int = 0
    ) -> np.ndarray:
        return np.asarray(evolve_columns(jax.random.key(seed), self.columns(start), config)).T

    def descended(self, start: np.ndarray) -> np.ndarray:
        """Coordinate descent to its end: each level in turn to its best value."""
        levels = start.astype(np.float64)
        for _ in range(100):
            before = levels.copy()
            for row in range(len(levels)):
                slope = self.gram[row] @ (levels - self.target)
                best = np.rint(levels[row] - slope / self.gram[row, row])
                levels[row] = np.clip(best, self.low[row], self.high[row])
            if np.array_equal(levels, before):
                return levels.astype(np.int64)
        raise AssertionError("coordinate descent did not end")


@functools.cache
def moderate() -> tuple[Problem, np.ndarray, np.ndarray]:
    """A problem, where coordinate descent ends, and what the search makes of that."""
    problem = Problem.of(60, 12)
    start = problem.descended(problem.nearest)
    return problem, start, problem.solve(start)


def test_small_problems_are_solved() -> None:
    problem = Problem.of(7, 24)
    found = problem.solve(problem.nearest)
    every = np.array(list(itertools.product((-1, 0, 1), repeat=7)))
    residual = every[:, :, None] - problem.target
    best = np.einsum("nkc,kl,nlc->nc", residual, problem.gram, residual).min(0)
    error = problem.error(found)
    assert problem.error(problem.nearest).sum() > 2 * best.sum()
    assert np.all(error <= 1.02 * best + 1e-9)
    assert np.sum(error <= best + 1e-9) >= 22


def test_it_goes_on_where_coordinate_descent_ends() -> None:
    problem, start, found = moderate()
    before, after = problem.error(start), problem.error(found)
    assert np.all(after <= before)
    assert np.sum(after < before) > len(before) / 2
    assert after.sum() < 0.9 * before.sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_it_never_ends_worse_than_it_starts(seed: int) -> None:
    """From the nearest levels, and from whichever."""
    problem = Problem.of(60, 12, seed=seed)
    anywhere = np.random.RandomState(seed).randint(-1, 2, problem.target.shape)
    for start in (problem.nearest, anywhere):
        error = problem.error(problem.solve(start, seed=seed))
        assert np.all(error < problem.error(start))


def test_a_far_start_does_not_stop_it() -> None:
    """All of the int8 range away: the error falls by more than an int32 counts in its units."""
    genes = 60
    target = np.full((genes, 1), 80.0)
    problem = Problem(np.eye(genes), target, np.full((genes, 1), -128), np.full((genes, 1), 127))
    config = ColumnSearch(generations=9000, candidates=1, depth=2, tournament=1, threshold=0.0)
    found = problem.solve(problem.low, config)
    np.testing.assert_array_equal(found, target)


def test_levels_stay_within_bounds_of_their_own() -> None:
    draw = np.random.RandomState(2)
    base = Problem.of(40, 10, low=-6, high=6)
    low = draw.randint(-4, 2, base.target.shape)
    problem = dataclasses.replace(base, low=low, high=low + draw.randint(0, 3, low.shape))
    found = problem.solve(problem.nearest)
    assert np.all((found >= problem.low) & (found <= problem.high))
    assert np.any(found != problem.nearest)
    assert np.all(problem.error(found) <= problem.error(problem.nearest))


@pytest.mark.parametrize("side", [-1, 1])
def test_fixed_genes_stay_however_much_the_others_would_gain(side: int) -> None:
    """Most genes are fixed, so that they are drawn; deep mutations could pay for any first move."""
    genes = 24
    gram = np.ones((genes, genes)) + 0.01 * np.eye(genes)
    start = np.full((genes, 1), 2 * side)
    other = np.where(np.arange(genes)[:, None] < 8, -start, start)
    low, high = np.minimum(start, other), np.maximum(start, other)
    problem = Problem(gram, -1.0 * start, low, high)
    config = ColumnSearch(50, candidates=2, depth=MAX_DEPTH, tournament=1, threshold=64.0)
    found = problem.solve(start, config)
    assert np.all(found[8:] == 2 * side)
    assert np.all(np.abs(found) <= 2)
    assert problem.error(found) < problem.error(start)
    nothing = Problem(gram, start.astype(np.float64), start, start)
    np.testing.assert_array_equal(nothing.solve(start, config), start)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 20),
    genes=st.integers(1, 30),
    fraction_bits=st.integers(0, 10),
    spread=st.sampled_from([0.0, 0.1, 3.0, 100.0]),
)
def test_the_product_of_every_point_within_the_bounds_is_small(
    seed: int, genes: int, fraction_bits: int, spread: float
) -> None:
    draw = np.random.RandomState(seed)
    shape = genes, 3
    mixing = draw.normal(size=(genes, 2 * genes)) * 10.0 ** draw.randint(-4, 4)
    low = draw.randint(-8, 1, shape)
    high = low + draw.randint(0, 9, shape)
    levels = draw.randint(low, high + 1)
    target = np.round(draw.normal(0, spread, shape), 2)
    columns = integer_columns(
        levels,
        target,
        mixing @ mixing.T,
        low=low,
        high=high,
        fraction_bits=fraction_bits,
    )
    gram = np.asarray(columns.gram, object)
    step = int(columns.step)
    assert step == 1 << fraction_bits
    fixed = np.rint(target * step).astype(np.int64).astype(object)

    def product(point: np.ndarray) -> np.ndarray:
        return gram.dot(point.astype(object) * step - fixed)

    np.testing.assert_array_equal(columns.product, product(levels).T.astype(np.int64))
    corners = [np.where(draw.randint(0, 2, shape), low, high) for _ in range(4)]
    worst = [np.where((row > 0)[:, None], high, low) for row in np.asarray(columns.gram)[:4]]
    for point in [low, high, *corners, *worst, draw.randint(low, high + 1)]:
        assert abs(product(point)).max() <= LIMIT
    # What a level costs, twice over, is as small, so that its sum with a product fits an int32.
    assert (np.diag(gram) * step).max() <= 2 * LIMIT
    np.testing.assert_array_equal(gram, gram.T)


def test_the_product_and_the_error_are_kept_up_to_date() -> None:
    """In every generation: the product to the bit, the error up to what costs leave out."""
    problem, start, _ = moderate()
    config = ColumnSearch(generations=200, threshold=1.0)
    columns = problem.columns(start)
    curvature = jnp.diagonal(columns.gram) * (columns.step // 2)
    threshold = jnp.int32(curvature.mean()) >> 3
    step = functools.partial(
        least_squares._generation,
        low=columns.low[0],
        high=columns.high[0],
        columns=columns,
        curvature=curvature,
        threshold=threshold,
        config=config,
    )

    def watched(column: Any, given: Any) -> Any:
        column, _ = step(column, given)
        return column, column

    numbers = jnp.arange(config.generations, dtype=jnp.int32)
    keys = jax.random.split(jax.random.key(0), config.generations)
    levels = columns.levels[0]
    first = least_squares._Column(levels, columns.product[0], levels, jnp.int32(0))
    run = jax.jit(lambda first: jax.lax.scan(watched, first, (keys, numbers))[1])
    seen = jax.tree.map(lambda a: np.asarray(a, np.int64), run(first))

    gram, unit = np.asarray(columns.gram, np.int64), int(columns.step)
    fixed = np.rint(problem.target[:, 0] * unit).astype(np.int64)
    np.testing.assert_array_equal(seen.product, (seen.levels * unit - fixed) @ gram)

    def error(levels: np.ndarray) -> np.ndarray:
        residual = levels * unit - fixed
        return (residual * (residual @ gram)).sum(-1) / (2 * unit * 8)

    assert np.all(seen.above >= 0)
    assert np.any(seen.above > 0)
    assert len(np.unique(seen.levels, axis=0)) > 20
    moves = config.depth * np.arange(1, config.generations + 1)
    left_out = error(seen.levels) - error(seen.best) - seen.above
    assert np.all(np.abs(left_out) <= moves)
    assert moves[-1] < int(threshold) / 10  # nothing, compared with a level


@pytest.mark.parametrize("at_once", [1, 5])
def test_columns_do_not_depend_on_what_is_solved_beside_them(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of columns at work at once, and the first ones alone."""
    problem, start, expected = moderate()
    columns, key = problem.columns(start), jax.random.key(0)
    size = SHORT.candidates * len(start)
    monkeypatch.setattr(least_squares, "_CACHED", size * at_once)
    again = jax.jit(evolve_columns.__wrapped__, static_argnums=2)
    np.testing.assert_array_equal(again(key, columns, SHORT), expected.T)
    monkeypatch.undo()
    few = Columns(*(part[:at_once] for part in columns[:4]), *columns[4:])
    np.testing.assert_array_equal(evolve_columns(key, few, SHORT), expected.T[:at_once])


def test_the_unit_of_the_gram_matrix_does_not_matter() -> None:
    problem, start, _ = moderate()
    columns = problem.columns(start)
    for factor in (1e-9, 7.0, 1e12):
        scaled = dataclasses.replace(problem, gram=problem.gram * factor).columns(start)
        assert np.abs(scaled.gram - columns.gram).max() <= 1
    # The bound is reached: H has all the bits there are.
    fixed = np.rint(problem.target * 128)
    reach = np.maximum(np.abs(problem.low * 128 - fixed), np.abs(problem.high * 128 - fixed))
    assert (np.abs(np.asarray(columns.gram, np.float64)) @ reach).max() > 0.999 * LIMIT


def test_the_same_key_gives_the_same_levels() -> None:
    problem, start, expected = moderate()
    np.testing.assert_array_equal(problem.solve(start), expected)
    assert np.any(problem.solve(start, seed=1) != expected)


def test_without_a_threshold_every_step_is_downhill() -> None:
    problem, start, _ = moderate()
    greedy = problem.solve(start, ColumnSearch(generations=100, threshold=0.0, depth=3))
    assert problem.error(greedy).sum() < problem.error(start).sum()
    # Moves of one level find nothing where coordinate descent has ended.
    single = problem.solve(start, ColumnSearch(generations=100, threshold=0.0, depth=1))
    np.testing.assert_array_equal(single, start)


def test_it_holds_no_floats() -> None:
    problem, start, _ = moderate()

    def run(key: jax.Array, columns: Columns) -> jax.Array:
        return evolve_columns(key, columns, SHORT)

    key, columns = jax.random.key(0), problem.columns(start)
    assert audit(run, key, columns).integer_only
    assert all(jnp.issubdtype(part.dtype, jnp.integer) for part in columns)
    found = jax.eval_shape(run, key, columns)
    assert (found.shape, found.dtype) == ((12, 60), jnp.int8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generations": 0}, "generations must be 1 to 32768, got 0"),
        ({"candidates": 0}, "candidates must be 1 to 32768, got 0"),
        ({"tournament": -1}, "tournament must be 1 to 32768, got -1"),
        ({"depth": 0}, "depth must be 1 to 7, got 0"),
        ({"depth": 8}, "depth must be 1 to 7, got 8"),
        ({"threshold": -0.1}, r"threshold must be 0 to 64, got -0\.1"),
        ({"threshold": 65.0}, r"threshold must be 0 to 64, got 65\.0"),
        ({"threshold": float("nan")}, "threshold must be 0 to 64, got nan"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        ColumnSearch(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 1}, r"levels 0\.\.0 must lie within their bounds.*not 1\.\.1$"),
        ({"high": -1}, r"levels 0\.\.0 must lie within their bounds.*not -1\.\.-1$"),
        ({"low": -129}, r"these within int8, not -129\.\.1$"),
        ({"high": 128}, r"these within int8, not -1\.\.128$"),
        ({"target": 3e6}, r"targets up to 3e\+06 levels are too far out of range"),
    ],
)
def test_problems_that_cannot_be_brought_into_integers(
    changes: dict[str, float], message: str
) -> None:
    problem = Problem.of(3, 2)
    changed = {name: np.full((3, 2), value) for name, value in changes.items()}
    if "low" in changes:
        changed["high"] = np.maximum(problem.high, changed["low"])
    if "high" in changes:
        changed["low"] = np.minimum(problem.low, changed["high"])
    with pytest.raises(QevoError, match=message):
        dataclasses.replace(problem, **changed).columns(np.zeros((3, 2), np.int64))
