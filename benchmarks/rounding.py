"""Seconds that each way of rounding takes.

    python benchmarks/rounding.py [--networks vgg_16] [--output results/rounding.json]

Networks with random weights, on random images: time hardly depends on what was learnt. The walk
through the float and the integer network is part of it, calibration is not.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np
import tyro
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

from qevo.nets.registry import architecture
from qevo.quantize import FloatTeacher, round_network

IMAGE = (32, 32, 3)


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the roundings."""

    networks: tuple[str, ...] = ("resnet_20", "vgg_16")
    """Architectures for 32x32 images."""
    methods: tuple[str, ...] = ("gptq", "layerwise", "evolutionary")
    """Ways to round."""
    bits: str = "3"
    """Bits of all weights."""
    images: int = 1000
    """Calibration images."""
    output: pathlib.Path | None = None
    """JSON file to write."""


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    rows = [row for name in config.networks for row in measure(name, config)]
    table = Table(title=f"{config.bits} bits, {config.images} images", title_justify="left")
    for column in ("network", "weights", "method", "seconds"):
        table.add_column(column, justify="left" if column in ("network", "method") else "right")
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['weights']:,}",
            row["method"],
            f"{row['seconds']:.0f}",
        )
    Console().print(table)
    if config.output:
        write_record(config.output, record_of(__file__, config, {"rows": rows}))


def measure(name: str, config: Config) -> list[dict[str, Any]]:
    """All methods on one architecture."""
    draw = np.random.RandomState(0)
    images = draw.randint(0, 256, (config.images, *IMAGE)).astype(np.uint8)
    module = architecture(name)
    variables = jax.jit(module.init)(jax.random.key(0), images[:1])
    teacher = FloatTeacher(module, variables, images)
    bits: Any = int(config.bits) if config.bits.isdecimal() else config.bits
    rows = []
    for method in config.methods:
        began = time.perf_counter()
        network = round_network(teacher, bits=bits, method=method)  # type: ignore[arg-type]
        seconds = time.perf_counter() - began
        rows.append(
            {
                "network": name,
                "weights": sum(math.prod(w.shape) for w in network.weights.values()),
                "method": method,
                "seconds": seconds,
            }
        )
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
