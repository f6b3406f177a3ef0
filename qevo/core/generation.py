"""One generation, and a scan of them, as pure functions of integer state."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from qevo.core.algorithm import WORST, Algorithm, Metrics
from qevo.core.problem import Problem
from qevo.core.proposal import edit

POPULATION_AXIS = "population"


@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides, by generation number alone, when a run looks at validation data and stops."""

    generations: int
    validate_every: int = 10
    patience: int | None = None
    target: int | None = None


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
    """The start of a run, with the starting solution validated where the problem can."""
    state = algorithm.start(key)
    genes = algorithm.solution(state)
    validated = jax.jit(lambda p, g: p.validation(p.space.decode(g)))(problem, genes)
    fitness = jnp.int32(WORST) if validated is None else validated
    archive = Archive(jnp.array(genes), fitness, jnp.int32(0))
    return Carry(state, archive, jnp.int32(0), jnp.bool_(False))


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
    keys = jax.random.split(jax.random.fold_in(key, carry.generation), 3)
    batch = problem.batch(keys[0])
    context = algorithm.context(carry.state)
    proposal, state = algorithm.propose(keys[1], carry.state)
    fitness = _scores(problem, context, proposal, batch, chunk=chunk, mesh=mesh)
    state, metrics = algorithm.update(keys[2], proposal, fitness, state)

    generation = carry.generation + 1
    winner = jnp.argmin(fitness)
    archive, validation = _accept(
        algorithm,
        problem,
        carry.archive,
        state,
        generation,
        rules,
        lambda: edit(context, proposal.positions[proposal.rows[winner]], proposal.values[winner]),
        fitness[winner],
    )
    done = generation >= rules.generations
    if rules.target is not None:
        done |= archive.fitness <= rules.target
    if rules.patience is not None:
        done |= generation - archive.generation >= rules.patience
    record = {
        "generation": generation,
        "best": fitness[winner],
        "median": jnp.sort(fitness)[fitness.shape[0] // 2],
        "accepted": archive.fitness,
        **({} if validation is None else {"validation": validation}),
        **metrics,
    }
    return Carry(state, archive, generation, done), record


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
    """``length`` generations in one call; metrics int32 ``[length]``, generation 0 where done."""

    def step(carry: Carry, _: None) -> tuple[Carry, Metrics]:
        def live(carry: Carry) -> tuple[Carry, Metrics]:
            return run_generation(
                algorithm, problem, key, carry, rules=rules, chunk=chunk, mesh=mesh
            )

        shapes = jax.eval_shape(lambda c: live(c)[1], carry)
        idle = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return jax.lax.cond(carry.done, lambda c: (c, idle), live, carry)

    return jax.lax.scan(step, carry, length=length)


def _scores(
    problem: Problem, context: Any, proposal: Any, batch: Any, *, chunk: int | None, mesh: Any
) -> jax.Array:
    """Fitness int32 ``[P]``, candidates shared out over the mesh; only scores travel back."""
    if mesh is None:
        return problem.scores(context, *_parts(proposal), batch, chunk=chunk)
    whole, split = PartitionSpec(), PartitionSpec(POPULATION_AXIS)

    def share(
        problem: Any, context: Any, positions: Any, rows: Any, values: Any, batch: Any
    ) -> Any:
        local = problem.scores(context, positions, rows, values, batch, chunk=chunk)
        return jax.lax.all_gather(local, POPULATION_AXIS, tiled=True)

    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(whole, whole, whole, split, split, whole),
        out_specs=whole,
        check_vma=False,
    )(problem, context, *_parts(proposal), batch)


def _parts(proposal: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    return proposal.positions, proposal.rows, proposal.values


def _accept(
    algorithm: Algorithm,
    problem: Problem,
    archive: Archive,
    state: Any,
    generation: jax.Array,
    rules: Rules,
    winner: Any,
    fitness: jax.Array,
) -> tuple[Archive, jax.Array | None]:
    """Keep the best validated solution, or without validation data the best candidate."""
    probe = jax.eval_shape(
        lambda p, g: p.validation(p.space.decode(g)), problem, algorithm.solution(state)
    )
    if probe is None:
        better = fitness < archive.fitness
        genes = jax.lax.cond(better, winner, lambda: archive.genes)
        return Archive(
            genes,
            jnp.minimum(fitness, archive.fitness),
            jnp.where(better, generation, archive.generation),
        ), None

    def validate() -> jax.Array:
        return problem.validation(problem.space.decode(algorithm.solution(state)))  # type: ignore[return-value]

    due = generation % rules.validate_every == 0
    validation = jax.lax.cond(due, validate, lambda: jnp.int32(WORST))
    better = validation < archive.fitness
    return Archive(
        jnp.where(better, algorithm.solution(state), archive.genes),
        jnp.minimum(validation, archive.fitness),
        jnp.where(better, generation, archive.generation),
    ), validation
