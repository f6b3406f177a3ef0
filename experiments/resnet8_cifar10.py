"""MLPerf Tiny's ResNet-8 on CIFAR-10, from its published float weights: 8 and 4 bits, and ternary.

    QEVO_DATA_DIR=... python experiments/resnet8_cifar10.py [--bits 8 4 ternary]

The float weights reach 87.19 % and the official int8 model 86.97 % on the test set. All layers have
the stated bits, first and last included; activations have 8. Multipliers and biases are evolved,
then weights. Prints a table and writes results/resnet8_cifar10.json.
"""

from __future__ import annotations

import dataclasses
import pathlib

from published import PUBLISHED
from records import write_record
from rich.console import Console
from rich.table import Table

from qevo.algorithms import CoevolutionConfig
from qevo.report.table import METHODS
from qevo.run import StageConfig, TrainConfig, run_once
from qevo.run.command import flags
from qevo.run.session import script

PLACES = ("teacher", "runs", "results")  # where files lie


@dataclasses.dataclass(frozen=True)
class Config:
    """Quantize and evolve ResNet-8."""

    bits: tuple[str, ...] = ("8", "4", "ternary")
    """Bits of all weights, one run each."""
    constants: int = 60
    """Generations over multipliers and biases."""
    weights: int = 300
    """Generations over the weights."""
    population: int = 32
    """Candidates per generation."""
    batch: int = 512
    """Images per generation."""
    seed: int = 0
    """Seed of roundings and search."""
    teacher: pathlib.Path = PUBLISHED["resnet_8"]
    """The published float weights."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the summary goes."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    records = {bits: run(config, bits) for bits in config.bits}
    table = Table(title="ResNet-8, CIFAR-10, test accuracy, %", title_justify="left")
    table.add_column("bits")
    shown = [m for m in METHODS if all(m in record["accuracy"] for record in records.values())]
    for method in shown:
        table.add_column(METHODS[method], justify="right")
    for bits, record in records.items():
        row = (f"{100 * record['accuracy'][method]['test']:.2f}" for method in shown)
        table.add_row(bits, *row)
    Console(width=120).print(table)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if isinstance(v, int | tuple)}
    words = flags(config, leave_out=PLACES)
    command = f"python experiments/resnet8_cifar10.py {' '.join(words)}"
    summary = {"command": command, "settings": settings, "runs": records}
    write_record(config.results / "resnet8_cifar10.json", summary)


def run(config: Config, bits: str) -> dict:
    """One run, gone on with where it was cut off, or read where it is complete."""
    search = CoevolutionConfig(population=config.population)
    settings = TrainConfig(
        data="cifar10",
        architecture="resnet_8",
        bits=(f"*={bits}",),
        name=f"resnet8-{bits}-{config.seed}",
        runs=config.runs,
        seed=config.seed,
        teacher=config.teacher,
        calibration=2000,
        draws=16,
        start="layerwise",
        batch=config.batch,
        constants=StageConfig(
            config.constants,
            # Far from its start, a published network only gets worse: small steps.
            dataclasses.replace(
                search, group=4096, spread=0.2, rate=0.5, schedule=config.constants
            ),
        ),
        weights=StageConfig(
            config.weights,
            dataclasses.replace(
                search,
                grouping="block",
                group=200,
                rate=1.0,
                margin=0.002,
                schedule=config.weights,
            ),
        ),
    )
    return run_once(settings)


if __name__ == "__main__":
    script(main, Config, __doc__)
