"""What a generation expects of an algorithm, checked as it is traced: a slip is named where it is.

Shapes and types alone, so that nothing of it is in the compiled program.
"""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from qevo.core.algorithm import Algorithm
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.errors import QevoError


def both(algorithm: Algorithm, method: str, returned: Any) -> tuple[Any, Any]:
    """The two things that a method returns.

    Raises:
      QevoError: it returns something else.
    """
    if not isinstance(returned, tuple) or len(returned) != 2:
        second = "the state" if method == "propose" else "metrics"
        first = "a proposal" if method == "propose" else "a state"
        raise QevoError(
            f"{type(algorithm).__name__}.{method}: must return {first} and {second}, got "
            f"{_kind(returned)}"
        )
    return returned


def check_context(algorithm: Algorithm, context: Any) -> None:
    """Refuse genes that are none of the space.

    Raises:
      QevoError: another type or shape than int8 ``[N]``.
    """
    size = algorithm.space.size
    if getattr(context, "shape", None) != (size,) or context.dtype != jnp.int8:
        raise QevoError(
            f"{type(algorithm).__name__}.context: genes must be int8[{size}], got {_kind(context)}"
        )


def check_proposal(algorithm: Algorithm, proposal: Any) -> None:
    """Refuse candidates that cannot be edits of the context.

    Raises:
      QevoError: no `Proposal`, or positions and values that do not fit each other, the population
        or the space.
    """

    def wrong(what: str) -> NoReturn:
        raise QevoError(f"{type(algorithm).__name__}.propose: {what}")

    if not isinstance(proposal, Proposal):
        wrong(f"candidates must be a qevo.core.Proposal, got {_kind(proposal)}")
    positions, values = proposal.positions, proposal.values
    if getattr(positions, "ndim", 0) != 2 or not jnp.issubdtype(positions.dtype, jnp.integer):
        wrong(f"positions must be integers [S, G], got {_kind(positions)}")
    if getattr(values, "ndim", 0) != 2 or values.dtype != jnp.int8:
        wrong(f"values must be int8 [P, G], got {_kind(values)}")
    (subgroups, width), (candidates, each) = positions.shape, values.shape
    size, population = algorithm.space.size, algorithm.population_size
    if candidates != population:
        wrong(f"{candidates} candidates where population_size is {population}")
    if not subgroups or population % subgroups:
        wrong(f"{subgroups} rows of positions do not divide {population} candidates")
    if each != (width or size):
        where = f"{width} positions" if width else f"whole candidates of {size} genes"
        wrong(f"{each} values a candidate for {where}")
    within = proposal.within
    if (proposal.place is None) != (within is None):
        wrong("place and within belong together: give both or neither")
    if within is not None and within.shape != positions.shape:
        wrong(f"within must have the shape of positions, {positions.shape}, got {within.shape}")


def check_state(algorithm: Algorithm, before: Any, after: Any) -> None:
    """Refuse a state of another structure, shape or type than the one it follows.

    Raises:
      QevoError: names the first array that differs.
    """
    name = f"{type(algorithm).__name__}.update"
    old, new = (jax.tree_util.tree_flatten_with_path(state) for state in (before, after))
    if old[1] != new[1]:
        raise QevoError(
            f"{name}: a state must keep its structure, {jax.tree.structure(before)}, got "
            f"{jax.tree.structure(after)}"
        )
    for (path, one), (_, other) in zip(old[0], new[0], strict=True):
        if _kind(one) != _kind(other):
            raise QevoError(
                f"{name}: state{jax.tree_util.keystr(path)} was {_kind(one)} and is "
                f"{_kind(other)}; a state must keep its shapes and types"
            )


def check_metrics(algorithm: Algorithm, metrics: Any, taken: Metrics) -> None:
    """Refuse metrics that are not int32 scalars, or have a name that a record uses itself.

    Raises:
      QevoError: names the first one.
    """
    name = f"{type(algorithm).__name__}.update"
    if not isinstance(metrics, dict):
        raise QevoError(f"{name}: metrics must be a dict, got {_kind(metrics)}")
    for key, value in metrics.items():
        if key in taken:
            raise QevoError(f"{name}: the metric {key!r} is one of qevo's own: choose another name")
        if _kind(value) != "int32[]":
            raise QevoError(f"{name}: the metric {key!r} must be int32 [], got {_kind(value)}")


def _kind(given: Any) -> str:
    """An array's type and shape, or a name for what is none."""
    if type(given) is int:
        return "int32[]"  # as JAX takes it
    if not hasattr(given, "dtype"):
        return type(given).__name__
    return f"{given.dtype}{list(given.shape)}"
