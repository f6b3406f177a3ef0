"""Ternary LeNet on Fashion-MNIST, all layers, 8-bit activations: five seeds against the baselines.

    QEVO_DATA_DIR=... python experiments/ternary_lenet.py [--architecture lenet_5] [--seeds 10 11]

Every seed trains its own float teacher, rounds it in three ways and evolves the layer-wise fit, as
`qevo train` does; each leaves a run folder. Prints a table of mean and standard deviation over the
seeds and writes it with all runs to results/ternary_NETWORK_DATA.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from records import command, run_record
from stages import WEIGHTS, stage

from qevo.algorithms import CoevolutionConfig
from qevo.quantize.training import TrainingConfig
from qevo.report.summary import summarise
from qevo.run import TrainConfig
from qevo.run.session import script


@dataclasses.dataclass(frozen=True)
class Config:
    """Evolve a ternary LeNet with several seeds."""

    architecture: Literal["lenet_300_100", "lenet_5"] = "lenet_300_100"
    """Network."""
    data: str = "fashion_mnist"
    """Data set, as for `qevo train`."""
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    """One run each; the settings below were found on teachers 0 and 1."""
    epochs: int = 20
    """Of the float teachers."""
    constants: int = 200
    """Generations over multipliers and biases."""
    generations: int = 2000
    """Generations over the weights."""
    population: int = 64
    """Candidates per generation."""
    batch: int = 1024
    """Images per candidate."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the summary goes."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    records = [run_record(run_config(config, seed)) for seed in config.seeds]
    name = f"ternary_{config.architecture}_{config.data}"
    words = command("ternary_lenet", config)
    summarise(config.results / f"{name}.json", records, command=words)


def run_config(config: Config, seed: int) -> TrainConfig:
    """The run of one seed."""
    constants = CoevolutionConfig(
        population=config.population, group=4096, radius=2, spread=0.7, rate=1.0, margin=0.01
    )
    weights = dataclasses.replace(WEIGHTS, population=config.population, rate=1.0)
    return TrainConfig(
        data=config.data,
        architecture=config.architecture,
        name=f"ternary-{config.data}-{config.architecture}-{seed}",
        runs=config.runs,
        seed=seed,
        training=TrainingConfig(
            epochs=config.epochs, batch=250, learning_rate=2e-3, label_smoothing=0.05
        ),
        batch=config.batch,
        start="layerwise",
        constants=stage(constants, config.constants),
        weights=stage(weights, config.generations),
        validate_every=20,
    )


if __name__ == "__main__":
    script(main, Config, __doc__)
