"""What comes before the search and computes in floats: roundings and soft labels.

The run folder keeps it all. Another machine may round floats differently, and a resumed search goes
on from the same integers.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import linen as nn

from qevo.core.random import check_seeds
from qevo.core.space import GENE_MAX, Space
from qevo.data import Dataset, load
from qevo.errors import QevoError
from qevo.integer.loss import BATCH_LIMIT
from qevo.nets.file import load_safetensors
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.baselines import best_of_n
from qevo.quantize.bits import bits_per_layer
from qevo.quantize.convert import FloatTeacher, layer_names
from qevo.quantize.methods import round_network
from qevo.quantize.outputs import float_logits, soft_labels
from qevo.report.table import METHODS
from qevo.run import folder as files
from qevo.run.config import AnyConfig, RefineConfig, SearchConfig
from qevo.run.console import console
from qevo.run.own import own_network, refine_data
from qevo.run.searching import Targets, algorithm
from qevo.run.teacher import check_teacher, trained_network
from qevo.run.tracking import summary_writer

SOFT_LABEL_FRACTION = 12  # fraction bits of a float teacher's logits

MANY = 1 << 14  # genes, more than any count of subgroups


def load_data(config: AnyConfig) -> Dataset:
    """The images of a run.

    Raises:
      QevoError: as `qevo.data.load` or `refine_data`.
    """
    if isinstance(config, RefineConfig):
        return refine_data(config)
    return load(config.data, seed=config.split_seed)


def check(config: AnyConfig, data: Dataset) -> None:
    """Refuse, before anything is trained or written, what could not work.

    Raises:
      QevoError: a count below 1, settings that no search can have, bits as `bits_per_layer`, a
        float network as `check_teacher` or `own_network` has it, or a package that is missing.
    """
    for name, value, most in (
        ("calibration", config.calibration, None),
        ("draws", config.draws, None),
        ("batch", config.batch, BATCH_LIMIT),
        ("radius", config.radius, GENE_MAX),
        ("validate-every", config.validate_every, None),
        ("patience", config.patience, None),
        ("scan-length", config.scan_length, None),
        ("candidate-chunk", config.candidate_chunk, None),
    ):
        if value is not None and value < 1:
            raise QevoError(f"--{name} must be at least 1, got {value}")
        if value is not None and most is not None and value > most:
            raise QevoError(f"--{name} must be at most {most}, got {value}")
    check_seeds("--seed", config.seed)
    for name, stage in (("constants", config.constants), ("weights", config.weights)):
        if stage.generations < 0:
            raise QevoError(f"--{name}.generations must be 0 or more, got {stage.generations}")
    if len(data.validation) > BATCH_LIMIT:
        raise QevoError(
            f"{len(data.validation)} validation images are more than the {BATCH_LIMIT} that a "
            "summed loss can hold"
        )
    if config.tensorboard:
        summary_writer()
    for stage in (config.constants, config.weights):
        algorithm(Space.integers(MANY, -1, 1), stage)
    if isinstance(config, RefineConfig):
        layers = layer_names(own_network(config, data)[1]["params"])
    else:
        layers = check_teacher(config, data)
    bits_per_layer(config.bits_by_pattern(), layers)


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Where a search begins, and what it is compared with."""

    module: nn.Module  # the float teacher
    variables: Any
    networks: dict[str, QuantizedNetwork]  # by the name of the rounding
    targets: Targets
    seconds: dict[str, float]  # of the teacher's training and each rounding, earlier sessions too


def prepare(config: AnyConfig, data: Dataset) -> Preparation:
    """Do what the run folder does not hold yet, and keep it there.

    Raises:
      QevoError: a file is damaged, or the network cannot be quantized as asked.
    """
    record = config.folder / files.SECONDS
    seconds: dict[str, float] = files.read_json(record) if record.exists() else {}
    if isinstance(config, RefineConfig):
        module, variables = own_network(config, data)
    else:
        module, variables = trained_network(config, data, seconds)
    files.write_json(record, seconds)
    networks = _roundings(config, data, module, variables, seconds)
    targets = _targets(config, data, module, variables)
    return Preparation(module, variables, networks, targets, seconds)


def _roundings(
    config: SearchConfig,
    data: Dataset,
    module: nn.Module,
    variables: Any,
    seconds: dict[str, float],
) -> dict[str, QuantizedNetwork]:
    """Every rounding, all from the same images."""
    labels = data.search.labels[: config.calibration]
    bits = config.bits_by_pattern()

    @functools.cache
    def teacher() -> FloatTeacher:
        images = data.search.images[: config.calibration]
        return FloatTeacher(module, variables, images, activation_bits=config.activation_bits)

    def best() -> QuantizedNetwork:
        drawn = best_of_n(teacher(), bits=bits, labels=labels, draws=config.draws, seed=config.seed)
        return drawn.network

    def by(method: Any) -> Callable[[], QuantizedNetwork]:
        return lambda: round_network(teacher(), bits=bits, method=method)

    wanted = {"nearest", config.start, *config.roundings}
    makers = {name: best if name == "best_of_n" else by(name) for name in METHODS if name in wanted}
    networks = {}
    for name, make in makers.items():
        path = config.folder / f"{name}.safetensors"
        if path.exists():
            networks[name] = load_safetensors(path, module)
            continue
        with console.status(f"rounding: {name}"):
            began = time.monotonic()
            networks[name] = make()
            seconds[name] = time.monotonic() - began
        networks[name].save(path)
        files.write_json(config.folder / files.SECONDS, seconds)
        console.print(f"rounded in {seconds[name]:.1f} s: {name}")
    return networks


def _targets(config: SearchConfig, data: Dataset, module: nn.Module, variables: Any) -> Targets:
    """The labels, or the float network's soft labels, as `TrainConfig.targets` says."""
    path = config.folder / files.TARGETS
    if config.targets == "teacher" and not path.exists():

        def soft(images: np.ndarray) -> np.ndarray:
            logits = float_logits(module, variables, images)
            return soft_labels(logits, fraction_bits=SOFT_LABEL_FRACTION)

        parts = {"search": soft(data.search.images), "validation": soft(data.validation.images)}
        files.save_arrays(path, parts)
    return kept_targets(config, data)


def kept_targets(config: SearchConfig, data: Dataset) -> Targets:
    """The targets of a run that has begun.

    Raises:
      QevoError: the folder has lost its soft labels.
    """
    if config.targets == "labels":
        return Targets(data.search.labels, data.validation.labels)
    path = config.folder / files.TARGETS
    parts = files.load_arrays(path)
    if parts.keys() != {"search", "validation"}:
        raise QevoError(f"{path} must hold search and validation, not {', '.join(parts)}")
    return Targets(**parts)
