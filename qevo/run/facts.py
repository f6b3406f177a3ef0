"""What a report says of one run, read from its folder: plain JSON values.

A run may be going on, stopped, or lack what it was made from. What cannot be said is listed with
the reason and, where there is one, the command that makes it.
"""

from __future__ import annotations

import base64
import dataclasses
import pathlib
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from safetensors import safe_open

from qevo.compress import FileSummary, compress, open_compressed, summarise
from qevo.core.folder import METRICS, read_metrics
from qevo.data import Dataset
from qevo.errors import QevoError
from qevo.integer.loss import UNIT
from qevo.nets.arithmetic import levels
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.outputs import float_logits
from qevo.quantize.sensitivity import packed_bytes
from qevo.report.figures import png_of_image
from qevo.run import folder as files
from qevo.run import listing
from qevo.run.command import command_line
from qevo.run.config import AnyConfig, RefineConfig
from qevo.run.networks import network_of
from qevo.run.own import own_network
from qevo.run.preparation import load_data
from qevo.run.searching import stages
from qevo.run.so_far import confidence, kept_state, network_so_far
from qevo.run.teacher import float_module, read_teacher

T = TypeVar("T")

ENVIRONMENT = ("versions", "device", "commit", "peak_memory_bytes", "network_sha256")
COMPARED = 2000  # validation images at most on which the float and the integer network are compared


@dataclasses.dataclass(frozen=True)
class Gatherer:
    """A run folder, and what was found missing there."""

    path: pathlib.Path
    config: AnyConfig
    missing: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def lacks(self, part: str, why: str, make: str = "") -> None:
        """Note that a part of the report is missing, and the command that makes it."""
        self.missing.append({"part": part, "why": why, "make": make})

    def attempt(self, part: str, read: Callable[[], T]) -> T | None:
        """What ``read`` returns, or a note of why it could not."""
        try:
            return read()
        except (QevoError, OSError) as error:
            self.lacks(part, str(error))
        except (KeyError, TypeError, ValueError) as error:
            self.lacks(part, f"its file is damaged or another run's: {error!r}")
        return None


def gather(path: pathlib.Path, *, examples: int) -> dict[str, Any]:
    """The numbers of a run, and so many images on which its networks disagree.

    Raises:
      QevoError: the folder holds no run, or one of another version of qevo.
    """
    here = path.resolve()  # a run folder may have been moved
    config = dataclasses.replace(files.read_config(path), runs=here.parent, name=here.name)
    run, summary = Gatherer(path, config), listing.summarise(here)
    found = files.read_result(path) or {}
    if not found:
        verb = "is going on" if summary.state == "running" else "has not finished"
        command = "" if summary.state == "running" else _resume(run)
        run.lacks("accuracy", f"the run {verb}: accuracies are measured when it ends", command)
    data = run.attempt("images", lambda: _data(run))
    start = run.attempt("start", lambda: network_of(path / f"{config.start}.safetensors"))
    network = start and run.attempt("network", lambda: _network(run, start, finished=bool(found)))
    file = network and summarise(open_compressed(compress(network)))
    return {
        **dataclasses.asdict(summary),
        "folder": str(path),
        "command": command_line(files.read_config(path)),
        "settings": files.read_json(path / files.CONFIG),
        "activation_bits": config.activation_bits,
        "accuracy": found.get("accuracy"),
        "start": config.start,
        "source": data and data.source,
        "images": data and _counts(data),
        "seconds": found.get("seconds"),
        "curve": run.attempt("curve", lambda: _curve(run, data)),
        "layers": start and network and file and _layers(run, start, network, file),
        "size": network and file and _size(network, file),
        "examples": (
            network
            and data
            and run.attempt("examples", lambda: _examples(run, data, network, examples))
        ),
        "environment": {name: found.get(name) for name in ENVIRONMENT},
        "missing": run.missing,
    }


def _resume(run: Gatherer) -> str:
    command = "refine" if isinstance(run.config, RefineConfig) else "train"
    words = ["qevo", command, "--runs", str(run.config.runs), "--name", run.config.name]
    return shlex.join([*words, "--resume"])


def _data(run: Gatherer) -> Dataset:
    data = load_data(run.config)
    files.refuse_changed_data(run.path, data)
    return data


def _counts(data: Dataset) -> dict[str, int]:
    return {part: len(getattr(data, part)) for part in ("search", "validation", "test")}


def _network(run: Gatherer, start: QuantizedNetwork, *, finished: bool) -> QuantizedNetwork:
    path = run.path / files.NETWORK  # while a run is extended, that of before
    return network_of(path) if finished else network_so_far(run.config, start)


def _curve(run: Gatherer, data: Dataset | None) -> dict[str, Any] | None:
    """Validation accuracy and loss at every look, over evaluations and seconds of search.

    The log has no clock, so that equal runs leave equal logs: the seconds of a stage are shared
    out evenly among its generations.
    """
    if not stages(run.config):
        run.lacks("curve", "the run only rounds: both of its searches have 0 generations")
        return None
    images = len(data.validation) if data else _validation_rows(run.path / files.TARGETS)
    if images is None:
        run.lacks("curve", "without the images nobody knows how many there are to be right on")
        return None
    evaluations, seconds = 0, 0.0
    curve: dict[str, list[Any]] = {
        name: [] for name in ("evaluations", "seconds", "accuracy", "loss", "stages")
    }
    for stage in stages(run.config):
        folder = run.path / stage.name
        records, kept = read_metrics(folder / METRICS), kept_state(folder)
        if not records:
            continue
        each = kept.seconds / kept.generation if kept and kept.generation else 0.0
        population = stage.config.search.population
        for record in records:
            if "validation_errors" not in record:
                continue
            curve["evaluations"].append(evaluations + population * record["generation"])
            curve["seconds"].append(seconds + each * record["generation"])
            curve["accuracy"].append(1 - record["validation_errors"] / images)
            curve["loss"].append(record["validation"] / images / UNIT)
        evaluations += population * records[-1]["generation"]
        seconds += each * records[-1]["generation"]
        ends = {"name": stage.name, "evaluations": evaluations, "seconds": seconds}
        curve["stages"].append(ends)
    if not curve["accuracy"]:
        run.lacks("curve", "the search has not looked at the validation images yet")
        return None
    return curve


def _validation_rows(path: pathlib.Path) -> int | None:
    if not path.exists():
        return None
    with safe_open(path, framework="numpy") as file:
        return int(file.get_slice("validation").get_shape()[0])


def _layers(
    run: Gatherer, start: QuantizedNetwork, network: QuantizedNetwork, file: FileSummary
) -> list[dict[str, Any]]:
    """Every layer: levels before and after, what changed, what it takes and what it costs."""
    sure = run.attempt("confidence", lambda: confidence(run.config, start)) or {}
    costs = run.attempt("sensitivity", lambda: _sensitivity(run, network)) or {}
    coded = {layer.name: layer for layer in file.layers}
    rows = []
    for name in network.layers:
        before, after = (np.asarray(n.weights[name]) for n in (start, network))
        low, high = levels(network.bits[name])
        then, now = (
            np.bincount(w.ravel().astype(int) - low, minlength=high - low + 1).tolist()
            for w in (before, after)
        )
        rows.append(
            {
                "name": name,
                "shape": list(after.shape),
                "bits": network.bits[name],
                "weights": int(after.size),
                "zeros": float(np.mean(after == 0)),
                "changed": float(np.mean(before != after)),
                "constants_changed": _constants_changed(start, network, name),
                "confidence": sure.get(name),
                "sensitivity": costs.get(name),
                "bytes": coded[name].bytes,
                "bits_per_weight": coded[name].bits_per_weight,
                "levels": {"low": low, "counts": now, "before": then},
            }
        )
    return rows


def _constants_changed(start: QuantizedNetwork, network: QuantizedNetwork, name: str) -> float:
    pairs = [
        (np.ravel(start.constants[name][key]), np.ravel(network.constants[name][key]))
        for key in ("multiplier", "bias")
    ]
    before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return float(np.mean(before != after))


def _sensitivity(run: Gatherer, network: QuantizedNetwork) -> dict[str, float | None]:
    """Divergence in nats if a layer alone is rounded, as the run or `qevo sensitivity` has it."""
    own, measured = run.path / files.LAYERS, run.path / files.SENSITIVITY
    if own.exists():
        return {
            name: layer["evolved"]["sensitivity"] for name, layer in files.read_json(own).items()
        }
    if measured.exists():
        rows = files.read_json(measured)["layers"]
        cells = {name: rows[name]["bits"].get(str(network.bits[name])) for name in network.layers}
        return {name: cell and cell["sensitivity"] for name, cell in cells.items()}
    command = shlex.join(["qevo", "sensitivity", str(run.path)])
    run.lacks("sensitivity", "what each layer costs has not been measured", command)
    return {}


def _size(network: QuantizedNetwork, file: FileSummary) -> dict[str, Any]:
    """Bytes of the float parameters and of the integer network, side by side and coded."""
    packed = sum(
        packed_bytes(int(np.size(w)), network.bits[name]) for name, w in network.weights.items()
    )
    return {
        "parameters": file.parameters,
        "weights": file.weights,
        "zeros": file.zeros / file.weights,
        "float32": 4 * file.parameters,
        "packed_weights": packed,
        "coded_weights": sum(layer.bytes for layer in file.layers),
        "constants": file.constants,
        "header": file.overhead,
        "file": file.bytes,
        "ratio": file.ratio,
    }


def _examples(
    run: Gatherer, data: Dataset, network: QuantizedNetwork, count: int
) -> dict[str, Any]:
    """The first validation images on which the float and the integer network disagree.

    Test images stay closed: who looks at them one by one chooses by them.
    """
    config = run.config
    if isinstance(config, RefineConfig):
        module, variables = own_network(config, data)
    else:
        module = float_module(config, data)
        variables = read_teacher(run.path / files.TEACHER, module, data.search.images)
    split = data.validation.take(np.arange(min(COMPARED, len(data.validation))))
    teacher, ours = (
        np.argmax(logits, axis=1)
        for logits in (float_logits(module, variables, split.images), network(split.images))
    )
    odd = np.flatnonzero(teacher != ours)
    shown = [
        {
            "index": int(row),
            "label": data.classes[split.labels[row]],
            "float": data.classes[teacher[row]],
            "integer": data.classes[ours[row]],
            "float_right": bool(teacher[row] == split.labels[row]),
            "integer_right": bool(ours[row] == split.labels[row]),
            "png": base64.b64encode(png_of_image(split.images[row])).decode(),
        }
        for row in odd[:count]
    ]
    return {
        "images": len(split),
        "differ": len(odd),
        "float_right": int(np.sum(teacher[odd] == split.labels[odd])),
        "integer_right": int(np.sum(ours[odd] == split.labels[odd])),
        "shown": shown,
    }
