"""`minimize`: one call that searches for the least value of a plain function over integers."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from qevo.algorithms.shift_es import ShiftConfig, ShiftES
from qevo.core.algorithm import Algorithm
from qevo.core.devices import Device
from qevo.core.evolve import Result, evolve
from qevo.core.problem import FunctionProblem, int32_scalar
from qevo.core.space import Space
from qevo.errors import QevoError

_WRAP = """\
a function that JAX cannot trace must be wrapped, and is then called with numpy arrays, once for \
each candidate:

    def wrapped(solution):
        shape = jax.ShapeDtypeStruct((), jnp.int32)
        call = lambda solution: np.int32(function(jax.tree.map(np.asarray, solution)))
        return jax.pure_callback(call, shape, solution, vmap_method="sequential")"""


def minimize(
    function: Callable[[Any], Any],
    space: Any,
    seed: jax.Array | int = 0,
    *,
    algorithm: Algorithm | Callable[[Space], Algorithm] | None = None,
    population: int | None = None,
    generations: int = 1000,
    target: int | None = None,
    patience: int | None = None,
    max_seconds: float | None = None,
    candidate_chunk: int | None = None,
    devices: Sequence[Device] | int | str | None = None,
    folder: str | pathlib.Path | None = None,
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[dict[str, int]], None] | None = None,
) -> Result:
    """Search for the integers of least value.

    Args:
      function: of a solution, a pytree as the space has it, to one integer; pure, and written with
        `jax.numpy`, so that it compiles and runs on all candidates at once. What it closes over is
        compiled in: a `Problem` with arrays as its fields suits large data better.
      space: a `Space`, or a pytree of `Leaf`. `Space.between` makes one from bounds.
      seed: a seed, or a PRNG key.
      algorithm: the search, or what makes one for the space, such as ``qevo.Coevolution``; by
        default `default_algorithm`.
      population: candidates per generation, for the default algorithm.
      generations, target, patience, max_seconds: when it ends, as for `qevo.evolve`.
      candidate_chunk, devices, folder, resume, progress, callback: as for `qevo.evolve`.

    Returns:
      The best solution, its value, and how the run went.

    Raises:
      QevoError: the space is none, or JAX cannot trace the function; says how to wrap it.
      TypeError: the function's value is not one integer.
    """
    space = _space(space)
    _check_function(function, space)
    problem = FunctionProblem(space, function, candidate_chunk=candidate_chunk)
    if algorithm is None:
        algorithm = default_algorithm(space, 64 if population is None else population)
    else:
        if population is not None:
            raise QevoError("population is for the default algorithm; set it in the given one")
        if not isinstance(algorithm, Algorithm):
            algorithm = algorithm(space)
    return evolve(
        algorithm,
        problem,
        seed,
        generations=generations,
        target=target,
        patience=patience,
        max_seconds=max_seconds,
        devices=devices,
        folder=folder,
        resume=resume,
        progress=progress,
        title="minimize",
        callback=callback,
    )


def default_algorithm(space: Space, population: int = 64) -> Algorithm:
    """What `minimize` searches with: `ShiftES` with self-adjusting mutation that crosses plateaus.

    It keeps one solution, whatever the number of genes. Where many local optima lie between the
    start and the best solution, a population (`Genetic`, with crossover at points) finds more.
    """
    config = ShiftConfig(population=population, slots=64, levels=3, neutral=True)
    return ShiftES(space, config)


def _space(space: Any) -> Space:
    if isinstance(space, Space):
        return space
    try:
        return Space.of(space)
    except QevoError as error:
        raise QevoError(
            f"{error}; give a Space (Space.integers and Space.between make one) or a pytree of Leaf"
        ) from None


def _check_function(function: Callable[[Any], Any], space: Space) -> None:
    """Trace it once, for an error that says what to do.

    Raises:
      QevoError: it asks for values where JAX has none.
      TypeError: its value is not one integer.
    """
    solution = jax.eval_shape(space.decode, space.start)
    try:
        jax.eval_shape(function, solution)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise QevoError(f"{_WRAP}\n\nJAX says: {reason}") from error
    except Exception as error:
        error.add_note("qevo.minimize traces the function with JAX arrays; " + _WRAP)
        raise
    jax.eval_shape(lambda solution: int32_scalar(function(solution)), solution)
