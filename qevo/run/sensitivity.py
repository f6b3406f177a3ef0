"""`qevo sensitivity`: what each layer costs at every number of bits, and a budget shared out."""

from __future__ import annotations

import dataclasses
import glob
import pathlib
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from qevo.compress.allocation import Allocation, allocate
from qevo.core.devices import devices_of, own_devices
from qevo.core.progress import ProgressReport
from qevo.data import Dataset
from qevo.errors import QevoError
from qevo.nets.arithmetic import levels
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.bits import read_bits
from qevo.quantize.convert import FloatTeacher, layer_names
from qevo.quantize.methods import ROUNDINGS, round_network
from qevo.quantize.outputs import accuracy, divergence, float_logits
from qevo.quantize.rounding import round_squared_error
from qevo.quantize.sensitivity import IMAGES, BitsCost, bits_costs, entropy_bytes, packed_bytes
from qevo.report.sensitivity import (
    draw_sensitivity,
    sensitivity_table,
    size_table,
    whole_network_table,
)
from qevo.run import folder as files
from qevo.run.command import command_line
from qevo.run.config import (
    NetworkConfig,
    SensitivityConfig,
    TrainConfig,
)
from qevo.run.console import console, say
from qevo.run.own import check_counts, own_network, refine_data
from qevo.run.preparation import load_data
from qevo.run.provenance import origin
from qevo.run.teacher import float_module, read_teacher

_OWN = ("calibration", "held_out", "device")  # settings that no run decides
CURVE = 60  # budgets that the picture's curve is drawn through
_CURVE_STATES = 1 << 10  # of each: it need not be proved the least

Bits = str | int


def measure_sensitivity(
    config: SensitivityConfig, run: pathlib.Path | None = None
) -> dict[str, Any]:
    """Measure the layers, share out the budget if there is one, and report.

    Args:
      config: the settings; they say the float network where no run does.
      run: a run folder of `qevo train` or `qevo refine`, for its float network, images, split and
        activation bits.

    Returns:
      What sensitivity.json holds.

    Raises:
      QevoError: bits, budgets or a network that cannot be, or a folder that holds no run.
    """
    columns = _columns(config)
    kind = own_devices(devices_of(config.device))[0] if config.device else None
    with jax.default_device(kind):
        began = time.monotonic()
        subject = _subject(config, run)
        budget = _budget(config, columns, subject.weights)
        images = subject.data.search.images[: subject.config.calibration]
        teacher = FloatTeacher(
            subject.module,
            subject.variables,
            images,
            activation_bits=subject.config.activation_bits,
        )
        say(f"{subject.name}  {subject.data.source}: {len(images):,} images to fit to")
        costs = _measure(teacher, columns, config)
        table = {
            name: {
                "weights": subject.weights[name],
                "bits": {str(value): cost._asdict() for value, cost in row.items()},
            }
            for name, row in costs.items()
        }
        result: dict[str, Any] = {
            "command": command_line(config, run),
            "network": subject.name,
            "method": config.method,
            "size": config.size,
            "settings": dataclasses.asdict(dataclasses.replace(subject.config, output=None)),
            "images": min(len(images), IMAGES),
            "layers": table,
            "curve": _curve(costs, config.size),
            "allocation": None,
            "whole_network": None,
            "seconds": time.monotonic() - began,
            **origin(config.device),
        }
        folder = _folder(config, run, subject)
        _write(folder, result)
        if budget is not None:
            try:
                found = _share_out(costs, config.size, budget)
            except QevoError as error:
                kept = folder / files.SENSITIVITY
                raise QevoError(f"{error}; the measurement is in {kept}") from None
            chosen = {n: columns[option] for n, option in zip(costs, found.choice, strict=True)}
            result["allocation"] = {
                "budget": budget,
                "bits": chosen,
                "bytes": found.cost,
                "sensitivity": found.loss,
                "bound": found.bound,
                "flags": bits_flags(chosen),
            }
            result["whole_network"] = _whole(config, subject, teacher, costs, chosen, budget)
            result["seconds"] = time.monotonic() - began
            _write(folder, result)
    _show(folder, result)
    return result


def bits_flags(chosen: Mapping[str, Bits]) -> str:
    """The ``--bits`` of `qevo refine` and `qevo train` for one number of bits for each layer.

    The most frequent one stands for all, and the exceptions follow.
    """
    ((usual, _),) = Counter(chosen.values()).most_common(1)
    rules = [f'"*={usual}"']
    rules += [f'"{glob.escape(name)}={v}"' for name, v in chosen.items() if v != usual]
    return " ".join(["--bits", *rules])


class _Subject(NamedTuple):
    """The float network that is measured."""

    name: str
    module: nn.Module
    variables: Any
    data: Dataset
    config: SensitivityConfig  # with a run's settings
    weights: dict[str, int]  # of each layer


def _subject(config: SensitivityConfig, run: pathlib.Path | None) -> _Subject:
    """As the settings have it, or a run."""
    known = None if run is None else files.read_config(run)
    if known is not None:
        decided = {field.name for field in dataclasses.fields(NetworkConfig)} - set(_OWN)
        asked = {key for key in decided if getattr(config, key) != getattr(SensitivityConfig, key)}
        other = {key for key in asked if getattr(config, key) != getattr(known, key, None)}
        if other:
            flags = " and ".join(f"--{key.replace('_', '-')}" for key in sorted(other))
            raise QevoError(f"{run} says which network and images: leave out {flags}")
        settings = {key: getattr(known, key) for key in decided if hasattr(known, key)}
        config = dataclasses.replace(config, **settings)
    check_counts(config)
    if run is not None and isinstance(known, TrainConfig):
        here = run.resolve()  # a run folder may have been moved
        known = dataclasses.replace(known, runs=here.parent, name=here.name)
        name, data = known.architecture, load_data(known)
        module = float_module(known, data)
        variables = read_teacher(run / files.TEACHER, module, data.search.images)
    else:
        name, data = config.network, refine_data(config)
        module, variables = own_network(config, data)
    if run is not None:
        files.refuse_changed_data(run, data)
    flat: dict[str, Any] = flatten_dict(variables["params"], sep="/")
    weights = {name: flat[f"{name}/kernel"].size for name in layer_names(variables["params"])}
    return _Subject(name, module, variables, data, config, weights)


def _columns(config: SensitivityConfig) -> list[Bits]:
    """The numbers of bits to choose from, most first."""
    found: dict[Bits, int] = {}
    for word in config.bits:
        value = read_bits(word)
        low, high = levels(value, "--bits")
        found[value] = high - low
    if not found:
        raise QevoError("--bits needs at least one of ternary and 2 to 8")
    return sorted(found, key=lambda value: -found[value])


def _budget(
    config: SensitivityConfig, columns: list[Bits], weights: Mapping[str, int]
) -> float | None:
    """Bytes, or ``None`` without a budget; refused where no choice of packed bits keeps it."""
    if config.budget is not None and config.average_bits is not None:
        raise QevoError("give --budget or --average-bits, not both")
    if config.budget is not None:
        flag, budget = f"--budget {config.budget}", config.budget
    elif config.average_bits is not None:
        flag = f"--average-bits {config.average_bits:g}"
        budget = sum(packed_bytes(count, config.average_bits) for count in weights.values())
    else:
        return None
    least = sum(packed_bytes(count, columns[-1]) for count in weights.values())
    if config.size == "packed" and budget < least:
        raise QevoError(
            f"{flag}: {sum(weights.values()):,} weights take {least:,} bytes at {columns[-1]}, the"
            f" fewest of --bits, more than {budget:,}"
        )
    return budget


def _measure(
    teacher: FloatTeacher, columns: list[Bits], config: SensitivityConfig
) -> dict[str, dict[Bits, BitsCost]]:
    total = len(columns) * len(layer_names(teacher.folded))
    with ProgressReport(total, 0, title="layers and bits", enabled=True) as progress:
        rounding = ROUNDINGS.get(config.method, round_squared_error)
        return bits_costs(teacher, columns, rounding=rounding, progress=progress.show)


def _size(cost: BitsCost, size: str) -> float:
    return cost.packed if size == "packed" else cost.coded


def _share_out(
    costs: Mapping[str, Mapping[Bits, BitsCost]], size: str, budget: float, **limits: int
) -> Allocation:
    sizes = [[_size(cost, size) for cost in row.values()] for row in costs.values()]
    losses = [[cost.sensitivity for cost in row.values()] for row in costs.values()]
    return allocate(sizes, losses, budget, **limits)


def _totals(costs: Mapping[str, Mapping[Bits, BitsCost]], size: str) -> dict[Bits, float]:
    """Bytes of all layers at the same bits."""
    columns = next(iter(costs.values()))
    return {value: sum(_size(row[value], size) for row in costs.values()) for value in columns}


def _curve(costs: Mapping[str, Mapping[Bits, BitsCost]], size: str) -> list[tuple[float, float]]:
    """Bytes and the least sum of sensitivities, from the smallest network to the largest."""
    ends = [
        sum(pick(_size(cost, size) for cost in row.values()) for row in costs.values())
        for pick in (min, max)
    ]
    budgets = np.geomspace(ends[0] * (1 + 1e-9), ends[1] * (1 + 1e-9), CURVE)
    found = [_share_out(costs, size, float(b), max_states=_CURVE_STATES) for b in budgets]
    return sorted({(a.cost, a.loss) for a in found})


def _whole(
    config: SensitivityConfig,
    subject: _Subject,
    teacher: FloatTeacher,
    costs: Mapping[str, Mapping[Bits, BitsCost]],
    chosen: dict[str, Bits],
    budget: float,
) -> dict[str, dict[str, float]]:
    """Size, divergence and accuracy of whole networks: shared out, and all layers alike.

    Of the latter those next to the budget.
    """
    totals = _totals(costs, config.size)
    within = [value for value in totals if totals[value] <= budget]
    beyond = [value for value in totals if totals[value] > budget]
    alike = [max(within, key=totals.__getitem__)] if within else []
    alike += [min(beyond, key=totals.__getitem__)] if beyond else []
    held_out = subject.data.validation.take(
        np.arange(min(subject.config.held_out, len(subject.data.validation)))
    )
    expected = float_logits(subject.module, subject.variables, held_out.images)

    def measured(network: QuantizedNetwork) -> dict[str, float]:
        weights = {name: np.asarray(kernel) for name, kernel in network.weights.items()}
        packed = (packed_bytes(w.size, network.bits[name]) for name, w in weights.items())
        coded = (entropy_bytes(w) for w in weights.values())
        found = network(held_out.images) * network.output_scale
        return {
            "bytes": sum(packed if config.size == "packed" else coded),
            "calibration": teacher.divergence(network),
            "held_out": divergence(expected, found),
            "accuracy": accuracy(found, held_out.labels),
        }

    known = {"accuracy": accuracy(expected, held_out.labels), "images": len(held_out)}
    result = {"float": known}
    for label, bits in [("shared", chosen), *((f"all {value}", value) for value in alike)]:
        with console.status(f"measuring the whole network: {label}"):
            network = round_network(teacher, bits=bits, method=config.method)
            result[label] = measured(network)
    return result


def _folder(config: SensitivityConfig, run: pathlib.Path | None, subject: _Subject) -> pathlib.Path:
    name = subject.name.rpartition(":")[2].replace("/", "_")
    folder = config.output or run or pathlib.Path("runs") / f"{name}-sensitivity"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(folder: pathlib.Path, result: dict[str, Any]) -> None:
    files.write_json(folder / files.SENSITIVITY, result)
    draw_sensitivity(folder / files.SENSITIVITY_PICTURE, result)


def _show(folder: pathlib.Path, result: dict[str, Any]) -> None:
    console.print(sensitivity_table(result))
    console.print(size_table(result))
    if result["allocation"]:
        console.print(whole_network_table(result))
        say(result["allocation"]["flags"])
    for file in (files.SENSITIVITY, files.SENSITIVITY_PICTURE):
        say(f"wrote {folder / file}")
