"""`qevo train` and `qevo refine`: from images to an evolved integer network and its report."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.markup import escape

from qevo.algorithms.coevolution import CoevolutionState
from qevo.core.devices import devices_of, own_devices
from qevo.core.evolve import Result
from qevo.core.folder import METRICS
from qevo.core.hosts import from_first
from qevo.data import Dataset
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.outputs import accuracy, float_logits
from qevo.quantize.sensitivity import layer_costs
from qevo.report.layers import draw_layers, layers_table
from qevo.report.picture import draw_run
from qevo.report.table import accuracy_table
from qevo.run import folder as files
from qevo.run.claim import claimed, refuse_changes
from qevo.run.config import AnyConfig, RefineConfig
from qevo.run.console import console, say
from qevo.run.preparation import Preparation, check, load_data, prepare
from qevo.run.provenance import origin
from qevo.run.searching import search
from qevo.run.tracking import Callback


def run_pipeline(config: AnyConfig, *, callback: Callback | None = None) -> dict[str, Any]:
    """Round, search and report; returns what result.json holds.

    Of several processes (`qevo.core.hosts`), all search, each on data that it loads itself. The
    first does the rest, by its own configuration and in its own run folder.

    Args:
      config: the run.
      callback: called with each generation's record, in order, in the first process: "generation"
        counts through all stages, and a stage's name goes in front of the other names
        (`qevo.run.to_tracker`).

    Raises:
      QevoError: bad settings or data, or a folder that holds another run or that another process
        is at work in.
      KeyboardInterrupt: Ctrl-C during a search, once its checkpoint is written.
    """
    config = from_first(lambda: config)
    device = own_devices(devices_of(config.device))[0] if config.device else None
    with contextlib.ExitStack() as held, jax.default_device(device):
        data = load_data(config)
        ready = from_first(lambda: _begin(config, data, held))
        start = ready.networks[config.start]
        network, searches = search(config, data, start, ready.targets, callback)
        return from_first(lambda: _finish(config, data, ready, network, searches))


def run_once(config: AnyConfig) -> dict[str, Any]:
    """What result.json holds: read where the run is complete, else run, or gone on with.

    Raises:
      QevoError: as `run_pipeline`, and for a folder whose run had other settings.
    """
    config, result = from_first(lambda: known(config))
    return run_pipeline(config) if result is None else result


def known(config: AnyConfig) -> tuple[AnyConfig, dict[str, Any] | None]:
    """How to run what the folder does not hold yet, or what came out.

    Raises:
      QevoError: the folder's run had other settings.
    """
    if not (config.folder / files.CONFIG).exists():
        return config, None
    config = dataclasses.replace(config, resume=True)
    stored = files.read_json(config.folder / files.CONFIG)
    values = files.config_values(config)
    fingerprints = {key: stored[key] for key in stored if key.endswith("_sha256")}
    refuse_changes(config, stored, {"data_sha256": None} | values | fingerprints)
    extended = files.planned(stored) != files.planned(values)
    return config, None if extended else files.read_result(config.folder)


def _begin(config: AnyConfig, data: Dataset, held: contextlib.ExitStack) -> Preparation:
    """Claim the run folder, as long as it is held, and make there what the search begins with."""
    check(config, data)
    held.enter_context(claimed(config, data))
    console.print(
        f"[bold]{escape(str(config.folder))}[/]  {escape(data.source)}: {len(data.search):,} "
        f"search, {len(data.validation):,} validation, {len(data.test):,} test images",
        soft_wrap=True,
    )
    ready = prepare(config, data)
    before = files.read_result(config.folder)
    if before and before["generations"] < sum(before["planned"].values()):
        (config.folder / files.RESULT).unlink()  # it speaks of the session before
    return ready


def _finish(
    config: AnyConfig,
    data: Dataset,
    ready: Preparation,
    network: QuantizedNetwork,
    searches: dict[str, Result],
) -> dict[str, Any]:
    """Evaluate, report and keep what was found."""
    accuracies = {
        "float": _accuracies(lambda x: float_logits(ready.module, ready.variables, x), data),
        **{name: _accuracies(rounded, data) for name, rounded in ready.networks.items()},
        "evolved": _accuracies(network, data),
    }
    path = config.folder / files.NETWORK
    network.save(path)
    peaks = [r.peak_memory_bytes for r in searches.values() if r.peak_memory_bytes is not None]
    result = {
        "accuracy": accuracies,
        "bits": {layer: network.bits[layer] for layer in network.layers},
        "activation_bits": config.activation_bits,
        "data": config.data,
        "network": config.network if isinstance(config, RefineConfig) else config.architecture,
        "calibration": min(config.calibration, len(data.search)),
        "planned": files.planned(files.config_values(config)),
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
        **origin(config.device),
        "network_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    files.write_json(config.folder / files.RESULT, result)
    if isinstance(config, RefineConfig):
        layers = _compare_layers(config, data, ready, network)
        files.write_json(config.folder / files.LAYERS, layers)
        draw_layers(config.folder / files.LAYERS_PICTURE, layers)
        console.print(layers_table(layers))
    metrics = {name: config.folder / name / METRICS for name in searches}
    draw_run(
        config.folder / files.PICTURE,
        accuracy=accuracies,
        metrics=metrics,
        start=ready.networks[config.start],
        network=network,
        searches={
            name: r.carry.state
            for name, r in searches.items()
            if isinstance(r.carry.state, CoevolutionState)
        },
        validation_images=len(data.validation),
    )
    _show(config, result, searches)
    return result


def _compare_layers(
    config: RefineConfig, data: Dataset, ready: Preparation, network: QuantizedNetwork
) -> dict[str, Any]:
    """What each layer's rounding costs, to the nearest level and in the end; for layers.json."""
    with console.status("measuring the layers"):
        teacher = FloatTeacher(
            ready.module,
            ready.variables,
            data.search.images[: config.calibration],
            activation_bits=config.activation_bits,
        )
        nearest = ready.networks["nearest"]
        costs = layer_costs(teacher, {"nearest": nearest, "evolved": network})
    return {
        name: {
            "bits": network.bits[name],
            "weights": int(np.size(network.weights[name])),
            "changed": float(np.mean(network.weights[name] != nearest.weights[name])),
            **{kind: dataclasses.asdict(value) for kind, value in cost.items()},
        }
        for name, cost in costs.items()
    }


def _accuracies(logits: Callable[[np.ndarray], Any], data: Dataset) -> dict[str, float]:
    parts = {"validation": data.validation, "test": data.test}
    return {name: accuracy(logits(part.images), part.labels) for name, part in parts.items()}


def _show(config: AnyConfig, result: dict[str, Any], searches: dict[str, Result]) -> None:
    console.print(accuracy_table(result["accuracy"]))
    bits = ", ".join(f"{layer} {bits}" for layer, bits in result["bits"].items())
    spent = sum(r.seconds for r in searches.values())
    console.print(
        f"weights: {bits}; activations {config.activation_bits} bit\n"
        f"{result['generations']:,} generations, {result['evaluations']:,} networks evaluated in "
        f"{spent:.0f} s of search"
    )
    for name in (files.NETWORK, files.PICTURE, files.RESULT):
        say(f"wrote {config.folder / name}")
