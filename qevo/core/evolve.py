"""`evolve`: run a search, on all devices, with progress, checkpoints and resume."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qevo.core.algorithm import Algorithm
from qevo.core.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from qevo.core.devices import Device, check_memory, choose_devices
from qevo.core.generation import (
    NOT_SEEN,
    POPULATION_AXIS,
    Carry,
    Rules,
    first_carry,
    scan_generations,
)
from qevo.core.problem import Problem
from qevo.core.progress import ProgressReport
from qevo.errors import QevoError

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"

Stopped = Literal["generations", "target", "patience", "time", "interrupted"]


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
    compile_seconds: float  # of this session
    stopped: Stopped
    metrics: list[dict[str, int]]  # one record per generation of this session
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
    folder: str | pathlib.Path | None = None,
    checkpoint_generations: int | None = None,
    checkpoint_seconds: float = 30.0,
    resume: bool = False,
    progress: bool = True,
    title: str = "evolve",
    callback: Callable[[dict[str, int]], None] | None = None,
) -> Result:
    """Search for the solution of least fitness.

    The result depends on the algorithm, the problem, the seed and the generations alone: the same
    bits come out on any number of devices, with any ``scan_length`` and ``candidate_chunk``, and
    after any number of interruptions.

    Args:
      algorithm: what draws candidates and learns.
      problem: what scores them.
      seed: a seed, or a PRNG key.
      generations: how many to run in all; a finished run is extended by resuming it with more.
      validate_every: generations between looks at the problem's validation data; what comes after
        the last look is not accepted.
      patience: stop after so many generations without an accepted improvement.
      target: stop once the accepted fitness is at most this.
      max_seconds: stop this session after so much wall time; resume goes on.
      scan_length: generations per compiled call.
      candidate_chunk: candidates in memory at once; the problem's own choice by default.
      devices: how many, which, or of what kind ("cpu", "gpu", "tpu"); all of the default kind where
        their number divides the population.
      folder: where to keep the checkpoint and one JSON line of metrics per generation.
      checkpoint_generations, checkpoint_seconds: how often to checkpoint; whichever comes first.
      resume: continue what is in ``folder``.
      progress: show progress on standard error.
      title: what to call the run there.
      callback: called with each generation's record, in order.

    Returns:
      The accepted solution and how the run went.

    Raises:
      QevoError: the setup cannot work, does not fit into memory, or differs from the checkpoint's.
    """
    _check(generations, validate_every, scan_length, candidate_chunk, patience)
    if algorithm.space.layout != problem.space.layout:
        raise QevoError("the algorithm and the problem search different spaces")
    key = seed if isinstance(seed, jax.Array) else jax.random.key(seed)
    rules = Rules(generations, validate_every, patience, target)
    chosen = choose_devices(devices, algorithm.population_size)
    mesh = Mesh(np.asarray(chosen), (POPULATION_AXIS,)) if len(chosen) > 1 else None
    place = NamedSharding(mesh, PartitionSpec()) if mesh else chosen[0]
    fingerprint = _fingerprint(algorithm, problem, key, rules)
    problem, key = jax.device_put((problem, key), place)

    run = _Folder(pathlib.Path(folder)) if folder is not None else None
    spent = 0.0
    if resume:
        if run is None:
            raise QevoError("resume needs the folder of the run")
        shapes = jax.eval_shape(lambda k: first_carry(algorithm, problem, k), key)
        carry, saved = load_checkpoint(run.checkpoint, shapes, fingerprint)
        spent = saved["seconds"]
        run.rewind(int(carry.generation))
    else:
        if run:
            run.check_unused()
        carry = first_carry(algorithm, problem, key)
    carry = jax.device_put(carry._replace(done=_is_done(carry, rules)), place)

    chunk = candidate_chunk if candidate_chunk is not None else problem.candidate_chunk
    began = time.monotonic()
    call = _compile(algorithm, problem, key, carry, scan_length, rules, chunk, mesh)
    compiled = time.monotonic() - began

    metrics: list[dict[str, int]] = []
    stopped: Stopped = "generations"
    began = time.monotonic()
    saved_at, saved_generation = began, int(carry.generation)
    if run and not resume:
        run.save(carry, fingerprint, spent)
    with (
        _interruptible() as interrupted,
        ProgressReport(generations, int(carry.generation), title=title, enabled=progress) as show,
    ):
        while not bool(carry.done):
            carry, stacked = call(problem, key, carry)
            records = _records(stacked)
            for record in records:
                if callback:
                    callback(record)
            metrics += records
            now, done = time.monotonic(), int(carry.generation)
            if run:
                run.log(records)
                due = checkpoint_generations and done - saved_generation >= checkpoint_generations
                if due or now - saved_at >= checkpoint_seconds:
                    run.save(carry, fingerprint, spent + now - began)
                    saved_at, saved_generation = now, done
            show(done, records[-1])
            if interrupted.signal is not None:
                stopped = "interrupted"
                break
            if max_seconds is not None and now - began >= max_seconds:
                stopped = "time"
                break
        seconds = spent + time.monotonic() - began
        if run:
            run.save(carry, fingerprint, seconds)
    return _result(algorithm, problem, carry, rules, seconds, compiled, stopped, metrics)


def _check(generations: int, validate_every: int, scan: int, chunk: int | None, p: Any) -> None:
    for name, value in (
        ("generations", generations),
        ("validate_every", validate_every),
        ("scan_length", scan),
        ("candidate_chunk", chunk),
        ("patience", p),
    ):
        if value is not None and value < 1:
            raise QevoError(f"{name} must be at least 1, got {value}")


def _fingerprint(
    algorithm: Algorithm, problem: Problem, key: jax.Array, rules: Rules
) -> dict[str, Any]:
    """Everything that decides the result, save the number of generations."""
    space = hashlib.sha256()
    for array in jax.tree.leaves(algorithm.space):
        space.update(np.asarray(array).tobytes())
    return {
        **algorithm.describe(),
        **problem.describe(),
        "space": f"{algorithm.space.size} genes, sha256 {space.hexdigest()}",
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_implementation": str(jax.random.key_impl(key)),
        "validate_every": rules.validate_every,
        "patience": rules.patience,
        "target": rules.target,
    }


def _compile(
    algorithm: Algorithm,
    problem: Problem,
    key: jax.Array,
    carry: Carry,
    length: int,
    rules: Rules,
    chunk: int | None,
    mesh: Mesh | None,
) -> Any:
    def call(problem: Problem, key: jax.Array, carry: Carry) -> Any:
        return scan_generations(
            algorithm, problem, key, carry, length=length, rules=rules, chunk=chunk, mesh=mesh
        )

    compiled = jax.jit(call, donate_argnums=2).lower(problem, key, carry).compile()
    device = next(iter(carry.generation.devices()))
    check_memory(compiled, device, algorithm.population_size, chunk)
    return compiled


def _is_done(carry: Carry, rules: Rules) -> np.ndarray:
    """Whether a run is done by the rules of now: a finished one goes on with more generations."""
    generation, archive = int(carry.generation), carry.archive
    done = generation >= rules.generations
    done |= rules.target is not None and int(archive.fitness) <= rules.target
    done |= rules.patience is not None and generation - int(archive.generation) >= rules.patience
    return np.asarray(done)


def _records(stacked: dict[str, jax.Array]) -> list[dict[str, int]]:
    host = {name: np.asarray(values) for name, values in stacked.items()}
    return [
        {name: int(values[i]) for name, values in host.items() if values[i] != NOT_SEEN}
        for i in range(len(host["generation"]))
        if host["generation"][i] > 0
    ]


def _result(
    algorithm: Algorithm,
    problem: Problem,
    carry: Carry,
    rules: Rules,
    seconds: float,
    compiled: float,
    stopped: Stopped,
    metrics: list[dict[str, int]],
) -> Result:
    generation = int(carry.generation)
    if bool(carry.done):
        reached = rules.target is not None and int(carry.archive.fitness) <= rules.target
        ended = "generations" if generation >= rules.generations else "patience"
        stopped = "target" if reached else ended
    return Result(
        solution=problem.space.decode(carry.archive.genes),
        genes=carry.archive.genes,
        fitness=int(carry.archive.fitness),
        found=int(carry.archive.generation),
        generations=generation,
        evaluations=generation * algorithm.population_size,
        seconds=seconds,
        compile_seconds=compiled,
        stopped=stopped,
        metrics=metrics,
        carry=carry,
    )


class _Folder:
    """A run's checkpoint and metrics on disk."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.checkpoint = path / CHECKPOINT
        self.metrics = path / METRICS

    def check_unused(self) -> None:
        if self.checkpoint.exists() or self.metrics.exists():
            raise QevoError(
                f"{self.path} already holds a run; resume it, or choose another folder (nothing in "
                "it was changed)"
            )

    def save(self, carry: Carry, fingerprint: dict[str, Any], seconds: float) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.checkpoint, carry, fingerprint, {"seconds": seconds})

    def log(self, records: list[dict[str, int]]) -> None:
        with self.metrics.open("a", encoding="utf-8") as f:
            f.writelines(json.dumps(record) + "\n" for record in records)

    def rewind(self, generation: int) -> None:
        """Drop metrics written after the checkpoint: those generations run again."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line cut short by a kill
                if json.loads(line)["generation"] <= generation:
                    kept.append(line + "\n")
        text = "".join(kept)
        write_atomically(self.metrics, lambda new: new.write_text(text, encoding="utf-8"))


class _Interruption:
    """The signal that asked the run to stop, or ``None``."""

    signal: int | None = None


@contextlib.contextmanager
def _interruptible() -> Iterator[_Interruption]:
    """Note the first Ctrl-C or SIGTERM instead of dying; a second Ctrl-C interrupts at once.

    A SIGTERM is delivered again on leaving, when all is saved: whoever sent it wants an end.
    """
    asked = _Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked.signal is not None:
            raise KeyboardInterrupt
        asked.signal = number

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked.signal == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
