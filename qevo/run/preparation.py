"""What comes before the search and computes in floats: teacher, roundings, soft labels.

The run folder keeps it all. Another machine may round floats differently, and a resumed search goes
on from the same integers.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from rich.console import Console

from qevo.algorithms.coevolution import Coevolution
from qevo.core.space import Space
from qevo.data import Dataset, Split
from qevo.errors import QevoError
from qevo.integer.loss import softmax
from qevo.nets.file import load as load_network
from qevo.nets.float_numerics import Float
from qevo.nets.network import QuantizedNetwork
from qevo.nets.registry import architecture
from qevo.quantize.baselines import best_of_n
from qevo.quantize.bits import bits_per_layer
from qevo.quantize.convert import float_logits, layer_names, quantize_network
from qevo.quantize.published import load_published, published_scaling
from qevo.quantize.training import TrainingConfig, flip_and_crop
from qevo.quantize.training import train as train_float
from qevo.run import folder as files
from qevo.run.config import TrainConfig

SOFT_LABEL_FRACTION = 12  # fraction bits of a float teacher's logits before the integer softmax

MANY = 1 << 14  # genes, more than any count of subgroups

console = Console()


def check(config: TrainConfig, data: Dataset) -> None:
    """Refuse, before anything is trained or written, what could not work.

    Raises:
      QevoError: a count below 1, settings that no search can have, images too small for the
        architecture, bits as `bits_per_layer`, or a teacher's file that is missing, damaged, or
        does not fit the architecture.
    """
    for name, value in (
        ("training.epochs", config.training.epochs),
        ("training.batch", config.training.batch),
        ("calibration", config.calibration),
        ("draws", config.draws),
        ("batch", config.batch),
        ("radius", config.radius),
        ("validate-every", config.validate_every),
        ("patience", config.patience),
        ("scan-length", config.scan_length),
        ("candidate-chunk", config.candidate_chunk),
    ):
        if value is not None and value < 1:
            raise QevoError(f"--{name} must be at least 1, got {value}")
    for stage in (config.constants, config.weights):
        Coevolution(Space.integers(MANY, -1, 1), stage.search)
    module = _float_module(config, data)
    layers = layer_names(_shapes(module, data.search.images)["params"])
    bits_per_layer(config.bits_by_pattern(), layers)
    if config.teacher and not (config.folder / files.TEACHER).exists():
        _read_teacher(config.teacher, module, data.search.images)


@dataclasses.dataclass(frozen=True)
class Targets:
    """What a search compares logits with: labels int32 ``[n]`` or soft labels int32 ``[n, C]``."""

    search: np.ndarray
    validation: np.ndarray


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Where a search begins, and what it is compared with."""

    module: nn.Module  # the float teacher
    variables: Any
    networks: dict[str, QuantizedNetwork]  # "nearest", "best_of_n", "layerwise"
    targets: Targets
    seconds: dict[str, float]  # of the teacher's training and each rounding, earlier sessions too


def prepare(config: TrainConfig, data: Dataset) -> Preparation:
    """Do what the run folder does not hold yet, and keep it there.

    Raises:
      QevoError: a file is damaged, or the network cannot be quantized as asked.
    """
    record = config.folder / files.SECONDS
    seconds: dict[str, float] = files.read_json(record) if record.exists() else {}
    module, variables = _teacher(config, data, seconds)
    networks = _roundings(config, data, module, variables, seconds)
    files.write_json(record, seconds)
    targets = _targets(config, data, module, variables)
    return Preparation(module, variables, networks, targets, seconds)


def _teacher(
    config: TrainConfig, data: Dataset, seconds: dict[str, float]
) -> tuple[nn.Module, Any]:
    """The float network: kept from before in the folder, given, or trained now."""
    module = _float_module(config, data)
    kept = config.folder / files.TEACHER
    path = kept if kept.exists() else config.teacher
    if path is None:
        began = time.monotonic()
        variables = _train_teacher(config, module, data.search)
        seconds["teacher"] = time.monotonic() - began
        console.print(f"float teacher trained in {seconds['teacher']:.0f} s")
    else:
        variables = _read_teacher(path, module, data.search.images)
    if path != kept:
        files.save_arrays(kept, variables)
    return module, variables


def _float_module(config: TrainConfig, data: Dataset) -> nn.Module:
    module = architecture(config.architecture, classes=len(data.classes))
    if config.teacher and config.teacher.suffix == ".npz":
        return module.clone(numerics=Float(scaling=published_scaling(module)))
    return module


def _train_teacher(config: TrainConfig, module: nn.Module, search: Split) -> Any:
    training: TrainingConfig = dataclasses.replace(
        config.training, seed=config.seed, batch=min(config.training.batch, len(search))
    )
    steps = training.epochs * (len(search) // training.batch)
    with console.status("training the float teacher") as status:

        def show(step: int, metrics: Any) -> None:
            status.update(
                f"training the float teacher: step {step:,} of {steps:,}, "
                f"loss {metrics['loss']:.3f}, accuracy {metrics['accuracy']:.2%}"
            )

        return train_float(
            module,
            search.images,
            search.labels,
            config=training,
            augment=flip_and_crop if config.augment == "flip_and_crop" else None,
            progress=show,
        )


def _shapes(module: nn.Module, images: np.ndarray) -> Any:
    refused = (
        f"{type(module).__name__} cannot take images of {images.shape[1:]}, which may be too small"
    )
    try:
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images[:1]))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise QevoError(f"{refused}: {error}") from None
    empty = [name for name, shape in _by_name(shapes).items() if 0 in shape]
    if empty:
        raise QevoError(f"{refused}: nothing is left of them before {empty[0]}")
    return shapes


def _by_name(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a tree's arrays."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(at, simple=True, separator="/"): a.shape for at, a in flat}


def _read_teacher(path: pathlib.Path, module: nn.Module, images: np.ndarray) -> Any:
    """The variables in a teacher's file, checked against the architecture."""
    if path.suffix == ".npz":
        published, variables = load_published(path)
        if type(published) is not type(module):
            raise QevoError(
                f"{path} holds {type(published).__name__}; --architecture says"
                f" {type(module).__name__}"
            )
    else:
        variables = files.load_arrays(path)
    found, needed = _by_name(variables), _by_name(_shapes(module, images))
    odd = sorted(n for n in found.keys() | needed.keys() if found.get(n) != needed.get(n))
    if odd:
        first = f"{odd[0]} is {found.get(odd[0], 'not there')}, not {needed.get(odd[0], 'there')}"
        raise QevoError(
            f"{path} does not fit {type(module).__name__} on images {images.shape[1:]}: {first}; "
            f"{len(odd)} of {len(needed)} arrays differ"
        )
    return variables


def _roundings(
    config: TrainConfig,
    data: Dataset,
    module: nn.Module,
    variables: Any,
    seconds: dict[str, float],
) -> dict[str, QuantizedNetwork]:
    """Nearest, best of N and layer-wise, all from the same images."""
    images = data.search.images[: config.calibration]
    labels = data.search.labels[: config.calibration]
    bits, activations = config.bits_by_pattern(), config.activation_bits

    def quantized(method: Any) -> QuantizedNetwork:
        return quantize_network(
            module, variables, images, bits=bits, activation_bits=activations, method=method
        )

    def best() -> QuantizedNetwork:
        found = best_of_n(
            module,
            variables,
            images,
            bits=bits,
            labels=labels,
            activation_bits=activations,
            draws=config.draws,
            seed=config.seed,
        )
        return found.network

    makers: dict[str, Callable[[], QuantizedNetwork]] = {
        "nearest": lambda: quantized("nearest"),
        "best_of_n": best,
        "layerwise": lambda: quantized("layerwise"),
    }
    networks = {}
    for name, make in makers.items():
        path = config.folder / f"{name}.safetensors"
        if path.exists():
            networks[name] = load_network(path)
            continue
        with console.status(f"rounding: {name}"):
            began = time.monotonic()
            networks[name] = make()
            seconds[name] = time.monotonic() - began
        networks[name].save(path)
        console.print(f"rounded in {seconds[name]:.1f} s: {name}")
    return networks


def _targets(config: TrainConfig, data: Dataset, module: nn.Module, variables: Any) -> Targets:
    """The labels, or the float network's soft labels, as `TrainConfig.targets` says."""
    path = config.folder / files.TARGETS
    if config.targets == "teacher" and not path.exists():

        def soft(images: np.ndarray) -> jax.Array:
            fixed = np.rint(float_logits(module, variables, images) * 2**SOFT_LABEL_FRACTION)
            return softmax(jnp.asarray(fixed, jnp.int32), fraction_bits=SOFT_LABEL_FRACTION)

        parts = {"search": soft(data.search.images), "validation": soft(data.validation.images)}
        files.save_arrays(path, parts)
    return kept_targets(config, data)


def kept_targets(config: TrainConfig, data: Dataset) -> Targets:
    """The targets of a run that has begun.

    Raises:
      QevoError: the folder has lost its soft labels.
    """
    if config.targets == "labels":
        return Targets(data.search.labels, data.validation.labels)
    return Targets(**files.load_arrays(config.folder / files.TARGETS))
