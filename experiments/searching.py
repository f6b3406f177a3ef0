"""Searches that the scripts beside it do themselves, without the pipeline of a whole run."""

from __future__ import annotations

import pathlib

from qevo import NetworkProblem, Result, evolve
from qevo.algorithms import ShiftConfig, ShiftES
from qevo.core.folder import CHECKPOINT


def shift_search(
    problem: NetworkProblem,
    config: ShiftConfig,
    seed: int,
    *,
    generations: int,
    folder: pathlib.Path,
) -> Result:
    """What the shift evolution strategy finds; goes on with what is in the folder.

    Raises:
      KeyboardInterrupt: it was cut off.
    """
    return finished(
        evolve(
            ShiftES(problem.space, config),
            problem,
            seed,
            generations=generations,
            folder=folder,
            resume=(folder / CHECKPOINT).exists(),
            progress=False,
        )
    )


def finished(result: Result) -> Result:
    """A search's result, or KeyboardInterrupt where it was cut off: that is nothing to record."""
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result
