"""Low-bit ResNets on CIFAR-10 by cooperative coevolution, from the published float weights.

    QEVO_DATA_DIR=... python experiments/cc_resnet20_cifar10.py [--network resnet_8] [--preset cpu]

One run for each setting (W3A8 has weights of 3 bits and activations of 8) and each seed: the float
network is rounded in every way on 4,000 search images, the evolutionary rounding's multipliers and
biases coevolve on all 45,000 against the float network's soft labels, and 5,000 other training
images decide what is accepted. The test images are opened once, for the table. Each run leaves a
folder; one that is complete is read, so the same command with --gather-only makes the table of
what is there. Writes results/cc_NETWORK.json and .png; other edges and the other preset have a name
of their own.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping
from typing import Literal

import numpy as np
from float_networks import PUBLISHED
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from printing import accuracy_cells, console, measured_methods, table
from records import PLACES, Record, command, run_record, write_record
from stages import CONSTANTS, WEIGHTS, stage

from qevo.core.folder import METRICS, read_metrics
from qevo.report.picture import COLORS, STYLE
from qevo.report.table import METHODS
from qevo.run import TrainConfig
from qevo.run.folder import TARGETS, load_arrays, read_result
from qevo.run.session import script

Setting = Literal["w4a8", "w3a8", "ternary_a8", "w2a8", "w4a4"]


@dataclasses.dataclass(frozen=True)
class Preset:
    """What a machine can do in its time."""

    constants: int  # generations over multipliers and biases
    weights: int  # and over weights
    population: int
    batch: int


PRESETS = {
    # 30 to 50 minutes a run of ResNet-20 on two cores; there, weights are too many to pay.
    "cpu": Preset(constants=120, weights=0, population=32, batch=512),
    # 210 million images; no GPU has run it yet.
    "gpu": Preset(constants=300, weights=500, population=256, batch=1024),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Coevolve a low-bit ResNet."""

    network: Literal["resnet_8", "resnet_20"] = "resnet_20"
    """The published network: MLPerf Tiny's ResNet-8, or a ResNet-20."""
    settings: tuple[Setting, ...] = ("w4a8", "w3a8", "ternary_a8", "w2a8", "w4a4")
    """Bits of weights and activations."""
    edges: Literal["8", "same"] = "same"
    """Bits of the first and the last layer: 8, or as all others."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each."""
    preset: Literal["cpu", "gpu"] = "cpu"
    """How long to search."""
    gather_only: bool = False
    """Start nothing; make the table of the runs that are complete."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the picture go."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    runs = {
        setting: [run_config(config, setting, seed) for seed in config.seeds]
        for setting in config.settings
    }
    if config.gather_only:
        runs = {
            setting: [run for run in each if read_result(run.folder)]
            for setting, each in runs.items()
        }
        runs = {setting: each for setting, each in runs.items() if each}
    records = {setting: [run_record(run) for run in each] for setting, each in runs.items()}
    if not records:
        raise SystemExit("no run is complete yet")
    print_table(config, records)
    name = f"cc_{config.network}" + ("_edges8" if config.edges == "8" else "")
    name += "" if config.preset == "cpu" else f"_{config.preset}"
    summary = {
        "command": command(
            "cc_resnet20_cifar10", gathered(config, runs), leave_out=("gather_only", *PLACES)
        ),
        "preset": dataclasses.asdict(PRESETS[config.preset]),
        "edges": config.edges,
        "runs": records,
    }
    write_record(config.results / f"{name}.json", summary)
    draw_curves(config.results / f"{name}.png", runs, records)


def gathered(config: Config, runs: Mapping[str, list[TrainConfig]]) -> Config:
    """The configuration with the settings and seeds that there are runs of."""
    seeds = {run.seed for each in runs.values() for run in each}
    return dataclasses.replace(
        config, settings=tuple(runs), seeds=tuple(seed for seed in config.seeds if seed in seeds)
    )


def run_config(config: Config, setting: Setting, seed: int) -> TrainConfig:
    """The run of one setting and one seed."""
    weights, _, activations = setting.rpartition("a")
    bits = "ternary" if weights == "ternary_" else weights.removeprefix("w")
    rules = (f"*={bits}",)
    if config.edges == "8":
        rules += ("stem=8", "logits=8")
    preset = PRESETS[config.preset]
    edges = "-edges8" if config.edges == "8" else ""
    constants, weights = (
        dataclasses.replace(search, population=preset.population) for search in (CONSTANTS, WEIGHTS)
    )
    return TrainConfig(
        data="cifar10",
        architecture=config.network,
        teacher=PUBLISHED[config.network],
        bits=rules,
        activation_bits=4 if activations == "4" else 8,
        calibration=4000,
        name=f"cc-{config.network}-{setting}{edges}-{config.preset}-{seed}",
        runs=config.runs,
        seed=seed,
        split_seed=seed,
        batch=preset.batch,
        constants=stage(constants, preset.constants),
        weights=stage(weights, preset.weights),
    )


def print_table(config: Config, records: Mapping[str, list[Record]]) -> None:
    """Test accuracy of each method over the seeds, and the share of the gap that came back."""
    edges = "first and last layer 8 bit" if config.edges == "8" else "first and last layer alike"
    title = f"{config.network}, test accuracy, %, {edges}"
    shown = measured_methods(run["accuracy"] for runs in records.values() for run in runs)
    found = table(title, ("setting",), [*(METHODS[m] for m in shown), "gap recovered"])
    for setting, runs in records.items():
        cells = accuracy_cells(runs, shown)
        found.add_row(setting, *cells, f"{100 * recovered(runs):.0f} %")
    console.print(found)


def recovered(runs: list[Record]) -> float:
    """(evolved - nearest) / (float - nearest), of the means over the seeds."""
    evolved, nearest, real = (
        statistics.fmean(run["accuracy"][method]["test"] for run in runs)
        for method in ("evolved", "nearest", "float")
    )
    return (evolved - nearest) / (real - nearest) if real != nearest else float("nan")


def draw_curves(
    path: pathlib.Path,
    runs: Mapping[str, list[TrainConfig]],
    records: Mapping[str, list[Record]],
) -> None:
    """Validation accuracy over evaluations and over seconds, every seed, beside the roundings."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 0.4 + 2.2 * len(runs)), layout="constrained")
        rows = figure.subplots(len(runs), 2, sharey="row", squeeze=False)
        for (setting, configs), (left, right) in zip(runs.items(), rows, strict=True):
            for config, record in zip(configs, records[setting], strict=True):
                evaluations, seconds, accuracy = curve(config, record)
                for ax, x in ((left, evaluations), (right, seconds)):
                    style = {"color": COLORS["evolved"], "label": METHODS["evolved"]}
                    ax.plot(x, accuracy, lw=1.2, alpha=0.8, **style)
            for ax in (left, right):
                draw_levels(ax, records[setting])
            left.set_title(setting.replace("_", " "), loc="left")
            left.set_ylabel("validation accuracy, %")
        rows[-1][0].set_xlabel("networks evaluated")
        rows[-1][1].set_xlabel("seconds of search")
        handles, labels = rows[0][0].get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))  # one entry for all seeds
        figure.legend(
            known.values(), known, frameon=False, loc="outside upper right", ncols=len(known)
        )
        figure.savefig(path, dpi=130)


def curve(config: TrainConfig, record: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one run: networks evaluated, seconds, and validation accuracy of what was looked at."""
    evaluations, seconds, accuracy = [0.0], [0.0], [record["accuracy"][config.start]["validation"]]
    images = len(load_arrays(config.folder / TARGETS)["validation"])
    stages = {"1_constants": config.constants, "2_weights": config.weights}
    before, spent = 0, 0.0
    for name, searched in stages.items():
        if not searched.generations:
            continue
        found = read_metrics(config.folder / name / METRICS)
        per_generation = record["seconds"][name] / len(found)
        for line in found:
            if "validation_errors" in line:
                evaluations.append((before + line["generation"]) * searched.search.population)
                seconds.append(spent + line["generation"] * per_generation)
                accuracy.append(1 - line["validation_errors"] / images)
        before += len(found)
        spent += record["seconds"][name]
    return np.array(evaluations), np.array(seconds), 100 * np.array(accuracy)


def draw_levels(ax: Axes, runs: list[Record]) -> None:
    """The roundings' validation accuracy, means over the seeds."""
    levels = {
        method: 100 * statistics.fmean(run["accuracy"][method]["validation"] for run in runs)
        for method in ("float", "adaround", "layerwise", "evolutionary")
    }
    for (method, level), dashes in zip(levels.items(), ("--", "-.", ":", "--"), strict=True):
        ax.axhline(level, color=COLORS[method], lw=0.9, ls=dashes, label=METHODS[method])


if __name__ == "__main__":
    script(main, Config, __doc__)
