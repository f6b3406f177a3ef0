"""The searches of a run: one stage after the other, each from what the one before accepted."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping

import jax
import numpy as np

from qevo.algorithms.coevolution import Coevolution
from qevo.algorithms.shift_es import ShiftConfig, ShiftES
from qevo.core.algorithm import Algorithm
from qevo.core.evolve import Result, evolve
from qevo.core.folder import CHECKPOINT
from qevo.core.hosts import from_first, is_first
from qevo.core.space import Space
from qevo.data import Dataset
from qevo.nets.network import QuantizedNetwork
from qevo.nets.plan import Plan
from qevo.nets.planning import plan
from qevo.problems.network import Genes, NetworkProblem
from qevo.run.config import SearchConfig, ShiftStageConfig, StageConfig
from qevo.run.console import console
from qevo.run.session import plans_file
from qevo.run.tracking import Callback, stage_callback

LAST = "2_weights"  # the last stage


@dataclasses.dataclass(frozen=True)
class Targets:
    """What a search compares logits with: labels int32 ``[n]`` or soft labels int32 ``[n, C]``."""

    search: np.ndarray
    validation: np.ndarray


@dataclasses.dataclass(frozen=True)
class Stage:
    """One search of a run: its name, what it changes, and how."""

    name: str
    genes: tuple[Genes, ...]
    config: StageConfig | ShiftStageConfig

    def algorithm(self, space: Space) -> Algorithm:
        """What searches."""
        return algorithm(space, self.config)


def algorithm(space: Space, config: StageConfig | ShiftStageConfig) -> Algorithm:
    """The algorithm that a stage's settings are for.

    Raises:
      QevoError: settings that it cannot have.
    """
    if isinstance(config.search, ShiftConfig):
        return ShiftES(space, config.search)
    return Coevolution(space, config.search)


def stages(config: SearchConfig) -> tuple[Stage, ...]:
    """The searches of a run, in order."""
    both = (
        Stage("1_constants", ("multipliers", "biases"), config.constants),
        Stage(LAST, ("weights",), config.weights),
    )
    return tuple(stage for stage in both if stage.config.generations > 0)


def machine_plan(config: SearchConfig, data: Dataset, network: QuantizedNetwork) -> Plan:
    """How to compute a run's candidates here: kept from an earlier run, or measured."""
    with console.status("measuring how each layer is fastest here"):
        return plan(
            network,
            arithmetic=config.arithmetic,
            batch=min(config.batch, len(data.search)),
            cache=plans_file(),
        )


def stage_problem(
    config: SearchConfig,
    data: Dataset,
    network: QuantizedNetwork,
    targets: Targets,
    genes: tuple[Genes, ...],
    machine: Plan,
) -> NetworkProblem:
    """The problem of one search stage."""
    return NetworkProblem.of(
        network,
        data.search.images,
        targets.search,
        data.validation.images,
        data.validation.labels,
        validation_targets=targets.validation,
        genes=genes,
        radius=config.radius,
        batch_size=min(config.batch, len(data.search)),
        arithmetic=config.arithmetic,
        plan=machine,
        candidate_chunk=config.candidate_chunk,
    )


def search(
    config: SearchConfig,
    data: Dataset,
    network: QuantizedNetwork,
    targets: Targets,
    callback: Callback | None = None,
) -> tuple[QuantizedNetwork, dict[str, Result]]:
    """Run the stages one after the other, each from the accepted network of the one before."""
    searches: dict[str, Result] = {}
    left = config.max_seconds
    todo = stages(config)
    if not todo:
        return network, searches
    machine = from_first(lambda: machine_plan(config, data, network))
    for index, stage in enumerate(todo):
        problem = stage_problem(config, data, network, targets, stage.genes, machine)
        folder = config.folder / stage.name
        kept = from_first(lambda folder=folder: (folder / CHECKPOINT).exists())
        began = time.monotonic()
        with stage_callback(
            stage.name,
            folder,
            before=sum(result.generations for result in searches.values()),
            tensorboard=config.tensorboard,
            callback=callback,
        ) as tell:
            searches[stage.name] = result = evolve(
                stage.algorithm(problem.space),
                problem,
                jax.random.fold_in(jax.random.key(config.seed), index),
                generations=stage.config.generations,
                validate_every=config.validate_every,
                patience=config.patience,
                max_seconds=left,
                scan_length=config.scan_length,
                devices=config.device,
                folder=folder,
                resume=config.resume and kept,
                title=" ".join(stage.genes),
                words=functools.partial(_accuracy, len(data.validation)),
                callback=tell,
            )
        network = problem.network(network, result.solution)
        if result.stopped in ("interrupted", "time") and is_first():
            console.print(
                f"stopped in {stage.name} after {result.generations} generations; "
                "--resume goes on from here"
            )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        if result.stopped == "time":
            break
        if left is not None:
            left = max(left - (time.monotonic() - began), 0.0)
    return network, searches


def _accuracy(images: int, seen: Mapping[str, int]) -> str | None:
    """What the progress of a classifier says: how well it did when it was last looked at."""
    if "validation_errors" not in seen:
        return None
    return f"validation {100 * (1 - seen['validation_errors'] / images):.2f} %"
