"""One generation, and a loop of them, as pure functions of integer state."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from qevo.core.algorithm import Algorithm
from qevo.core.contract import both, check_context, check_metrics, check_proposal, check_state
from qevo.core.problem import Metrics, Problem, int32_scalar
from qevo.core.proposal import Share, edit
from qevo.core.selection import staged_scores
from qevo.core.spread import BATCH_AXIS, POPULATION_AXIS, own_share

NOT_SEEN = -(2**31)  # a metric of a generation that did not look at validation data


@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides, by generation number alone, when a run looks at validation data and stops."""

    generations: int
    validate_every: int = 10
    patience: int | None = None
    target: int | None = None

    def done(self, generation: jax.Array, archive: Archive) -> jax.Array:
        """Whether a run is at its end, bool ``[]``."""
        done = generation >= self.generations
        if self.target is not None:
            done |= archive.fitness <= self.target
        if self.patience is not None:
            done |= generation - archive.generation >= self.patience
        return done


class Archive(NamedTuple):
    """The accepted solution."""

    genes: jax.Array  # int8 [N]
    fitness: jax.Array  # int32 [], by validation where the problem has one
    generation: jax.Array  # int32 [], when it was found


class Carry(NamedTuple):
    """Everything a run needs to go on; a checkpoint holds just this."""

    state: Any
    archive: Archive
    generation: jax.Array  # int32 [], generations done
    done: jax.Array  # bool [], stopped by target or patience


def first_carry(algorithm: Algorithm, problem: Problem, key: jax.Array) -> Carry:
    """The start of a run: the starting solution is the first one accepted."""
    # Copies, since a run takes over the carry's buffers: a state may hold the space's own arrays.
    state = jax.tree.map(jnp.array, algorithm.start(key))
    archive = Archive(jnp.array(algorithm.solution(state)), jnp.int32(0), jnp.int32(0))
    archive = archive._replace(fitness=jax.jit(accepted_fitness)(problem, archive, key))
    return Carry(state, archive, jnp.int32(0), jnp.bool_(False))


def accepted_fitness(problem: Problem, archive: Archive, key: jax.Array) -> jax.Array:
    """The fitness of the accepted solution, int32 ``[]``, on the data it was accepted by."""
    solution = problem.space.decode(archive.genes)
    validated = problem.validation(solution)
    if validated is not None:
        return int32_scalar(validated[0])
    drawn = _keys(key, archive.generation - 1)[0]
    batch_key = jnp.where(archive.generation == 0, key, drawn)  # the start has a draw of its own
    return problem.total(solution, problem.batch(batch_key))


def _keys(key: jax.Array, generation: jax.Array) -> jax.Array:
    """Of a generation, counted from 0: for its batch, its candidates and its update."""
    return jax.random.split(jax.random.fold_in(key, generation), 3)


def run_generation(
    algorithm: Algorithm,
    problem: Problem,
    key: jax.Array,
    carry: Carry,
    *,
    rules: Rules,
    chunk: int | None,
    mesh: Mesh | None,
) -> tuple[Carry, Metrics]:
    """Draw, score, learn, and accept by validation.

    Every random draw depends on ``key`` and the generation's number alone, so that neither the
    number of devices nor the way generations are grouped into calls changes a bit.
    """
    algorithm = algorithm.on(problem)
    keys = _keys(key, carry.generation)
    batch = problem.batch(keys[0])
    context = algorithm.context(carry.state)
    check_context(algorithm, context)
    proposal, state = both(algorithm, "propose", algorithm.propose(keys[1], carry.state))
    check_proposal(algorithm, proposal)
    score = functools.partial(_scores, problem, context, chunk=chunk, mesh=mesh)
    fitness = staged_scores(score, proposal.share, batch, algorithm.stages, algorithm.spared)
    learned = algorithm.update(keys[2], proposal, fitness, state)
    state, metrics = both(algorithm, "update", learned)
    check_state(algorithm, carry.state, state)

    generation = carry.generation + 1
    winner = jnp.argmin(fitness)
    if _validates(problem, carry.archive.genes):
        archive, seen = _accept_validated(
            algorithm, problem, carry.archive, state, generation, rules
        )
    else:
        row = proposal.positions[proposal.rows[winner]]
        candidate = edit(context, row, proposal.values[winner])
        archive, seen = _accept_best(carry.archive, candidate, fitness[winner], generation), {}
    scored = algorithm.stages[-1].candidates if algorithm.stages else fitness.shape[0]
    record = {
        "generation": generation,
        "best": fitness[winner],
        "median": jnp.sort(fitness)[scored // 2],
        "accepted": archive.fitness,
        **seen,
    }
    check_metrics(algorithm, metrics, record)
    record |= metrics
    return Carry(state, archive, generation, rules.done(generation, archive)), record


def last_look(algorithm: Algorithm, problem: Problem, carry: Carry, rules: Rules) -> Archive:
    """What is accepted, with a look at validation data where the run ended between two looks.

    It is for the result alone: the carry, and with it the checkpoint, does not know of it, so that
    a run which is extended equals one that was long from the start.
    """
    archive, genes = carry.archive, algorithm.solution(carry.state)
    seen = problem.validation(problem.space.decode(genes))
    if seen is None:
        return archive
    between = carry.generation % rules.validate_every != 0
    better = between & (seen[0] < archive.fitness)
    latest = Archive(genes, seen[0], carry.generation)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), latest, archive)


def scan_generations(
    algorithm: Algorithm,
    problem: Problem,
    key: jax.Array,
    carry: Carry,
    *,
    length: int,
    rules: Rules,
    chunk: int | None,
    mesh: Mesh | None,
) -> tuple[Carry, Metrics]:
    """``length`` generations in one call, or fewer once the run is done.

    Metrics are int32 ``[length]``, zeros (generation 0) from where it was done.

    Every device of a mesh does the whole generation but for the scores, of which each computes its
    share. All of it lies in one `jax.shard_map`: what the partitioner is free to place, it shares
    out too, at the price of many small messages in every generation. A loop that ends, in place of
    a scan of `jax.lax.cond`, leaves the state where it is: a branch would copy it twice.
    """

    def loop(problem: Problem, key: jax.Array, carry: Carry) -> tuple[Carry, Metrics]:
        def generation(carry: Carry) -> tuple[Carry, Metrics]:
            return run_generation(
                algorithm, problem, key, carry, rules=rules, chunk=chunk, mesh=mesh
            )

        def goes_on(so_far: tuple[jax.Array, Carry, Metrics]) -> jax.Array:
            step, carry, _ = so_far
            return (step < length) & ~carry.done

        def go_on(so_far: tuple[jax.Array, Carry, Metrics]) -> tuple[jax.Array, Carry, Metrics]:
            step, carry, records = so_far
            carry, record = generation(carry)
            records = jax.tree.map(lambda rows, one: rows.at[step].set(one), records, record)
            return step + 1, carry, records

        record = jax.eval_shape(generation, carry)[1]
        records = jax.tree.map(lambda one: jnp.zeros((length, *one.shape), one.dtype), record)
        return jax.lax.while_loop(goes_on, go_on, (jnp.int32(0), carry, records))[1:]

    if mesh is None:
        return loop(problem, key, carry)
    whole = PartitionSpec()
    everywhere = jax.shard_map(loop, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    return everywhere(problem, key, carry)


def _scores(
    problem: Problem,
    context: jax.Array,
    share: Share,
    batch: Any,
    *,
    chunk: int | None,
    mesh: Mesh | None,
) -> jax.Array:
    """Fitness int32 ``[P]``; candidates, and rows of the batch, are shared out over the mesh.

    Only scores travel back: sums over the rows, then one for each candidate.
    """
    if mesh is None:
        return problem.scores(context, share, batch, chunk=chunk)
    rows, values = (own_share(array, POPULATION_AXIS) for array in (share.rows, share.values))
    share = share._replace(rows=rows, values=values)
    if mesh.shape[BATCH_AXIS] == 1:
        local = problem.scores(context, share, batch, chunk=chunk)
    else:
        batch = jax.tree.map(lambda array: own_share(array, BATCH_AXIS), batch)
        local = jax.lax.psum(problem.scores(context, share, batch, chunk=chunk), BATCH_AXIS)
    return jax.lax.all_gather(local, POPULATION_AXIS, tiled=True)


def _validates(problem: Problem, genes: jax.Array) -> bool:
    decoded = jax.eval_shape(lambda p, g: p.validation(p.space.decode(g)), problem, genes)
    return decoded is not None


def _accept_validated(
    algorithm: Algorithm,
    problem: Problem,
    archive: Archive,
    state: Any,
    generation: jax.Array,
    rules: Rules,
) -> tuple[Archive, Metrics]:
    """Keep the algorithm's solution where it validates better than any before.

    Metrics of a generation that does not look at validation data hold `NOT_SEEN`.
    """
    genes = algorithm.solution(state)

    def look() -> tuple[jax.Array, Metrics]:
        seen = problem.validation(problem.space.decode(genes))
        assert seen is not None
        return seen

    def skip() -> tuple[jax.Array, Metrics]:
        return jax.tree.map(lambda a: jnp.full(a.shape, NOT_SEEN, a.dtype), jax.eval_shape(look))

    due = generation % rules.validate_every == 0
    validation, extra = jax.lax.cond(due, look, skip)
    better = due & (validation < archive.fitness)
    kept = Archive(
        jnp.where(better, genes, archive.genes),
        jnp.where(better, validation, archive.fitness),
        jnp.where(better, generation, archive.generation),
    )
    return kept, {"validation": validation, **extra}


def _accept_best(
    archive: Archive, candidate: jax.Array, fitness: jax.Array, generation: jax.Array
) -> Archive:
    """Keep the best candidate ever seen."""
    better = fitness < archive.fitness
    return Archive(
        jnp.where(better, candidate, archive.genes),
        jnp.minimum(fitness, archive.fitness),
        jnp.where(better, generation, archive.generation),
    )
