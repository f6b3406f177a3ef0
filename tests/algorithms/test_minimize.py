"""One call for a plain function: what it returns, what it refuses, and functions outside JAX."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import on_devices

from qevo.algorithms import EDA, EDAConfig, Genetic, GeneticConfig, default_algorithm, minimize
from qevo.core import Leaf, Space
from qevo.errors import QevoError

quick = functools.partial(minimize, progress=False, devices=1)


def distance(solution: Any) -> jax.Array:
    return jnp.sum((solution["a"] - 5) ** 2) + jnp.abs(solution["b"] - 1037)


def test_a_pytree_of_integers_comes_back() -> None:
    low = {"a": np.zeros((3, 2), int), "b": 1000}
    result = quick(distance, Space.between(low, {"a": 9, "b": 1100}), target=0)
    assert (result.fitness, result.stopped) == (0, "target")
    assert result.evaluations == 64 * result.generations
    np.testing.assert_array_equal(result.solution["a"], np.full((3, 2), 5))
    assert int(result.solution["b"]) == 1037


@pytest.mark.parametrize(
    "algorithm",
    [EDA, lambda space: Genetic(space, GeneticConfig(population=32))],
    ids=["class", "function"],
)
def test_an_algorithm_may_be_made_for_the_space(algorithm: Callable[[Space], Any]) -> None:
    leaves = {"bits": Leaf((30,), 0, 1)}
    result = quick(
        lambda x: jnp.sum(x["bits"], dtype=jnp.int32) * -1,
        leaves,
        algorithm=algorithm,
        generations=80,
        target=-30,
    )
    assert result.fitness == -30


def test_the_default_crosses_plateaus_with_the_population_given() -> None:
    """Ten levels wide: no shift is as long, so only moves that gain nothing lead on."""
    space = Space.integers(3, 0, 99)

    def tens(levels: jax.Array) -> jax.Array:
        return -jnp.sum(levels.astype(jnp.int32) // 10)

    run = functools.partial(quick, tens, space, 3, generations=2000, target=-27)
    found = run(population=16)
    assert (found.fitness, found.stopped) == (-27, "target")
    assert found.evaluations == 16 * found.generations
    assert run(algorithm=default_algorithm(space, 16)).metrics == found.metrics


def test_the_seed_decides_and_a_folder_is_resumed(tmp_path: pathlib.Path) -> None:
    space = Space.integers(40, 0, 1)
    search = EDA(space, EDAConfig(16, 4))

    def ones(bits: jax.Array) -> jax.Array:
        return jnp.sum(bits, dtype=jnp.int32) * -1

    run = functools.partial(quick, ones, space, 3, algorithm=search)
    whole = run(generations=20)
    run(generations=10, folder=tmp_path)
    parts = run(generations=20, folder=tmp_path, resume=True)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, parts.carry, whole.carry))
    other = quick(ones, space, 4, algorithm=search, generations=20)
    assert other.metrics != whole.metrics


def untraceable(x: Any) -> int:
    return sum(abs(int(value) - 3) for value in x)


def wrapped(solution: Any) -> jax.Array:
    """As the error message says."""
    shape = jax.ShapeDtypeStruct((), jnp.int32)

    def call(solution: Any) -> np.int32:
        return np.int32(untraceable(jax.tree.map(np.asarray, solution)))

    return jax.pure_callback(call, shape, solution, vmap_method="sequential")


@pytest.mark.parametrize(
    "function",
    [
        untraceable,
        lambda x: 1 if x[0] > 3 else 0,
        lambda x: np.asarray(x).sum(),
        lambda x: [5, 6][x[0]],
        lambda x: x[x > 1].sum(),
    ],
    ids=["int", "if", "numpy", "index", "mask"],
)
def test_a_function_that_jax_cannot_trace_is_told_how(function: Callable[[Any], Any]) -> None:
    with pytest.raises(QevoError, match=r"jax\.pure_callback\(call, shape, solution"):
        quick(function, Space.integers(4, 0, 9))


def test_the_message_is_code_that_works() -> None:
    with pytest.raises(QevoError) as caught:
        quick(untraceable, Space.integers(4, 0, 9))
    lines = [line[4:] for line in str(caught.value).splitlines() if line.startswith("    ")]
    names: dict[str, Any] = {"jax": jax, "jnp": jnp, "np": np, "function": untraceable}
    exec("\n".join(lines), names)
    settings = {"generations": 30, "population": 8, "target": 0}
    result = quick(names["wrapped"], Space.integers(4, 0, 9), **settings)
    assert result.fitness == untraceable(np.asarray(result.solution)) == 0


SHARDED = """
import json
import jax
from test_minimize import quick, wrapped
from qevo.core import Space

assert len(jax.devices()) == 4
settings = {"generations": 8, "population": 8}
run = lambda devices: quick(wrapped, Space.integers(6, 0, 9), devices=devices, **settings)
print(json.dumps([run(devices).metrics for devices in (1, 4)]))
"""


def test_a_wrapped_function_is_shared_out_over_devices() -> None:
    one, four = json.loads(on_devices(4, SHARDED))
    assert one == four
    assert len(one) == 8


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sum(x) / 2, r"got float32\[\]: scale it .* jnp\.round\(1000 \* value\)"),
        (lambda x: jnp.float32(np.nan), "where it may be NaN or leave int32, say what that costs"),
        (lambda x: x, r"must be one integer \(and is minimised\), got int32\[4\]"),
        (lambda x: x[0] > 3, r"got bool\[\]"),
    ],
    ids=["float", "nan", "shape", "bool"],
)
def test_a_value_that_is_no_integer(function: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        quick(function, Space.integers(4, 0, 9))
    assert not any("pure_callback" in note for note in getattr(caught.value, "__notes__", []))


def test_an_error_of_the_function_is_passed_on_with_a_note() -> None:
    def broken(x: Any) -> Any:
        raise KeyError("colour")

    with pytest.raises(KeyError, match="colour") as caught:
        quick(broken, Space.integers(4, 0, 9))
    assert any("qevo.minimize traces the function" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (7, {}, r"every leaf of a space is a Leaf, .* give a Space \(Space.integers"),
        ([Leaf((2,), 4, 1)], {}, "0: gene 0 has its bounds reversed"),
        (Space.integers(4, 0, 1), {"algorithm": EDA, "population": 4}, "population is for the"),
    ],
)
def test_what_is_no_space(space: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        quick(jnp.sum, space, **settings)
