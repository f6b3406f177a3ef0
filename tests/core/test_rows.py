"""Runs of rows: any length gives the same bits, and no call sees more rows than that."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.core.rows import map_rows, sum_over_rows

ROWS = 7
LENGTHS = [None, 1, 2, 3, 6, 7, 8, 100]


def data() -> dict[str, Any]:
    draw = np.random.RandomState(0)
    images = draw.randint(-128, 128, (ROWS, 2, 3)).astype(np.int8)
    return {"images": jnp.asarray(images), "none": [], "labels": jnp.arange(ROWS)}


class Seen:
    """Wraps a function of rows and notes how many it got in each traced call."""

    def __init__(self, function: Any):
        self.function, self.rows = function, list[int]()

    def __call__(self, data: Any) -> Any:
        self.rows.append(len(data["labels"]))
        return self.function(data)


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_are_mapped(length: int | None) -> None:
    rows = data()

    def function(part: Any) -> Any:
        wide = part["images"].astype(jnp.int32)
        return [wide.sum((1, 2)) * part["labels"], (part["images"], ())]

    seen = Seen(function)
    found = jax.jit(lambda rows: map_rows(seen, rows, length))(rows)
    product = np.asarray(rows["images"], np.int32).sum((1, 2)) * np.arange(ROWS)
    assert found[0].dtype == jnp.int32
    assert found[1][0].dtype == jnp.int8
    np.testing.assert_array_equal(found[0], product)
    np.testing.assert_array_equal(found[1][0], rows["images"])
    assert set(seen.rows) <= {min(length or ROWS, ROWS), ROWS % (length or ROWS)}


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_are_summed(length: int | None) -> None:
    rows = data()

    def function(part: Any) -> Any:
        wide = part["images"].astype(jnp.int32) << 22  # sums wrap around, as int32 sums do
        return {"sum": wide.sum(0), "count": jnp.int32(len(part["labels"]))}

    seen = Seen(function)
    found = jax.jit(lambda rows: sum_over_rows(seen, rows, length))(rows)
    total = (np.asarray(rows["images"], np.int64) << 22).sum(0).astype(np.int32)
    assert found["sum"].dtype == found["count"].dtype == jnp.int32
    np.testing.assert_array_equal(found["sum"], total)
    assert int(found["count"]) == ROWS
    assert set(seen.rows) <= {min(length or ROWS, ROWS), ROWS % (length or ROWS)}


@pytest.mark.parametrize("length", [None, 1, 5])
@pytest.mark.parametrize("empty", [(), {"a": [], "b": None}])
def test_without_arrays_the_function_is_called_once(length: int | None, empty: Any) -> None:
    calls = []

    def function(part: Any) -> jax.Array:
        calls.append(part)
        return jnp.int32(len(calls))

    assert int(map_rows(function, empty, length)) == 1
    assert int(sum_over_rows(function, empty, length)) == 2
    assert calls == [empty, empty]


def test_a_batch_that_nothing_shares_stays_empty() -> None:
    rows = data()
    assert map_rows(lambda part: [], rows, 3) == []
    total = sum_over_rows(lambda pair: pair[0]["labels"].sum(), (rows, []), 3)
    assert int(total) == sum(range(ROWS))
