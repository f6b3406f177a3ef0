"""Rounding networks beyond the nearest level: every method at every number of bits.

    QEVO_DATA_DIR=... python experiments/refine.py [--network resnet_8] [--bits 4 3]

Each seed calibrates on other images, 1,000 of them, which all methods share, with the same
activation scales and fitted biases; all layers have the stated bits, first and last included, and
activations have 8. Test accuracy is that of the official test images, which no step here looks at
(what was known of them before: docs/limits.md).
--constants and --weights go on from evolutionary rounding with a whole-network search on the same
images, accepted on 500 others. Prints a table; writes results/refine_NETWORK.json and, of what each
method gained over nearest rounding on held-out and on test images, results/refine_NETWORK.png.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

import numpy as np
from float_networks import PUBLISHED
from matplotlib import rc_context
from matplotlib.figure import Figure
from printing import accuracy_cells, console, mean, measured_methods, table
from records import Record, command, run_record, write_record
from stages import CONSTANTS, WEIGHTS, stage

from qevo.algorithms import CoevolutionConfig, ShiftConfig
from qevo.quantize.training import TrainingConfig
from qevo.report.picture import COLORS, STYLE
from qevo.report.table import METHODS
from qevo.run import RefineConfig, ShiftStageConfig, StageConfig, TrainConfig, run_once
from qevo.run import folder as files
from qevo.run.session import script

PARTS = ("validation", "test")
SEARCHES = ("1_constants", "2_weights")
SHARED = TrainConfig(
    data="fashion_mnist",
    architecture="lenet_300_100",
    training=TrainingConfig(epochs=20, batch=250, learning_rate=2e-3, label_smoothing=0.05),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Round a network in every way."""

    network: Literal["resnet_8", "resnet_20", "resnet_56", "lenet_300_100"] = "resnet_20"
    """A published CIFAR-10 network, or LeNet-300-100, trained on Fashion-MNIST for each seed."""
    bits: tuple[str, ...] = ("8", "6", "4", "3", "2", "ternary")
    """Bits of all weights."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each, on other calibration images."""
    calibration: int = 1000
    """Images that all methods are fitted to."""
    constants: int = 0
    """Generations of a whole-network search over multipliers and biases."""
    weights: int = 0
    """Generations of one over weights, after it."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the picture go."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    if config.network not in PUBLISHED:
        for seed in config.seeds:
            run_once(teacher(config, seed))
    records = {
        bits: [run_record(run_config(config, bits, seed)) for seed in config.seeds]
        for bits in config.bits
    }
    print_table(config, records)
    name = f"refine_{config.network}" + ("_searched" if config.constants + config.weights else "")
    summary = {"command": command("refine", config), "runs": records}
    write_record(config.results / f"{name}.json", summary)
    draw_gains(config.results / f"{name}.png", records)


def run_config(config: Config, bits: str, seed: int) -> RefineConfig | TrainConfig:
    """The run of one number of bits and one seed."""
    searched = f"-{config.constants}-{config.weights}" if config.constants + config.weights else ""
    name = f"refine-{config.network}-{bits}-{config.calibration}{searched}-{seed}"
    constants = stage(CONSTANTS, config.constants)
    if config.network in PUBLISHED:
        return RefineConfig(
            network=config.network,
            checkpoint=PUBLISHED[config.network],
            names=("published",),
            data="cifar10",
            bits=(f"*={bits}",),
            calibration=config.calibration,
            name=name,
            runs=config.runs,
            seed=seed,
            split_seed=seed,
            batch=config.calibration,
            constants=constants,
            weights=ShiftStageConfig(config.weights, ShiftConfig(population=16)),
        )
    return dataclasses.replace(
        SHARED,
        bits=(f"*={bits}",),
        calibration=config.calibration,
        name=name,
        runs=config.runs,
        seed=seed,
        split_seed=seed,
        teacher=teacher(config, seed).folder / files.TEACHER,
        batch=config.calibration,
        constants=constants,
        weights=StageConfig(config.weights, WEIGHTS),
    )


def teacher(config: Config, seed: int) -> TrainConfig:
    """The run that trains a seed's float network, for all numbers of bits, and searches nothing."""
    none = StageConfig(0, CoevolutionConfig())
    return dataclasses.replace(
        SHARED,
        name=f"refine-{config.network}-teacher-{seed}",
        runs=config.runs,
        seed=seed,
        split_seed=seed,
        start="nearest",
        roundings=(),
        constants=none,
        weights=none,
    )


def print_table(config: Config, records: dict[str, list[Record]]) -> None:
    """Test accuracy of each method, mean and standard deviation over the seeds."""
    everything = [run for runs in records.values() for run in runs]
    shown = measured_methods(run["accuracy"] for run in everything)
    if not config.constants + config.weights:
        shown.remove("evolved")
    title = f"{config.network}, test accuracy, %"
    found = table(title, ("bits",), [METHODS[method] for method in shown])
    for bits, runs in records.items():
        found.add_row(bits, *accuracy_cells(runs, shown))
    spent = [run["seconds"] for run in everything]
    spent = [part | {"evolved": sum(part.get(name, 0.0) for name in SEARCHES)} for part in spent]
    found.add_row("seconds", *(mean([part.get(method) for part in spent], 0) for method in shown))
    console.print(found)


def draw_gains(path: pathlib.Path, records: dict[str, list[Record]]) -> None:
    """Each method's gain over nearest rounding on held-out images against that on test images."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 5.5), layout="constrained")
        ax = figure.subplots()
        for method in ("gptq", "adaround", "layerwise", "evolutionary", "evolved"):
            gains = np.array(
                [
                    [
                        100 * (run["accuracy"][method][part] - run["accuracy"]["nearest"][part])
                        for part in PARTS
                    ]
                    for runs in records.values()
                    for run in runs
                    if method in run["accuracy"] and (method != "evolved" or run["generations"])
                ]
            )
            if gains.size:
                label = METHODS[method]
                ax.scatter(*gains.T, s=18, alpha=0.7, color=COLORS[method], label=label)
        ax.axline((0, 0), slope=1, color="0.7", lw=0.8)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_yscale("symlog", linthresh=1)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("gain over nearest rounding on held-out images, points")
        ax.set_ylabel("gain on test images, points")
        ax.legend(frameon=False)
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    script(main, Config, __doc__)
