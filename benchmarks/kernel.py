"""The kernel on discrete problems without networks: throughput, quality and scale.

    python benchmarks/kernel.py [--parts throughput quality scale] [--output bench_kernel.json]

*Throughput*: whole generations of one evolutionary algorithm on OneMax, beside numpy, DEAP,
nevergrad and evosax (`benchmarks/kernel_throughput.py`). *Quality*: problems with a known target,
several algorithms of ours and the peers, who solves how many in what time
(`benchmarks/kernel_quality.py`). *Scale*: the compact genetic algorithm on noisy OneMax, as far as
the time allows (`benchmarks/kernel_scale.py`).

Each part can be run alone; what it finds replaces that part of the JSON file and leaves the others.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
from typing import Any, Literal, get_args

import jax
import kernel_quality
import kernel_scale
import kernel_throughput
import tyro
from kernel_peers import PEERS
from kernel_tasks import TASKS
from record import record_of, write_record
from rich.console import Console

Part = Literal["throughput", "quality", "scale"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Benchmark the kernel."""

    parts: tuple[Part, ...] = get_args(Part)
    """What to measure."""
    peers: bool = True
    """Measure the peers too."""
    genes: tuple[int, ...] = (1_000, 100_000)
    """Throughput: numbers of genes."""
    throughput_seconds: float = 3.0
    """Throughput: for each measurement, after a warm-up."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Quality: problems."""
    seeds: int = 15
    """Quality: runs of the algorithm chosen for a problem."""
    seconds: float = 60.0
    """Quality: for each of them at most, compilation not counted."""
    other_seeds: int = 3
    """Quality: runs of the algorithms that were not chosen."""
    peer_seeds: int = 3
    """Quality: runs of each peer."""
    peer_seconds: float = 10.0
    """Quality: for each run of a peer or of an algorithm that was not chosen."""
    scale_seconds: float = 60.0
    """Scale: for all sizes together."""
    huge: int = 0
    """Scale: genes of a single generation that is timed in a process of its own, such as 100000000;
    0 for none."""
    output: pathlib.Path | None = None
    """JSON file to write; a plot goes beside it."""


def main(config: Config) -> None:
    """Measure, write JSON after each part, and print its table."""
    unknown = sorted(set(config.tasks) - set(TASKS))
    if unknown:
        raise SystemExit(f"no tasks {', '.join(unknown)}; there are {', '.join(TASKS)}")
    console = Console(width=130)
    measure = {
        "throughput": kernel_throughput.measure,
        "quality": kernel_quality.measure,
        "scale": kernel_scale.measure,
    }
    show = {
        "throughput": kernel_throughput.table,
        "quality": kernel_quality.table,
        "scale": kernel_scale.table,
    }
    with tempfile.TemporaryDirectory() as cache:  # each program is compiled once, not once a seed
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        for part in config.parts:
            with console.status(part) as status:
                found = measure[part](config, status.update)
            if config.output:
                keep(config.output, part, found, config)
            console.print(show[part](found))
    if config.output and "scale" in config.parts:
        kernel_scale.draw(config.output.with_suffix(".png"), found_in(config.output)["scale"])


def keep(path: pathlib.Path, part: Part, found: dict[str, Any], config: Config) -> None:
    """Replace one part of a JSON file; the others keep their own settings and versions."""
    record = record_of(__file__, config, found, packages=PEERS if config.peers else ())
    write_record(path, found_in(path) | {part: record})


def found_in(path: pathlib.Path) -> dict[str, Any]:
    """The parts that earlier runs left in a file."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {part: found[part] for part in get_args(Part) if part in found}


if __name__ == "__main__":
    # A chain of a local search keeps to one core: the others are devices of their own.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    main(tyro.cli(Config, description=__doc__))
