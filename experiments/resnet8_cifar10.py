"""MLPerf Tiny's ResNet-8 on CIFAR-10, from its published float weights: 8 and 4 bits, and ternary.

    QEVO_DATA_DIR=... python experiments/resnet8_cifar10.py [--bits 8 4 ternary]

The float weights reach 87.19 % and the official int8 model 86.97 % on the test set. All layers have
the stated bits, first and last included; activations have 8. Multipliers and biases are evolved,
then weights. Prints a table and writes results/resnet8_cifar10.json.
"""

from __future__ import annotations

import dataclasses
import pathlib

from float_networks import PUBLISHED
from printing import accuracy_cells, console, measured_methods, table
from records import PLACES, Record, command, run_record, write_record
from stages import CONSTANTS, WEIGHTS, stage

from qevo.report.table import METHODS
from qevo.run import TrainConfig
from qevo.run.session import script


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
    shown = measured_methods(record["accuracy"] for record in records.values())
    title = "ResNet-8, CIFAR-10, test accuracy, %"
    found = table(title, ("bits",), [METHODS[method] for method in shown])
    for bits, record in records.items():
        found.add_row(bits, *accuracy_cells([record], shown))
    console.print(found)
    words = command("resnet8_cifar10", config, leave_out=("teacher", *PLACES))
    summary = {"command": words, "runs": records}
    write_record(config.results / "resnet8_cifar10.json", summary)


def run(config: Config, bits: str) -> Record:
    """One run, gone on with where it was cut off, or read where it is complete."""
    constants = dataclasses.replace(CONSTANTS, population=config.population)
    weights = dataclasses.replace(WEIGHTS, population=config.population, group=200, rate=1.0)
    return run_record(
        TrainConfig(
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
            constants=stage(constants, config.constants),
            weights=stage(weights, config.weights),
        )
    )


if __name__ == "__main__":
    script(main, Config, __doc__)
