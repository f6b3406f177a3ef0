"""Ternary LeNet on Fashion-MNIST, all layers, 8-bit activations: five seeds against the baselines.

    QEVO_DATA_DIR=... python experiments/ternary_lenet.py [--architecture lenet_5] [--seeds 10 11 12]

Every seed trains its own float teacher, rounds it in three ways and evolves the layer-wise fit, as
`qevo train` does; each leaves a run folder. Prints a table of mean and standard deviation over the
seeds and writes it with all runs to results/ternary_NETWORK_DATA.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

import tyro

from qevo.algorithms import CoevolutionConfig
from qevo.quantize.training import TrainingConfig
from qevo.report.summary import summarise
from qevo.run import StageConfig, TrainConfig, train_once
from qevo.run.session import session


@dataclasses.dataclass(frozen=True)
class Config:
    """Evolve a ternary LeNet with several seeds."""

    architecture: Literal["lenet_300_100", "lenet_5"] = "lenet_300_100"
    """Network."""
    data: str = "fashion_mnist"
    """Data set, as for `qevo train`."""
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    """One run each; the settings below were found on teachers 0 and 1."""
    generations: int = 2000
    """Generations over the weights."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the summary goes."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    records = []
    for seed in config.seeds:
        run = TrainConfig(
            data=config.data,
            architecture=config.architecture,
            name=f"ternary-{config.data}-{config.architecture}-{seed}",
            runs=config.runs,
            seed=seed,
            training=TrainingConfig(epochs=20, batch=250, learning_rate=2e-3, label_smoothing=0.05),
            weights=StageConfig(
                config.generations,
                CoevolutionConfig(group=5000, rate=0.5, schedule=config.generations, margin=0.002),
            ),
            validate_every=20,
        )
        records.append(train_once(run))
    name = f"ternary_{config.architecture}_{config.data}"
    command = (
        f"python experiments/ternary_lenet.py --architecture {config.architecture} "
        f"--data {config.data} --seeds {' '.join(map(str, config.seeds))} "
        f"--generations {config.generations}"
    )
    summarise(config.results / f"{name}.json", records, command=command)


if __name__ == "__main__":
    settings = tyro.cli(Config, description=__doc__)
    with session():
        main(settings)
