"""What a run has found so far: read from its checkpoints, while it goes on or after it stopped."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from qevo.core.folder import CHECKPOINT
from qevo.core.random import TABLE_TOTAL
from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.problems.genes import merged, network_space
from qevo.run.config import SearchConfig
from qevo.run.searching import Stage, stages


class Kept(NamedTuple):
    """A checkpoint, as far as a report needs it."""

    genes: np.ndarray  # int8 [N], the accepted ones
    uncertainty: np.ndarray | None  # int16 [N], of coevolution
    movable: np.ndarray | None  # bool [N]
    generation: int
    seconds: float


def kept_state(folder: pathlib.Path) -> Kept | None:
    """The checkpoint of a stage; ``None`` before there is one.

    Raises:
      QevoError: it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            progress = json.loads(file.metadata()["qevo"])["progress"]
            names = set(file.keys())

            def array(name: str) -> Any:
                return file.get_tensor(f"state.{name}") if f"state.{name}" in names else None

            low, high, uncertainty = array("low"), array("high"), array("uncertainty")
            return Kept(
                genes=file.get_tensor("archive.genes"),
                uncertainty=uncertainty,
                movable=None if low is None or high is None else low < high,
                generation=int(file.get_tensor("generation")),
                seconds=float(progress["seconds"]),
            )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise QevoError(f"{path} is damaged or no checkpoint: {error}") from None


def network_so_far(config: SearchConfig, start: QuantizedNetwork) -> QuantizedNetwork:
    """The accepted network of the latest checkpoint; ``start`` before there is one.

    Raises:
      QevoError: a checkpoint is damaged or does not fit the network.
    """
    network = start
    for stage in stages(config):
        found = kept_state(config.folder / stage.name)
        if found is not None:
            network = _with(network, stage, config.radius, found)
    return network


def confidence(config: SearchConfig, network: QuantizedNetwork) -> dict[str, float]:
    """Mean mass of the tables of each layer's weights on their level, over those that can move.

    Empty where the weights were not searched by coevolution.

    Raises:
      QevoError: as `network_so_far`.
    """
    searched = [stage for stage in stages(config) if "weights" in stage.genes]
    if not searched:
        return {}
    found = kept_state(config.folder / searched[0].name)
    if found is None or found.uncertainty is None or found.movable is None:
        return {}
    space = network_space(network, genes=searched[0].genes, radius=config.radius)
    _check(searched[0], space.size, found)
    shares = {}
    for part in space.layout:
        kind, _, layer = part.name.partition("/")
        genes = slice(part.offset, part.offset + part.size)
        movable = found.movable[genes]
        if kind == "weights" and movable.any():
            mass = found.uncertainty[genes][movable].mean(dtype=np.float64)
            shares[layer] = float(1 - mass / TABLE_TOTAL)
    return shares


def _with(network: QuantizedNetwork, stage: Stage, radius: int, found: Kept) -> QuantizedNetwork:
    """The network with what a stage accepted."""
    space = network_space(network, genes=stage.genes, radius=radius)
    _check(stage, space.size, found)
    solution = space.decode(jnp.asarray(found.genes))
    weights, constants = merged(network.weights, network.constants, solution)
    return dataclasses.replace(network, weights=weights, constants=constants)


def _check(stage: Stage, genes: int, found: Kept) -> None:
    if genes != len(found.genes):
        raise QevoError(
            f"the checkpoint of {stage.name} has {len(found.genes):,} genes, the network {genes:,}"
        )
