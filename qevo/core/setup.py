"""What an algorithm and a problem must have in common, and a run's numbers: checked before it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer

from qevo.core.algorithm import Algorithm
from qevo.core.generation import Rules
from qevo.core.problem import Problem
from qevo.core.selection import Stage, check_stages
from qevo.core.space import INT32
from qevo.errors import QevoError


def check_setup(algorithm: Algorithm, problem: Problem, rules: Rules) -> None:
    """Refuse what cannot be searched; whether a batch can be shared, `check_batch` looks at.

    Raises:
      QevoError: no algorithm or problem, different spaces, stages or rules that cannot be.
    """
    if not isinstance(algorithm, Algorithm) or not isinstance(problem, Problem):
        raise QevoError(
            "a search takes an algorithm and then a problem, both of them objects, not "
            f"{_kind(algorithm)} and {_kind(problem)}"
        )
    if not isinstance(rules.generations, Tracer):
        check_int32(generations=rules.generations)
    check_counts(
        generations=rules.generations, validate_every=rules.validate_every, patience=rules.patience
    )
    if rules.target is not None and not isinstance(rules.target, Tracer):
        check_int32(target=rules.target)
    check_counts(candidate_chunk=problem.candidate_chunk, batch_chunk=problem.batch_chunk)
    ours, theirs = algorithm.space, problem.space
    if ours.layout != theirs.layout or ours.blocks != theirs.blocks:
        what = "blocks" if ours.layout == theirs.layout else "spaces"
        raise QevoError(f"the algorithm and the problem search different {what}")
    check_stages(algorithm.stages, algorithm.population_size, algorithm.spared)


def check_counts(**counts: int | None) -> None:
    """Refuse what is no integer from 1 to the largest int32; traced ones pass.

    Raises:
      QevoError: names the first one.
    """
    for name, value in counts.items():
        if value is None or isinstance(value, Tracer):
            continue
        check_int32(**{name: value})
        if value < 1:
            raise QevoError(f"{name} must be at least 1, got {value}")


def check_int32(**numbers: Any) -> None:
    """Refuse what is no int32.

    Raises:
      QevoError: names the first one.
    """
    for name, value in numbers.items():
        try:
            found = operator.index(value)
        except TypeError:
            raise QevoError(f"{name} must be an integer, got {value!r}") from None
        if not INT32.min <= found <= INT32.max:
            raise QevoError(f"{name} must fit int32, got {value}")


def check_batch(
    problem: Problem,
    key: jax.Array,
    stages: Sequence[Stage],
    devices: int = 1,
    batch_devices: int = 1,
) -> None:
    """Refuse to share a batch between stages or devices where it has no rows, or not as many.

    Raises:
      QevoError: what cannot be shared.
    """
    if batch_devices == 1 and not stages:
        return
    if batch_devices < 1 or devices % batch_devices:
        raise QevoError(f"{devices} devices cannot be in groups of {batch_devices} batch_devices")
    rows = {a.shape[:1] for a in jax.tree.leaves(jax.eval_shape(problem.batch, key))}
    if problem.batch_chunk is None or len(rows) != 1 or rows == {()}:
        raise QevoError(
            f"{type(problem).__name__}'s fitness is no sum over rows of its batch (batch_chunk is "
            "not set), so neither stages nor devices can share a batch"
        )
    ((count,),) = rows
    if stages and stages[-1].rows != count:
        raise QevoError(
            f"the last stage must be scored on the whole batch of {count} rows, not on "
            f"{stages[-1].rows}"
        )
    ends = [stage.rows for stage in stages] or [count]
    for end in ends:
        if end % batch_devices:
            raise QevoError(f"{batch_devices} devices cannot share {end} rows of a batch evenly")


def _kind(given: Any) -> str:
    """What was given, in words."""
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
