"""`qevo train`: from images to an evolved integer network and its report."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape

from qevo.algorithms.coevolution import Coevolution
from qevo.core.devices import devices_of, own_devices
from qevo.core.evolve import Result, evolve
from qevo.core.folder import CHECKPOINT, METRICS
from qevo.core.hosts import from_first, is_first
from qevo.data import Dataset, Split, load
from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.nets.plan import Plan, plan
from qevo.problems.network import Genes, NetworkProblem
from qevo.quantize.convert import float_logits
from qevo.report.picture import draw_run
from qevo.report.table import accuracy_table
from qevo.run import folder as files
from qevo.run.config import StageConfig, TrainConfig
from qevo.run.preparation import Preparation, Targets, check, prepare
from qevo.run.provenance import commit, device, versions
from qevo.run.session import plans_file

LAST = "2_weights"  # the last stage

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
        Stage(LAST, ("weights",), config.weights),
    )
    return tuple(stage for stage in both if stage.config.generations > 0)


def train(config: TrainConfig) -> dict[str, Any]:
    """Run it all; returns what result.json holds.

    Of several processes (`qevo.core.hosts`), all search, each on data that it loads itself. The
    first does the rest, by its own configuration and in its own run folder.

    Raises:
      QevoError: bad settings or data, or a folder that holds another run.
      KeyboardInterrupt: Ctrl-C during a search, once its checkpoint is written.
    """
    config = from_first(lambda: config)
    device = own_devices(devices_of(config.device))[0] if config.device else None
    with jax.default_device(device):
        data = load(config.data, seed=config.split_seed)
        ready = from_first(lambda: _begin(config, data))
        start = ready.networks[config.start]
        network, searches = _search(config, data, start, ready.targets)
        return from_first(lambda: _finish(config, data, ready, network, searches))


def train_once(config: TrainConfig) -> dict[str, Any]:
    """What result.json holds: read where the run is complete, else run, or gone on with.

    Raises:
      QevoError: as `train`, and for a folder whose run had other settings.
    """
    config, result = from_first(lambda: _known(config))
    return train(config) if result is None else result


def _known(config: TrainConfig) -> tuple[TrainConfig, dict[str, Any] | None]:
    """How to run what the folder does not hold yet, or what came out."""
    if not (config.folder / files.CONFIG).exists():
        return config, None
    config = dataclasses.replace(config, resume=True)
    stored = files.read_json(config.folder / files.CONFIG)
    values = files.config_values(config)
    _refuse_changes(config, stored, values | {"data_sha256": stored.get("data_sha256")})
    extended = stored["weights"] != values["weights"] or stored["constants"] != values["constants"]
    if extended or not (config.folder / files.RESULT).exists():
        return config, None
    return config, files.read_json(config.folder / files.RESULT)


def _begin(config: TrainConfig, data: Dataset) -> Preparation:
    """Claim the run folder, and make there what the search begins with."""
    check(config, data)
    _claim(config, data)
    console.print(
        f"[bold]{escape(str(config.folder))}[/]  {escape(data.source)}: {len(data.search):,} "
        f"search, {len(data.validation):,} validation, {len(data.test):,} test images",
        soft_wrap=True,
    )
    return prepare(config, data)


def _finish(
    config: TrainConfig,
    data: Dataset,
    ready: Preparation,
    network: QuantizedNetwork,
    searches: dict[str, Result],
) -> dict[str, Any]:
    """Evaluate, report and keep what was found."""
    accuracy = {
        "float": _accuracies(lambda x: float_logits(ready.module, ready.variables, x), data),
        **{name: _accuracies(rounded, data) for name, rounded in ready.networks.items()},
        "evolved": _accuracies(network, data),
    }
    path = config.folder / files.NETWORK
    network.save(path)
    peaks = [r.peak_memory_bytes for r in searches.values() if r.peak_memory_bytes is not None]
    result = {
        "accuracy": accuracy,
        "bits": {layer: network.bits[layer] for layer in network.layers},
        "activation_bits": config.activation_bits,
        "data": config.data,
        "architecture": config.architecture,
        "generations": sum(r.generations for r in searches.values()),
        "evaluations": sum(r.evaluations for r in searches.values()),
        "seconds": {
            **ready.seconds,
            **{name: r.seconds for name, r in searches.items()},
            "compilation": sum(r.compile_seconds for r in searches.values()),
        },
        "compilation_cached": all(r.compile_cached for r in searches.values()),
        "peak_memory_bytes": max(peaks, default=None),
        "seed": config.seed,
        "versions": versions(),
        "device": device(config.device),
        "commit": commit(),
        "network_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    files.write_json(config.folder / files.RESULT, result)
    metrics = {name: config.folder / name / METRICS for name in searches}
    draw_run(
        config.folder / files.PICTURE,
        accuracy=accuracy,
        metrics=metrics,
        start=ready.networks[config.start],
        network=network,
        searches={name: r.carry.state for name, r in searches.items()},
        validation_images=len(data.validation),
    )
    _say(config, result, searches)
    return result


def machine_plan(config: TrainConfig, data: Dataset, network: QuantizedNetwork) -> Plan:
    """How to compute a run's candidates here: kept from an earlier run, or measured."""
    with console.status("measuring how each layer is fastest here"):
        return plan(
            network,
            arithmetic=config.arithmetic,
            batch=min(config.batch, len(data.search)),
            cache=plans_file(),
        )


def stage_problem(
    config: TrainConfig,
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
        candidate_chunk=config.candidate_chunk or machine.candidate_chunk,
    )


def _search(
    config: TrainConfig, data: Dataset, network: QuantizedNetwork, targets: Targets
) -> tuple[QuantizedNetwork, dict[str, Result]]:
    """Run the stages one after the other, each from the accepted network of the one before."""
    searches: dict[str, Result] = {}
    left = config.max_seconds
    machine = from_first(lambda: machine_plan(config, data, network))
    for index, stage in enumerate(stages(config)):
        problem = stage_problem(config, data, network, targets, stage.genes, machine)
        algorithm = Coevolution(problem.space, stage.config.search)
        folder = config.folder / stage.name
        kept = from_first(lambda folder=folder: (folder / CHECKPOINT).exists())
        began = time.monotonic()
        searches[stage.name] = result = evolve(
            algorithm,
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
    folder, path = config.folder, config.folder / files.CONFIG
    if config.resume and not path.exists():
        raise QevoError(f"nothing to resume: {path} does not exist")
    if not config.resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        holds = "holds a run: add --resume to go on with it, or" if path.exists() else "exists:"
        raise QevoError(f"{folder} already {holds} choose another --name (nothing was changed)")
    values = files.config_values(config) | {"data_sha256": data.fingerprint()}
    if config.resume:
        _refuse_changes(config, files.read_json(path), values)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(path, values)


# Settings of which a resumed run may have others: they change no result, or only extend it.
_FREE = {
    "arithmetic",
    "candidate_chunk",
    "device",
    "max_seconds",
    "name",
    "resume",
    "runs",
    "scan_length",
    "weights.generations",
}


def _refuse_changes(config: TrainConfig, old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = _flat(old), _flat(new)
    free = set(_FREE)
    if old.get("data_sha256") == new["data_sha256"]:
        free |= {"data"}  # the same images by another path
    if not (config.folder / LAST).exists():
        free |= {"constants.generations"}  # later stages start from what this one found
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
        path = config.folder / name
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
