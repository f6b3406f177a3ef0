"""A whole run as one pure function of its key, to compile and to map over seeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from qevo.core.algorithm import Algorithm
from qevo.core.generation import Carry, Rules, first_carry, last_look, run_generation
from qevo.core.problem import Problem
from qevo.core.setup import check_batch, check_setup


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

    Raises:
      QevoError: the setup cannot work.
    """
    rules = Rules(generations, validate_every, patience, target)
    check_setup(algorithm, problem, rules)
    check_batch(problem, key, algorithm.stages)
    carry = first_carry(algorithm, problem, key)
    carry = carry._replace(done=rules.done(carry.generation, carry.archive))

    def step(carry: Carry) -> Carry:
        chunk = problem.candidate_chunk
        return run_generation(algorithm, problem, key, carry, rules=rules, chunk=chunk, mesh=None)[
            0
        ]

    carry = jax.lax.while_loop(lambda carry: ~carry.done, step, carry)
    archive = last_look(algorithm, problem, carry, rules)
    return Found(
        problem.space.decode(archive.genes),
        archive.genes,
        archive.fitness,
        archive.generation,
        carry.generation,
    )
