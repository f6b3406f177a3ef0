"""`qevo train`: from images to an evolved integer network and its report."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from rich.console import Console

from qevo.algorithms.coevolution import Coevolution
from qevo.core.devices import devices_of
from qevo.core.evolve import METRICS, Result, evolve
from qevo.data import Dataset, Split, load
from qevo.errors import QevoError
from qevo.integer.loss import softmax
from qevo.nets.network import QuantizedNetwork
from qevo.nets.registry import architecture
from qevo.problems.network import Genes, NetworkProblem
from qevo.quantize.baselines import best_of_n
from qevo.quantize.convert import float_logits, quantize_network
from qevo.quantize.published import load_resnet8
from qevo.quantize.training import TrainingConfig, flip_and_crop
from qevo.quantize.training import train as train_float
from qevo.report.picture import draw_run
from qevo.report.table import accuracy_table
from qevo.run import folder as files
from qevo.run.config import StageConfig, TrainConfig
from qevo.run.provenance import commit, device, versions

SOFT_LABEL_FRACTION = 12  # fraction bits of a float teacher's logits before the integer softmax

console = Console()


@dataclasses.dataclass(frozen=True)
class Stage:
    """One search of a run: its name, what it changes, and how."""

    name: str
    genes: tuple[Genes, ...]
    config: StageConfig


def stages(config: TrainConfig) -> tuple[Stage, ...]:
    """The searches of a run, in order."""
    both = (
        Stage("1_constants", ("multipliers", "biases"), config.constants),
        Stage("2_weights", ("weights",), config.weights),
    )
    return tuple(stage for stage in both if stage.config.generations > 0)


def train(config: TrainConfig) -> dict[str, Any]:
    """Run it all; returns what result.json holds.

    Raises:
      QevoError: bad settings or data, or a folder that holds another run.
    """
    if config.device:
        jax.config.update("jax_default_device", devices_of(config.device)[0])
    data = load(config.data, seed=config.split_seed)
    _claim(config, data)
    console.print(
        f"[bold]{config.folder}[/]  {data.source}: {len(data.search):,} search, "
        f"{len(data.validation):,} validation, {len(data.test):,} test images"
    )
    module, variables = teacher(config, data)
    accuracy = {"float": _accuracies(lambda x: float_logits(module, variables, x), data)}
    networks, seconds = _roundings(config, data, module, variables)
    start = networks[config.start]
    network, searches = _search(
        config, data, start, search_targets(config, data, module, variables)
    )
    networks["evolved"] = network
    for name, candidate in networks.items():
        accuracy[name] = _accuracies(candidate, data)
    path = config.folder / files.NETWORK
    network.save(path)
    result = {
        "accuracy": accuracy,
        "bits": {layer: network.bits[layer] for layer in network.layers},
        "activation_bits": config.activation_bits,
        "data": config.data,
        "architecture": config.architecture,
        "generations": sum(r.generations for r in searches.values()),
        "evaluations": sum(r.evaluations for r in searches.values()),
        "seconds": {**seconds, **{name: r.seconds for name, r in searches.items()}},
        "seed": config.seed,
        "versions": versions(),
        "device": device(),
        "commit": commit(),
        "network_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    files.write_json(config.folder / files.RESULT, result)
    metrics = {name: config.folder / name / METRICS for name in searches}
    draw_run(
        config.folder / files.PICTURE,
        accuracy=accuracy,
        metrics=metrics,
        start=start,
        network=network,
        searches={name: r.carry.state for name, r in searches.items()},
        validation_images=len(data.validation),
    )
    _say(config, result, searches)
    return result


def teacher(config: TrainConfig, data: Dataset) -> tuple[nn.Module, Any]:
    """The float network: given, kept from before in the folder, or trained now.

    Raises:
      QevoError: the file is missing, damaged, or does not fit the architecture.
    """
    if config.teacher and config.teacher.suffix == ".npz":
        if config.architecture != "resnet_8":
            raise QevoError(f"{config.teacher} holds ResNet-8 weights; set --architecture resnet_8")
        return load_resnet8(config.teacher)
    module = architecture(config.architecture, classes=len(data.classes))
    kept = config.folder / files.TEACHER
    if config.teacher or kept.exists():
        path = config.teacher or kept
        variables = files.load_variables(path)
        _check_tree(path, module, variables, data.search.images[:1])
    else:
        variables = _train_teacher(config, module, data.search)
    files.save_variables(kept, variables)
    return module, variables


def _train_teacher(config: TrainConfig, module: nn.Module, search: Split) -> Any:
    training: TrainingConfig = dataclasses.replace(config.training, seed=config.seed)
    steps = training.epochs * (len(search) // training.batch)
    with console.status("training the float teacher") as status:

        def show(step: int, metrics: Any) -> None:
            status.update(
                f"training the float teacher: step {step:,} of {steps:,}, "
                f"loss {metrics['loss']:.3f}, accuracy {metrics['accuracy']:.2%}"
            )

        began = time.monotonic()
        variables = train_float(
            module,
            search.images,
            search.labels,
            config=training,
            augment=flip_and_crop if config.augment == "flip_and_crop" else None,
            progress=show,
        )
    console.print(f"float teacher trained in {time.monotonic() - began:.0f} s")
    return variables


def _check_tree(path: Any, module: nn.Module, variables: Any, image: np.ndarray) -> None:
    wanted = jax.eval_shape(lambda: module.init(jax.random.key(0), image))
    shapes = [jax.tree.map(lambda a: a.shape, tree) for tree in (wanted, variables)]
    if shapes[0] != shapes[1]:
        raise QevoError(
            f"{path} does not fit {type(module).__name__} on images {image.shape[1:]}: it holds "
            f"{shapes[1]}, needed is {shapes[0]}"
        )


def _roundings(
    config: TrainConfig, data: Dataset, module: nn.Module, variables: Any
) -> tuple[dict[str, QuantizedNetwork], dict[str, float]]:
    """Nearest, best of N and layer-wise, all from the same images, and their seconds."""
    images = data.search.images[: config.calibration]
    labels = data.search.labels[: config.calibration]
    bits, activations = config.bits_by_pattern(), config.activation_bits

    def quantized(method: Any) -> QuantizedNetwork:
        return quantize_network(
            module, variables, images, bits=bits, activation_bits=activations, method=method
        )

    def best() -> QuantizedNetwork:
        draws, seed = config.draws, config.seed
        found = best_of_n(
            module,
            variables,
            images,
            bits=bits,
            labels=labels,
            activation_bits=activations,
            draws=draws,
            seed=seed,
        )
        return found.network

    makers: dict[str, Callable[[], QuantizedNetwork]] = {
        "nearest": lambda: quantized("nearest"),
        "best_of_n": best,
        "layerwise": lambda: quantized("layerwise"),
    }
    networks, seconds = {}, {}
    for name, make in makers.items():
        with console.status(f"rounding: {name}"):
            began = time.monotonic()
            networks[name] = make()
            seconds[name] = time.monotonic() - began
    told = ", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.items())
    console.print(f"rounded: {told}")
    return networks, seconds


@dataclasses.dataclass(frozen=True)
class Targets:
    """What a search compares logits with: labels int32 ``[n]`` or soft labels int32 ``[n, C]``."""

    search: np.ndarray
    validation: np.ndarray


def search_targets(
    config: TrainConfig, data: Dataset, module: nn.Module, variables: Any
) -> Targets:
    """The labels, or the float network's soft labels, as `TrainConfig.targets` says."""
    if config.targets == "labels":
        return Targets(data.search.labels, data.validation.labels)

    def soft(images: np.ndarray) -> np.ndarray:
        logits = float_logits(module, variables, images)
        fixed = np.rint(logits * 2**SOFT_LABEL_FRACTION).astype(np.int32)
        return np.asarray(softmax(jnp.asarray(fixed), fraction_bits=SOFT_LABEL_FRACTION))

    return Targets(soft(data.search.images), soft(data.validation.images))


def stage_problem(
    config: TrainConfig,
    data: Dataset,
    network: QuantizedNetwork,
    targets: Targets,
    genes: tuple[Genes, ...],
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
        candidate_chunk=config.candidate_chunk,
    )


def _search(
    config: TrainConfig, data: Dataset, network: QuantizedNetwork, targets: Targets
) -> tuple[QuantizedNetwork, dict[str, Result]]:
    """Run the stages one after the other, each from the accepted network of the one before."""
    searches: dict[str, Result] = {}
    left = config.max_seconds
    for stage in stages(config):
        problem = stage_problem(config, data, network, targets, stage.genes)
        algorithm = Coevolution(problem.space, stage.config.search)
        folder = config.folder / stage.name
        began = time.monotonic()
        searches[stage.name] = result = evolve(
            algorithm,
            problem,
            config.seed,
            generations=stage.config.generations,
            validate_every=config.validate_every,
            patience=config.patience,
            max_seconds=left,
            scan_length=config.scan_length,
            devices=config.device,
            folder=folder,
            resume=config.resume and folder.exists(),
            title=" ".join(stage.genes),
        )
        network = problem.network(network, result.solution)
        if result.stopped in ("interrupted", "time"):
            console.print(
                f"stopped in {stage.name} after {result.generations} generations; "
                "--resume goes on from here"
            )
            break
        if left is not None:
            left = max(left - (time.monotonic() - began), 0.0)
    return network, searches


def _accuracies(logits: Callable[[np.ndarray], Any], data: Dataset) -> dict[str, float]:
    return {
        "validation": accuracy(logits, data.validation),
        "test": accuracy(logits, data.test),
    }


def accuracy(logits: Callable[[np.ndarray], Any], split: Split) -> float:
    """Share of images whose largest logit is their label's."""
    return float(np.mean(np.argmax(logits(split.images), axis=1) == split.labels))


def _claim(config: TrainConfig, data: Dataset) -> None:
    """Make the run folder, or refuse one that holds another run."""
    path = config.folder / files.CONFIG
    if path.exists() and not config.resume:
        raise QevoError(
            f"{config.folder} already holds a run: add --resume to go on with it, or choose "
            "another --name (nothing in it was changed)"
        )
    if config.resume and not path.exists():
        raise QevoError(f"nothing to resume: {path} does not exist")
    config.folder.mkdir(parents=True, exist_ok=True)
    values = files.config_values(config) | {"data_sha256": data.fingerprint()}
    if config.resume:
        _refuse_changes(config, files.read_json(path), values)
    files.write_json(path, values)


# Settings of which a resumed run may have others: they change no result, or only extend it.
_FREE = {"resume", "max_seconds", "scan_length", "candidate_chunk", "device", "arithmetic", "runs"}


def _refuse_changes(config: TrainConfig, old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = _flat(old), _flat(new)
    free = _FREE | {f"{s}.generations" for s in ("constants", "weights")}
    changed = [
        f"{key}: {old.get(key, '(not set)')} -> {new.get(key, '(not set)')}"
        for key in sorted(old.keys() | new.keys())
        if key not in free and old.get(key) != new.get(key)
    ]
    if changed:
        raise QevoError(
            f"{config.folder} was run with other settings; changed:\n  "
            + "\n  ".join(changed)
            + "\nresume with the old ones, or choose another --name (nothing was changed)"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _say(config: TrainConfig, result: dict[str, Any], searches: dict[str, Result]) -> None:
    console.print(accuracy_table(result["accuracy"]))
    bits = ", ".join(f"{layer} {bits}" for layer, bits in result["bits"].items())
    spent = sum(r.seconds for r in searches.values())
    console.print(
        f"weights: {bits}; activations {config.activation_bits} bit\n"
        f"{result['generations']:,} generations, {result['evaluations']:,} networks evaluated in "
        f"{spent:.0f} s of search"
    )
    for name in (files.NETWORK, files.PICTURE, files.RESULT):
        console.print(f"wrote {config.folder / name}", highlight=False)
