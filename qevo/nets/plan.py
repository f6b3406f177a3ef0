"""How a network's candidates are computed on a machine: a path for each layer.

A plan changes no result, only the time: every path gives the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from qevo.core.devices import cores, device_in_use
from qevo.integer.products import Path
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.network import QuantizedNetwork

ROWS = 64  # images of a convolutional network at once: its patches stay in the cache


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one layer is computed, and what that costs."""

    path: Path
    bound: int  # proved limit on the accumulator
    exact_below: int  # what the path needs of the bound
    bytes: int  # of input, kernel and accumulator of the candidates and images computed at once
    operations: int  # multiply-adds per image
    seconds: float  # per candidate and image, of this layer alone


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a population is evaluated.

    Attributes:
      layers: by name, in the order of computation.
      candidate_chunk: candidates side by side; 1 for one after the other.
      rows: images at once.
      device: what it was measured on.
      arithmetic: "int" or "fast".
      images_per_second: images of one candidate per second through the whole network.
    """

    layers: Mapping[str, LayerPlan]
    candidate_chunk: int
    rows: int
    device: str
    arithmetic: Arithmetic
    images_per_second: float

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each layer."""
        return {name: layer.path for name, layer in self.layers.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `plan_from_json` makes the plan again."""
        return dataclasses.asdict(self)


def image_rows(network: QuantizedNetwork, batch: int) -> int:
    """Images to compute at once: `ROWS` where there are convolutions, else the batch."""
    convolutions = any(kernel.ndim == 4 for kernel in network.weights.values())
    return min(ROWS, batch) if convolutions else batch


def describe_device() -> str:
    """The kind of the device in use; for a CPU, its model and the cores of this process."""
    device = device_in_use()
    if device.platform != "cpu":
        return device.device_kind
    model = platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines: dict[str, str] = {}
        for line in info.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            lines[name.strip()] = value.strip()
        features = hashlib.sha256(lines.get("flags", "").encode()).hexdigest()[:8]
        model = f"{lines.get('model name', model)}, features {features}"
    return f"{model}, {cores()} cores"


def read_plans(cache: pathlib.Path | None) -> dict[str, Any]:
    """The plans in a file; none where it is missing or unreadable: they can be measured again."""
    try:
        stored = json.loads(cache.read_text()) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def write_plans(cache: pathlib.Path, stored: dict[str, Any]) -> None:
    """Replace the file; a plan that cannot be kept is no reason to fail."""
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        new = cache.with_name(f"{cache.name}.{os.getpid()}")
        new.write_text(json.dumps(stored))
        new.replace(cache)


def plan_from_json(stored: dict[str, Any]) -> Plan:
    """The plan of `Plan.to_json`."""
    layers = {name: LayerPlan(**layer) for name, layer in stored["layers"].items()}
    return Plan(**{**stored, "layers": layers})
