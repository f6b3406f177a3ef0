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
import pathlib
import shutil
import statistics
import time
from typing import Any, Literal

import numpy as np
from records import claim, finished, write_record
from rich.console import Console
from rich.table import Table

from qevo import NetworkProblem, QuantizedNetwork, evolve
from qevo.algorithms import ShiftConfig, ShiftES
from qevo.core.folder import CHECKPOINT
from qevo.data import Dataset, load, one_class
from qevo.nets import Autoencoder, FixedImages, reconstruction_errors
from qevo.nets.planning import plan
from qevo.quantize import (
    FloatTeacher,
    TrainingConfig,
    best_of_n,
    float_logits,
    round_network,
    train_autoencoder,
)
from qevo.report import Roc, draw_roc, roc_curve
from qevo.report.table import METHODS
from qevo.run import folder as files
from qevo.run.command import flags
from qevo.run.provenance import origin
from qevo.run.session import plans_file, script

NAME = "refine_autoencoder"
ROC = "roc.png"

console = Console(width=170)


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
    roundings: tuple[str, ...] = ("best_of_n", "gptq", "adaround", "layerwise", "evolutionary")
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


Record = dict[str, Any]


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    records: dict[str, list[Record]] = {bits: [] for bits in config.bits}
    for seed in config.seeds:
        for bits, record in Runs(config, seed).records().items():
            records[bits].append(record)
    command = " ".join(["python", f"experiments/{NAME}.py", *flags(config)])
    write_record(config.results / f"{NAME}.json", {"command": command, "runs": records})
    first = Runs(config, config.seeds[0]).folder / config.bits[-1] / ROC
    shutil.copyfile(first, config.results / f"{NAME}.png")
    console.print(table(config, records))


class Runs:
    """The autoencoder of one seed and its roundings, each kept in its folder."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        self.seed = seed
        name = f"{NAME}-{pathlib.Path(config.data).stem}-{config.normal}-{seed}"
        self.folder = config.runs / name

    def records(self) -> dict[str, Record]:
        """What was measured, by bits."""
        kept = {bits: self.folder / bits / files.RESULT for bits in self.config.bits}
        claim(self.folder, self.config, free=("bits", "seeds", "runs", "results"))
        todo = [bits for bits, path in kept.items() if not path.exists()]
        if todo:
            data = one_class(load(self.config.data, seed=self.seed), self.config.normal)
            teacher, seconds = self._teacher(data)
            for bits in todo:
                result = self._round(data, teacher, bits) | {"teacher_seconds": seconds}
                files.write_json(kept[bits], result)
        return {bits: files.read_json(path) for bits, path in kept.items()}

    def _teacher(self, data: Dataset) -> tuple[FloatTeacher, float]:
        """The float autoencoder, calibrated, and the seconds of its training."""
        config, search = self.config, data.search.images
        module = Autoencoder(code=config.code, channels=search.shape[-1])
        path, record = self.folder / files.TEACHER, self.folder / files.SECONDS
        if not path.exists():
            began = time.monotonic()
            with console.status(f"seed {self.seed}: training"):
                variables = trained_autoencoder(module, data, epochs=config.epochs, seed=self.seed)
            files.save_arrays(path, variables)
            files.write_json(record, {"teacher": time.monotonic() - began})
        variables = files.load_arrays(path)
        seconds = files.read_json(record)["teacher"]
        return FloatTeacher(module, variables, search[: config.calibration]), seconds

    def _round(self, data: Dataset, teacher: FloatTeacher, bits: str) -> Record:
        config, folder = self.config, self.folder / bits
        width = int(bits) if bits.isdecimal() else bits
        networks: dict[str, QuantizedNetwork] = {}
        seconds: dict[str, float] = {}
        for name in METHODS:
            if name not in ("nearest", *config.roundings):
                continue
            began = time.monotonic()
            with console.status(f"seed {self.seed}, {bits} bits: {name}"):
                if name == "best_of_n":
                    found = best_of_n(teacher, bits=width, draws=config.draws, seed=self.seed)
                    networks[name] = found.network
                else:
                    method: Any = name
                    networks[name] = round_network(teacher, bits=width, method=method)
            seconds[name] = time.monotonic() - began
        evaluations = 0
        if config.generations:
            start = networks[next(reversed(networks))]
            with console.status(f"seed {self.seed}, {bits} bits: search"):
                networks["evolved"], seconds["evolved"], evaluations = self._search(
                    data, teacher, start, folder
                )
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
            "evaluations": evaluations,
            "seconds": seconds,
            "seed": self.seed,
            **origin(),
        }

    def _search(
        self,
        data: Dataset,
        teacher: FloatTeacher,
        start: QuantizedNetwork,
        folder: pathlib.Path,
    ) -> tuple[QuantizedNetwork, float, int]:
        """The network that a search in all of it accepts on held-out images."""
        config, fixed = self.config, FixedImages.of(start)

        def expected(images: np.ndarray) -> np.ndarray:
            if config.targets == "input":
                return images
            return fixed.from_real(float_logits(teacher.module, teacher.variables, images))

        search, held_out = teacher.images, data.validation.images
        problem = NetworkProblem.of(
            start,
            search,
            expected(search),
            held_out,
            held_out,
            validation_targets=expected(held_out),
            loss="squared_error",
            batch_size=len(search),
            arithmetic="fast",
            plan=plan(start, batch=len(search), cache=plans_file()),
        )
        result = finished(
            evolve(
                ShiftES(problem.space, ShiftConfig(population=config.population)),
                problem,
                self.seed,
                generations=config.generations,
                folder=folder / "search",
                resume=(folder / "search" / CHECKPOINT).exists(),
                progress=False,
            )
        )
        seconds = result.seconds + result.compile_seconds
        return problem.network(start, result.solution), seconds, result.evaluations


def trained_autoencoder(module: Autoencoder, data: Dataset, *, epochs: int, seed: int) -> Any:
    """Variables that reconstruct the search images; held-out images choose the epoch."""
    search, held_out = data.search.images, data.validation.images
    training = TrainingConfig(
        epochs=epochs,
        batch=min(64, len(search)),
        learning_rate=3e-3,
        weight_decay=0.0,
        seed=seed,
    )
    return train_autoencoder(module, search, held_out, config=training)


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


def table(config: Config, records: dict[str, list[Record]]) -> Table:
    """Squared error and area of each method, mean and standard deviation over the seeds."""
    some = next(iter(records.values()))[0]
    shown = [name for name in METHODS if name in some["measured"]]
    title = f"{config.data}, normal: {some['normal']}; {len(config.seeds)} seeds"
    found = Table(title=title, title_justify="left")
    found.add_column("bits")
    found.add_column("")
    for name in shown:
        found.add_column(METHODS[name], justify="right")
    for bits, runs in records.items():
        for key, label, factor, digits in (
            ("test", "squared error, 1e-3", 1000, 2),
            ("auc", "AUC, %", 100, 2),
        ):
            cells = []
            for name in shown:
                values = [factor * run["measured"][name][key] for run in runs]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}")
            found.add_row(bits if key == "test" else "", label, *cells)
    everything = [run for runs in records.values() for run in runs]
    spent = [
        statistics.fmean(
            run["teacher_seconds"] if name == "float" else run["seconds"][name]
            for run in everything
        )
        for name in shown
    ]
    found.add_row("", "seconds", *(f"{seconds:.1f}" for seconds in spent))
    return found


if __name__ == "__main__":
    script(main, Config, __doc__)
