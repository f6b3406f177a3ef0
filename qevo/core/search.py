"""A whole run as one pure function of its key, to compile and to map over seeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qevo.core.algorithm import Algorithm
from qevo.core.generation import Archive, Carry, Rules, first_carry, run_generation
from qevo.core.problem import Problem


class Found(NamedTuple):
    """What a run found; with a leading axis of runs where it was mapped over them."""

    solution: Any  # the accepted solution, decoded
    genes: jax.Array  # int8 [N], the same as genes
    fitness: jax.Array  # int32 [], its fitness; by validation where the problem has one
    found: jax.Array  # int32 [], the generation that found it
    generations: jax.Array  # int32 [], generations done


def search(
    algorithm: Algorithm,
    problem: Problem,
    key: jax.Array,
    *,
    generations: int,
    target: int | None = None,
    patience: int | None = None,
    validate_every: int = 10,
) -> Found:
    """`qevo.evolve` without all that is not computation: no progress, checkpoint or devices.

    Pure, and the same bits as `evolve` with the same arguments: compile it with `jax.jit`, map it
    over keys with `jax.vmap`, or put it into a function of your own. Runs
    that are mapped over keys go on until the last one is done; each keeps what it found.

    Args:
      algorithm: what draws candidates and learns.
      problem: what scores them, `Problem.candidate_chunk` at a time.
      key: a PRNG key.
      generations: how many to run at most.
      target: stop once the accepted fitness is at most this.
      patience: stop after so many generations without an accepted improvement.
      validate_every: generations between looks at the problem's validation data, if any.
    """
    rules = Rules(generations, validate_every, patience, target)
    carry = first_carry(algorithm, problem, key)
    if target is not None:
        carry = carry._replace(done=carry.archive.fitness <= target)

    def step(carry: Carry) -> Carry:
        chunk = problem.candidate_chunk
        return run_generation(algorithm, problem, key, carry, rules=rules, chunk=chunk, mesh=None)[
            0
        ]

    carry = jax.lax.while_loop(lambda carry: ~carry.done, step, carry)
    archive = _last_look(algorithm, problem, carry, validate_every)
    return Found(
        problem.space.decode(archive.genes),
        archive.genes,
        archive.fitness,
        archive.generation,
        carry.generation,
    )


def _last_look(
    algorithm: Algorithm, problem: Problem, carry: Carry, validate_every: int
) -> Archive:
    """What is accepted, with a look at validation data where the run ended between two looks."""
    archive, genes = carry.archive, algorithm.solution(carry.state)
    seen = problem.validation(problem.space.decode(genes))
    if seen is None:
        return archive
    between = carry.generation % validate_every != 0
    better = between & (seen[0] < archive.fitness)
    latest = Archive(genes, seen[0], carry.generation)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), latest, archive)
