"""Arrays in runs of rows, so that only one run's intermediate values are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_rows(function: Callable[[Any], Any], data: Any, length: int | None) -> Any:
    """``function`` of ``data``, ``length`` rows at a time.

    Args:
      function: from arrays with a leading axis of rows to arrays with as many rows, each of which
        depends on its own row of the input only.
      data: pytree of arrays ``[B, ...]``.
      length: rows at a time; all of them for ``None``.

    Returns:
      Pytree of arrays ``[B, ...]``.
    """
    whole, rest = _runs(data, length)
    if whole is None:
        return function(data)
    done = jax.lax.map(function, whole)
    done = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), done)
    if rest is None:
        return done
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), done, function(rest))


def map_each(function: Callable[[Any], Any], data: Any, at_once: int | None) -> Any:
    """``function`` of each row's arrays, ``at_once`` rows side by side; all for ``None``."""
    if at_once == 1:
        return jax.lax.map(function, data)
    return map_rows(jax.vmap(function), data, at_once)


def sum_over_rows(function: Callable[[Any], Any], data: Any, length: int | None) -> Any:
    """``function`` of ``data``, ``length`` rows at a time, summed.

    Integer sums do not depend on their order, so any length gives the same bits; a short one keeps
    a convolution's patches in the cache.

    Args:
      function: from arrays with a leading axis of rows to a pytree of int32 sums over them.
      data: pytree of arrays ``[B, ...]``.
      length: rows at a time; all of them for ``None``.
    """
    whole, rest = _runs(data, length)
    if whole is None:
        return function(data)

    def add(total: Any, run: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(run)), None

    if rest is None:
        shape = jax.eval_shape(function, jax.tree.map(lambda a: a[0], whole))
        first = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)
    else:
        first = function(rest)
    return jax.lax.scan(add, first, whole)[0]


def _runs(data: Any, length: int | None) -> tuple[Any, Any]:
    """``data`` as runs ``[B // length, length, ...]`` and the rows left over; ``None`` for none."""
    leaves = jax.tree.leaves(data)
    if length is None or not leaves or leaves[0].shape[0] <= length:
        return None, None
    count, left = divmod(leaves[0].shape[0], length)
    end = count * length
    whole = jax.tree.map(lambda a: a[:end].reshape(count, length, *a.shape[1:]), data)
    return whole, jax.tree.map(lambda a: a[end:], data) if left else None
