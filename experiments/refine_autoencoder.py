"""Rounding a convolutional autoencoder that detects anomalies: one class is normal.

    QEVO_DATA_DIR=... python experiments/refine_autoencoder.py [--normal 9] [--bits 4 2]

Each seed trains an autoencoder on the images of one class, with a split of its own. All roundings
have the same 1,000 calibration images, activation scales and fitted biases; all layers have the
stated bits, first and last included, and activations have 8. --generations goes on from
evolutionary rounding with a search in the whole network on the same images. Measured on the
official test images, which no step here looks at: the mean squared error of the normal class,
pixels being 0 to 1, and the area under the ROC of the integer reconstruction error, where all other
classes are anomalies. Prints a table; writes results/refine_autoencoder.json and, of the first seed
at the last number of bits, results/refine_autoencoder.png.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
import time
from typing import Literal, get_args

import numpy as np
from float_networks import Trained, trained_autoencoder
from printing import console, mean, mean_and_spread, measured_methods, table
from records import PLACES, Record, claim, command, kept, write_record
from rich.table import Table
from roundings import Method, rounded
from searching import shift_search

from qevo import NetworkProblem, QuantizedNetwork
from qevo.algorithms import ShiftConfig
from qevo.data import Dataset, load, one_class
from qevo.nets import Autoencoder, FixedImages, reconstruction_errors
from qevo.nets.planning import plan
from qevo.quantize import FloatTeacher, float_logits
from qevo.quantize.bits import read_bits
from qevo.report import Roc, draw_roc, roc_curve
from qevo.report.table import METHODS
from qevo.run import folder as files
from qevo.run.provenance import origin
from qevo.run.session import plans_file, script

NAME = "refine_autoencoder"
ROC = "roc.png"
RADIUS = 1  # levels that the search may move a weight


@dataclasses.dataclass(frozen=True)
class Config:
    """Round an autoencoder in every way."""

    data: str = "fashion_mnist"
    """Data set, of which one class is normal."""
    normal: int = 9
    """Label of that class; 9 are ankle boots."""
    code: int = 4
    """Channels of the code, of 16 values each for 28x28 images."""
    epochs: int = 15
    """Of training, at most: it ends where held-out images get no better."""
    bits: tuple[str, ...] = ("8", "6", "4", "3", "2", "ternary")
    """Bits of all weights."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One autoencoder each."""
    calibration: int = 1000
    """Images that all methods are fitted to."""
    roundings: tuple[Method, ...] = ("best_of_n", "gptq", "adaround", "layerwise", "evolutionary")
    """Roundings beside the nearest."""
    draws: int = 16
    """Stochastic roundings of which the best is taken."""
    generations: int = 0
    """Of a whole-network search, from the last of the roundings."""
    population: int = 16
    """Candidates of a generation."""
    targets: Literal["input", "teacher"] = "input"
    """What the search compares reconstructions with: the images, or the float network's."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the picture go."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    records: dict[str, list[Record]] = {bits: [] for bits in config.bits}
    for seed in config.seeds:
        for bits, record in Runs(config, seed).records().items():
            records[bits].append(record)
    summary = {"command": command(NAME, config), "runs": records}
    write_record(config.results / f"{NAME}.json", summary)
    first = Runs(config, config.seeds[0]).folder / config.bits[-1] / ROC
    shutil.copyfile(first, config.results / f"{NAME}.png")
    console.print(table_of(config, records))


class Runs:
    """The autoencoder of one seed and its roundings, each kept in its folder."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        self.seed = seed
        name = f"{NAME}-{pathlib.Path(config.data).stem}-{config.normal}-{seed}"
        self.folder = config.runs / name

    def records(self) -> dict[str, Record]:
        """What was measured, by bits."""
        claim(self.folder, self.config, free=("bits", "seeds", *PLACES))
        return {bits: self._record(bits) for bits in self.config.bits}

    def _record(self, bits: str) -> Record:
        return kept(self.folder / bits / files.RESULT, lambda: self._round(bits))

    @functools.cached_property
    def _data(self) -> Dataset:
        return one_class(load(self.config.data, seed=self.seed), self.config.normal)

    @functools.cached_property
    def _trained(self) -> Trained:
        return trained_autoencoder(
            self._module, self._data, self.folder, epochs=self.config.epochs, seed=self.seed
        )

    @functools.cached_property
    def _teacher(self) -> FloatTeacher:
        images = self._data.search.images[: self.config.calibration]
        return FloatTeacher(self._module, self._trained.variables, images)

    @property
    def _module(self) -> Autoencoder:
        channels = self._data.search.images.shape[-1]
        return Autoencoder(code=self.config.code, channels=channels)

    def _round(self, bits: str) -> Record:
        config, folder = self.config, self.folder / bits
        data, teacher = self._data, self._teacher
        networks: dict[str, QuantizedNetwork] = {}
        seconds: dict[str, float] = {}
        for name in get_args(Method):
            if name not in ("nearest", *config.roundings):
                continue
            began = time.monotonic()
            with console.status(f"seed {self.seed}, {bits} bits: {name}"):
                networks[name] = rounded(
                    teacher, name, bits=read_bits(bits), draws=config.draws, seed=self.seed
                )
            seconds[name] = time.monotonic() - began
        found: Record = {"evaluations": 0}
        if config.generations:
            start = next(reversed(networks))
            with console.status(f"seed {self.seed}, {bits} bits: search"):
                networks["evolved"], seconds["evolved"], found = self._search(
                    networks[start], folder
                )
            found["settings"]["start"] = start
        for name, network in networks.items():
            network.save(folder / f"{name}.safetensors")
        measured, curves = measure(data, teacher, networks)
        weights = f"{bits} weights" if bits == "ternary" else f"weights of {bits} bits"
        draw_roc(folder / ROC, curves, title=f"normal: {data.classes[0]}; {weights}")
        return {
            "measured": measured,
            "bits": bits,
            "data": config.data,
            "normal": data.classes[0],
            "images": [len(part) for part in (data.search, data.validation, data.test)],
            "calibration": len(teacher.images),
            "generations": config.generations,
            **found,
            "seconds": seconds,
            "teacher_seconds": self._trained.seconds,
            "seed": self.seed,
            **origin(),
        }

    def _search(
        self, start: QuantizedNetwork, folder: pathlib.Path
    ) -> tuple[QuantizedNetwork, float, Record]:
        """The network that a search in all of it accepts on held-out images."""
        config, teacher, fixed = self.config, self._teacher, FixedImages.of(start)

        def expected(images: np.ndarray) -> np.ndarray:
            if config.targets == "input":
                return images
            return fixed.from_real(float_logits(teacher.module, teacher.variables, images))

        images, held_out = teacher.images, self._data.validation.images
        problem = NetworkProblem.of(
            start,
            images,
            expected(images),
            held_out,
            held_out,
            validation_targets=expected(held_out),
            radius=RADIUS,
            loss="squared_error",
            batch_size=len(images),
            arithmetic="fast",
            plan=plan(start, batch=len(images), cache=plans_file()),
        )
        search = ShiftConfig(population=config.population)
        result = shift_search(
            problem, search, self.seed, generations=config.generations, folder=folder / "search"
        )
        settings = {"radius": RADIUS, "search": dataclasses.asdict(search)}
        found = {"evaluations": result.evaluations, "settings": settings}
        seconds = result.seconds + result.compile_seconds
        return problem.network(start, result.solution), seconds, found


def measure(
    data: Dataset, teacher: FloatTeacher, networks: dict[str, QuantizedNetwork]
) -> tuple[dict[str, dict[str, float]], dict[str, Roc]]:
    """Mean squared errors of the normal class, and the areas under the ROC on test images."""
    any_network = networks["nearest"]
    fixed = FixedImages.of(any_network)

    def errors(name: str, images: np.ndarray) -> np.ndarray:
        if name != "float":
            return reconstruction_errors(networks[name], images)
        real = float_logits(teacher.module, teacher.variables, images)
        return reconstruction_errors(any_network, images, fixed.from_real(real))

    labels, measured, curves = data.test.labels, {}, {}
    for name in ("float", *networks):
        scores = errors(name, data.test.images)
        curves[name] = roc_curve(scores, labels)
        measured[name] = {
            "validation": fixed.mean(errors(name, data.validation.images)),
            "test": fixed.mean(scores[labels == 0]),
            "auc": float(curves[name].auc),
        }
    return measured, curves


def table_of(config: Config, records: dict[str, list[Record]]) -> Table:
    """Squared error and area of each method, mean and standard deviation over the seeds."""
    everything = [run for runs in records.values() for run in runs]
    shown = measured_methods(run["measured"] for run in everything)
    title = f"{config.data}, normal: {everything[0]['normal']}; {len(config.seeds)} seeds"
    found = table(title, ("bits", ""), [METHODS[name] for name in shown])
    for bits, runs in records.items():
        for key, label, factor in (("test", "squared error, 1e-3", 1000), ("auc", "AUC, %", 100)):
            cells = (
                mean_and_spread([factor * run["measured"][name][key] for run in runs], 2)
                for name in shown
            )
            found.add_row(bits if key == "test" else "", label, *cells)
    seconds = [run["seconds"] | {"float": run["teacher_seconds"]} for run in everything]
    found.add_row("", "seconds", *(mean([part[name] for part in seconds], 1) for name in shown))
    return found


if __name__ == "__main__":
    script(main, Config, __doc__)
