"""Crossover: which genes a child has from its second parent."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from qevo.core.random import coin_flips
from qevo.errors import QevoError

Crossover = Literal["uniform", "points"]


def check_crossover(kind: str, points: int) -> None:
    """
    Raises:
      QevoError: no such crossover, or no cut point.
    """
    if kind not in get_args(Crossover) or points < 1:
        raise QevoError(
            f"crossover must be one of {', '.join(get_args(Crossover))}, with at least 1 cut "
            f"point, got {kind!r} and {points}"
        )


def second_parents_genes(
    key: jax.Array, kind: Crossover, points: int, count: int, size: int
) -> jax.Array:
    """The genes that each child has from its second parent, bool ``[count, size]``.

    Args:
      key: of the draw.
      kind: "uniform" for a fair coin a gene; "points" for every second run of genes between cuts.
      points: cuts of a child, each drawn uniformly.
      count: children.
      size: genes of each, N.
    """
    if kind == "uniform":
        return coin_flips(key, count, size)
    cuts = jax.random.randint(key, (count, points), 0, size, jnp.int32)
    gene = jnp.arange(size, dtype=jnp.int32)
    second = jnp.zeros((count, size), bool)
    for point in range(points):
        second ^= gene >= cuts[:, point, None]
    return second
