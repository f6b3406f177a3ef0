"""Stages that several of the scripts beside it have in their runs."""

from __future__ import annotations

import dataclasses

from qevo.algorithms import CoevolutionConfig
from qevo.run import StageConfig

# Far from its start, a published network only gets worse: small steps.
CONSTANTS = CoevolutionConfig(population=32, group=4096, spread=0.2, rate=0.5)
WEIGHTS = CoevolutionConfig(grouping="block", group=500, margin=0.002)


def stage(search: CoevolutionConfig, generations: int) -> StageConfig:
    """A search whose learning rate falls over all its generations."""
    return StageConfig(generations, dataclasses.replace(search, schedule=max(generations, 1)))
