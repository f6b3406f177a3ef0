"""How fast each path of `qevo.integer.dot` and `conv` is here: what `choose_path` rests on.

    python benchmarks/paths.py --output paths.json

Each product is followed by `requantize`, as in a network. *alone*: one network. *candidates*: per
candidate, many kernels through `lax.map`; first layers share their input, the others don't. Beside
the time that passed stands the time of all cores, which other programs on the machine disturb less.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

from qevo.integer import Path, choose_path, conv, dot, requantize

DOT_PATHS: tuple[Path, ...] = ("int8", "float32", "bfloat16")
CONV_PATHS: tuple[Path, ...] = get_args(Path)


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure every path on the layers of LeNet-300-100, LeNet-5 and ResNet-8."""

    batch: int = 256
    """Images per batch."""
    candidates: int = 16
    """Kernels per `lax.map`."""
    seconds: float = 0.1
    """Per measurement; the shortest run counts."""
    only: str = ""
    """Measure the layers whose name contains this."""
    output: pathlib.Path | None = None
    """JSON file to write."""


@dataclasses.dataclass(frozen=True)
class Dense:
    """``[B, K] x [K, C]``."""

    name: str
    inputs: int
    outputs: int
    first: bool = False

    paths = DOT_PATHS
    weight_high = 7

    @property
    def bound(self) -> int:
        return self.inputs * 127 * self.weight_high

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (self.inputs,), (self.inputs, self.outputs)

    def product(self, path: Path) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return functools.partial(dot, path=path, bound=self.bound)

    def chosen(self, arithmetic: Literal["int", "fast"], backend: str) -> Path:
        return choose_path("dot", bound=self.bound, arithmetic=arithmetic, backend=backend)


@dataclasses.dataclass(frozen=True)
class Conv:
    """``[B, size, size, inputs]`` with a square kernel."""

    name: str
    size: int
    inputs: int
    outputs: int
    kernel: int
    padding: int
    stride: int = 1
    first: bool = False

    paths = CONV_PATHS
    weight_high = 7

    @property
    def bound(self) -> int:
        return self.kernel**2 * self.inputs * 127 * self.weight_high

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        image = (self.size, self.size, self.inputs)
        return image, (self.kernel, self.kernel, self.inputs, self.outputs)

    def product(self, path: Path) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return functools.partial(
            conv,
            strides=(self.stride, self.stride),
            padding=((self.padding, self.padding),) * 2,
            path=path,
            bound=self.bound,
        )

    def chosen(self, arithmetic: Literal["int", "fast"], backend: str) -> Path:
        return choose_path(
            "conv",
            bound=self.bound,
            arithmetic=arithmetic,
            backend=backend,
            kernel=(self.kernel, self.kernel, self.inputs, self.outputs),
            width=self.size + 2 * self.padding,
        )


CASES: tuple[Dense | Conv, ...] = (
    Dense("LeNet-300-100, 784 to 300", 784, 300, first=True),
    Dense("LeNet-300-100, 300 to 100", 300, 100),
    Conv("LeNet-5, 28x28, 1 to 6, 5x5", 28, 1, 6, 5, 2, first=True),
    Conv("LeNet-5, 14x14, 6 to 16, 5x5", 14, 6, 16, 5, 0),
    Conv("ResNet-8, 32x32, 3 to 16, 3x3", 32, 3, 16, 3, 1, first=True),
    Conv("ResNet-8, 32x32, 16 to 16, 3x3", 32, 16, 16, 3, 1),
    Conv("ResNet-8, 32x32, 16 to 32, 3x3 / 2", 32, 16, 32, 3, 1, stride=2),
    Conv("ResNet-8, 8x8, 64 to 64, 3x3", 8, 64, 64, 3, 1),
)


class Time(NamedTuple):
    """The best of several runs, in milliseconds."""

    elapsed: float
    cores: float  # summed over the threads of this process

    def __str__(self) -> str:
        return f"{self.elapsed:.2f} ({self.cores:.2f})"


def shortest(fn: Callable, *args: jax.Array, seconds: float, networks: int = 1) -> Time:
    """The time per network of the best of the runs that fit into ``seconds``, two at least."""
    compiled = jax.jit(fn)
    jax.block_until_ready(compiled(*args))
    runs, end = [], time.perf_counter() + seconds
    while len(runs) < 2 or time.perf_counter() < end:
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(*args))
        runs.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return Time(*(1e3 * min(column) / networks for column in zip(*runs, strict=True)))


def measure(case: Dense | Conv, path: Path, config: Config) -> dict[str, Time]:
    """Milliseconds per batch and network."""
    rng = np.random.default_rng(0)
    image, kernel = case.shapes
    inputs = 1 if case.first else config.candidates
    x = jnp.asarray(rng.integers(0, 128, (inputs, config.batch, *image)), jnp.int8)
    high = case.weight_high
    w = jnp.asarray(rng.integers(-high, high + 1, (config.candidates, *kernel)), jnp.int8)
    product = case.product(path)

    def layer(x: jax.Array, w: jax.Array) -> jax.Array:
        return requantize(product(x, w), 1, 10, low=0)

    def network(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(layer(x, w), dtype=jnp.int32)

    def population(x: jax.Array, w: jax.Array) -> jax.Array:
        if case.first:
            return jax.lax.map(lambda w: network(x[0], w), w)
        return jax.lax.map(lambda pair: network(*pair), (x, w))

    return {
        "alone": shortest(layer, x[0], w[0], seconds=config.seconds),
        "candidates": shortest(
            population, x, w, seconds=config.seconds, networks=config.candidates
        ),
    }


def main(config: Config) -> None:
    """Measure, print a table for each layer, write JSON."""
    backend, console, layers = jax.default_backend(), Console(), []
    for case in (case for case in CASES if config.only.lower() in case.name.lower()):
        rows = {}
        for path in case.paths:
            try:
                rows[path] = measure(case, path, config)
            except jax.errors.JaxRuntimeError as error:
                console.print(f"{case.name}, {path}: {str(error).splitlines()[0]}")
        chosen = {mode: case.chosen(mode, backend) for mode in ("int", "fast")}
        table = Table(
            "path", "alone, ms (cores)", "candidates, ms (cores)", "chosen for", title=case.name
        )
        best = {
            key: min((row[key] for row in rows.values()), key=lambda spent: spent.cores)
            for key in ("alone", "candidates")
        }
        for path, row in rows.items():
            cells = (
                f"[bold]{row[key]}[/]" if row[key] == best[key] else str(row[key]) for key in best
            )
            modes = ", ".join(mode for mode, choice in chosen.items() if choice == path)
            table.add_row(path, *cells, modes)
        console.print(table)
        milliseconds = {
            path: {key: spent._asdict() for key, spent in row.items()} for path, row in rows.items()
        }
        layers.append({"layer": case.name, "milliseconds": milliseconds, "chosen": chosen})
    if config.output:
        found = {"backend": backend, "layers": layers}
        write_record(config.output, record_of(__file__, config, found))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
