"""`evolve`: run a search, on all devices of all hosts, with progress, checkpoints and resume."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import operator
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from qevo.core import hosts
from qevo.core.algorithm import Algorithm
from qevo.core.devices import Device, check_memory, choose_devices, own_devices, peak_memory
from qevo.core.folder import RunFolder
from qevo.core.generation import (
    NOT_SEEN,
    Carry,
    Rules,
    accepted_fitness,
    first_carry,
    last_look,
)
from qevo.core.interruption import Interruption, interruptible
from qevo.core.problem import Problem
from qevo.core.program import compile_generations, placement
from qevo.core.progress import ProgressReport, Words
from qevo.core.random import key_of
from qevo.core.setup import check_batch, check_counts, check_setup
from qevo.core.space import Space
from qevo.errors import QevoError

Stopped = Literal["generations", "target", "patience", "time", "interrupted"]


_GO_ON, _TIME_IS_UP, _INTERRUPTED = range(3)  # what a process wishes; the largest wish counts


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run."""

    solution: Any  # the accepted solution, decoded
    genes: jax.Array  # int8 [N], the same as genes
    fitness: int  # its fitness; by validation where the problem has one
    found: int  # the generation that found it
    generations: int  # generations done, earlier sessions of a resumed run included
    evaluations: int  # candidates scored
    seconds: float  # wall time, earlier sessions included, compilation not
    compile_seconds: float  # of this session; 0 where nothing was left to do
    compile_cached: bool  # whether the program came from JAX's persistent cache
    peak_memory_bytes: int | None  # of the fullest device here, or of the process; so far
    stopped: Stopped  # "interrupted" if asked to, even where the run had just come to its end
    metrics: list[dict[str, int]]  # one record per generation of this session, if kept
    carry: Carry  # the final state


def evolve(
    algorithm: Algorithm,
    problem: Problem,
    seed: jax.Array | int,
    *,
    generations: int,
    validate_every: int = 10,
    patience: int | None = None,
    target: int | None = None,
    max_seconds: float | None = None,
    scan_length: int = 10,
    candidate_chunk: int | None = None,
    devices: Sequence[Device] | int | str | None = None,
    batch_devices: int = 1,
    folder: str | pathlib.Path | None = None,
    checkpoint_generations: int | None = None,
    checkpoint_seconds: float = 30.0,
    resume: bool = False,
    keep_metrics: bool = True,
    progress: bool = True,
    title: str = "evolve",
    words: Words | None = None,
    callback: Callable[[dict[str, int]], None] | None = None,
    accepted: Callable[[Any, int], None] | None = None,
) -> Result:
    """Search for the solution of least fitness.

    The result depends on the algorithm, the problem, the seed and the generations alone: the same
    bits come out on any number of devices, with any ``scan_length`` and ``candidate_chunk``, and
    after any number of interruptions. Several processes (`qevo.core.hosts`) call it with the same
    arguments and search together; the folder is process 0's, and any of them may end the session.

    Args:
      algorithm: what draws candidates and learns.
      problem: what scores them.
      seed: a seed, or a PRNG key.
      generations: how many to run in all; a finished run is extended by resuming it with more.
      validate_every: generations between looks at the problem's validation data. A run that ends
        between two looks once more, for its result alone: what follows if it is extended does not
        depend on where it ended before.
      patience: stop after so many generations without an accepted improvement.
      target: stop once the accepted fitness is at most this.
      max_seconds: stop this session after so much wall time; resume goes on.
      scan_length: generations per compiled call.
      candidate_chunk: candidates in memory at once; the problem's own choice by default.
      devices: how many, which, or of what kind ("cpu", "gpu", "tpu"); by default as many of
        the default kind as can share out the population, and each of the algorithm's stages.
      batch_devices: how many of them share the rows of each candidate's batch, for a population
        smaller than the number of devices or a batch too large for one; by default each has whole
        candidates.
      folder: where to keep the checkpoint and one JSON line of metrics per generation.
      checkpoint_generations, checkpoint_seconds: how often to checkpoint; whichever comes first.
      resume: continue what is in ``folder``.
      keep_metrics: whether `Result.metrics` holds a record of each generation, some 500 bytes.
      progress: show progress on standard error.
      title: what to call the run there.
      words: what to say there of the records so far, each number the latest that there was, in
        place of the best fitness; ``None`` where it has nothing to say.
      callback: called with each generation's record, in order; in every process.
      accepted: called with the accepted solution, decoded, and its fitness, after each compiled
        call that accepted a better one; in every process.

    Returns:
      The accepted solution and how the run went.

    Raises:
      QevoError: the setup cannot work, does not fit into memory, or differs from the checkpoint's
        or another process's.
    """
    key = key_of(seed)
    rules = Rules(generations, validate_every, patience, target)
    check_setup(algorithm, problem, rules)
    check_counts(
        scan_length=scan_length,
        candidate_chunk=candidate_chunk,
        checkpoint_generations=checkpoint_generations,
    )
    if resume and folder is None:
        raise QevoError("resume needs the folder of the run")
    chunk = candidate_chunk if candidate_chunk is not None else problem.candidate_chunk
    stages = algorithm.stages
    shares = math.gcd(algorithm.population_size, *(stage.candidates for stage in stages))
    chosen = choose_devices(devices, shares, max(batch_devices, 1))
    check_batch(problem, key, stages, len(chosen), batch_devices)
    mesh, place = placement(chosen, batch_devices)
    own = own_devices(chosen)
    fingerprint = _fingerprint(algorithm, problem, key, rules)
    hosts.check_same(
        fingerprint
        | {"generations": generations, "scan_length": scan_length, "candidate_chunk": chunk}
        | {"devices": [str(device) for device in chosen], "resume": resume}
        | {"batch_devices": batch_devices, "folder": folder is not None}
    )

    problem, key = jax.device_put((problem, key), own[0])
    run = None
    if folder is not None:
        run = RunFolder(
            pathlib.Path(folder),
            fingerprint,
            generations=checkpoint_generations,
            seconds=checkpoint_seconds,
        )
    carry, spent = _begin(run, algorithm, problem, key, resume)
    run = run if hosts.is_first() else None
    # A run that is done goes on with more generations.
    carry = carry._replace(done=np.asarray(rules.done(carry.generation, carry.archive)))
    shared, shared_key, carry = hosts.replicate((problem, key, carry), place)
    program = None
    if not carry.done:
        program = compile_generations(
            algorithm,
            shared,
            shared_key,
            carry,
            length=scan_length,
            rules=rules,
            chunk=chunk,
            mesh=mesh,
            place=place,
        )
        check_memory(program.compiled, own[0], algorithm.population_size, chunk)
    audience = _Audience(
        callback, accepted, problem.space, int(carry.archive.fitness), [] if keep_metrics else None
    )
    hosts.agreed(_GO_ON)  # the search begins when all have compiled
    if run and not resume:
        run.save(carry, spent)
    report = ProgressReport(
        generations,
        int(carry.generation),
        title=title,
        enabled=progress and hosts.is_first(),
        limit=max_seconds,
        words=words,
    )
    call = program and functools.partial(program.compiled, shared, shared_key)
    carry, seconds, interrupted = _search(call, carry, run, spent, max_seconds, report, audience)
    archive = carry.archive
    if not interrupted and int(carry.generation) % validate_every:
        look = jax.jit(functools.partial(last_look, algorithm, rules=rules))
        archive = look(problem, jax.device_put(carry, own[0]))
    archive = jax.device_put(archive, own[0])  # where the space's arrays are
    return Result(
        solution=problem.space.decode(archive.genes),
        genes=archive.genes,
        fitness=int(archive.fitness),
        found=int(archive.generation),
        generations=int(carry.generation),
        evaluations=int(carry.generation) * algorithm.population_size,
        seconds=seconds,
        compile_seconds=program.seconds if program else 0.0,
        compile_cached=program.cached if program else False,
        peak_memory_bytes=peak_memory(own),
        stopped="interrupted" if interrupted else _stopped(carry, rules),
        metrics=audience.metrics or [],
        carry=carry,
    )


@dataclasses.dataclass
class _Audience:
    """Who is told of a search as it goes, in every process."""

    callback: Callable[[dict[str, int]], None] | None
    accepted: Callable[[Any, int], None] | None
    space: Space
    best: int  # the accepted fitness that `accepted` knows of
    metrics: list[dict[str, int]] | None  # all records; None where they are not kept

    def hear(self, carry: Carry, records: list[dict[str, int]]) -> None:
        """Pass on a call's records, and its accepted solution where it is a better one."""
        if self.callback:
            for record in records:
                self.callback(record)
        if self.metrics is not None:
            self.metrics += records
        if self.accepted and int(carry.archive.fitness) < self.best:
            self.best = int(carry.archive.fitness)
            self.accepted(self.space.decode(hosts.local(carry).archive.genes), self.best)


def _search(
    call: Callable[[Carry], Any] | None,
    carry: Carry,
    run: RunFolder | None,
    spent: float,
    max_seconds: float | None,
    report: ProgressReport,
    audience: _Audience,
) -> tuple[Carry, float, bool]:
    """Call until the run is done, time is up or someone interrupts; ``None`` calls nothing.

    Returns:
      The carry, here; seconds, earlier sessions included; whether it was interrupted.
    """
    began = time.monotonic()
    with interruptible() as interruption, report as show:
        while call and not carry.done:
            carry, stacked = call(carry)
            records = _records(stacked)
            audience.hear(carry, records)
            seconds = time.monotonic() - began
            if run:
                run.note(carry, records, spent + seconds)
            show(int(carry.generation), functools.reduce(operator.or_, records))
            if hosts.agreed(_wish(interruption, max_seconds, seconds)) != _GO_ON:
                break
        seconds = spent + time.monotonic() - began
        if run:
            run.save(carry, seconds)
        # Nobody leaves before the checkpoint is there, nor for another reason than the others.
        interrupted = hosts.agreed(_wish(interruption)) == _INTERRUPTED
    return hosts.local(carry), seconds, interrupted


def _fingerprint(
    algorithm: Algorithm, problem: Problem, key: jax.Array, rules: Rules
) -> dict[str, Any]:
    """Everything that decides the result, save the number of generations."""
    space = hashlib.sha256()
    for array in jax.tree.leaves(algorithm.space):
        space.update(np.asarray(array).tobytes())
    return {
        "algorithm": algorithm.describe(),
        "problem": problem.describe(),
        "space": f"{algorithm.space.size} genes, sha256 {space.hexdigest()}",
        "blocks": [[list(block.leaves), block.channels] for block in algorithm.space.blocks],
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_implementation": str(jax.random.key_impl(key)),
        "rules": {
            "validate_every": rules.validate_every,
            "patience": rules.patience,
            "target": rules.target,
        },
    }


def _begin(
    run: RunFolder | None, algorithm: Algorithm, problem: Problem, key: jax.Array, resume: bool
) -> tuple[Carry, float]:
    """The state to go on from, and the seconds that led there; process 0 reads the folder."""
    if run and resume:
        shapes = jax.eval_shape(lambda k: first_carry(algorithm, problem, k), key)

        def read() -> tuple[list[jax.Array], float]:
            carry, spent = run.load(shapes)
            then = int(carry.archive.fitness)
            now = int(jax.jit(accepted_fitness)(problem, carry.archive, key))
            if now != then:
                raise QevoError(
                    f"the solution in {run.path} had a fitness of {then}, and has {now} now: the "
                    "function or its data is another one; choose another folder (nothing was "
                    "changed)"
                )
            run.rewind()
            return jax.tree.leaves(carry), spent

        leaves, spent = hosts.from_first(read)
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves), spent
    if run:
        hosts.from_first(run.check_unused)
    return first_carry(algorithm, problem, key), 0.0


def _wish(
    interruption: Interruption, max_seconds: float | None = None, seconds: float = 0.0
) -> int:
    if interruption.signal is not None:
        return _INTERRUPTED
    return _TIME_IS_UP if max_seconds is not None and seconds >= max_seconds else _GO_ON


def _records(stacked: dict[str, jax.Array]) -> list[dict[str, int]]:
    host = {name: np.asarray(values) for name, values in stacked.items()}
    return [
        {name: int(values[i]) for name, values in host.items() if values[i] != NOT_SEEN}
        for i in range(len(host["generation"]))
        if host["generation"][i] > 0
    ]


def _stopped(carry: Carry, rules: Rules) -> Stopped:
    """Why a run that nobody interrupted ended."""
    if not carry.done:
        return "time"
    if rules.target is not None and int(carry.archive.fitness) <= rules.target:
        return "target"
    return "generations" if int(carry.generation) >= rules.generations else "patience"
