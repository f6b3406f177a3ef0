"""Shares of the devices that a run searches with, and long work on each row shared out to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from qevo.core.rows import map_each

POPULATION_AXIS = "population"
BATCH_AXIS = "batch"


def own_share(array: jax.Array, axis: str) -> jax.Array:
    """This device's rows of an array, which the devices along an axis of the mesh share out.

    It is called within `jax.shard_map`; the number of those devices divides that of the rows.
    """
    size = array.shape[0] // jax.lax.axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(axis) * size, size)


def spread(function: Callable[[Any], Any], rows: Any, at_once: int | None) -> Any:
    """``function`` of each row, some of them at a time.

    In a generation that `qevo.evolve` runs on several devices, each of them works on its share of
    the rows and all get the results. Neither the devices nor ``at_once`` change a bit of these.

    Args:
      function: from one row's arrays to a pytree of arrays.
      rows: pytree of arrays ``[P, ...]``; the devices divide P.
      at_once: how many to work on side by side; one after the other on a CPU, where a row in the
        cache is fastest, and all of them elsewhere for ``None``.

    Returns:
      Pytree of arrays ``[P, ...]``.
    """
    if at_once is None and jax.default_backend() == "cpu":
        at_once = 1
    mesh = jax.sharding.get_abstract_mesh()
    if POPULATION_AXIS not in mesh.manual_axes or mesh.shape[POPULATION_AXIS] == 1:
        return map_each(function, rows, at_once)
    done = map_each(function, jax.tree.map(lambda a: own_share(a, POPULATION_AXIS), rows), at_once)
    return jax.tree.map(lambda a: jax.lax.all_gather(a, POPULATION_AXIS, tiled=True), done)
