"""Long work on each row of a population, shared out over the devices that a run searches with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from qevo.core.generation import POPULATION_AXIS
from qevo.core.rows import map_rows


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

    def work(rows: Any) -> Any:
        if at_once == 1:
            return jax.lax.map(function, rows)
        return map_rows(jax.vmap(function), rows, at_once)

    mesh = jax.sharding.get_abstract_mesh()
    if POPULATION_AXIS not in mesh.manual_axes or mesh.shape[POPULATION_AXIS] == 1:
        return work(rows)
    devices = mesh.shape[POPULATION_AXIS]

    def mine(array: jax.Array) -> jax.Array:
        size = array.shape[0] // devices
        first = jax.lax.axis_index(POPULATION_AXIS) * size
        return jax.lax.dynamic_slice_in_dim(array, first, size)

    done = work(jax.tree.map(mine, rows))
    return jax.tree.map(lambda a: jax.lax.all_gather(a, POPULATION_AXIS, tiled=True), done)
