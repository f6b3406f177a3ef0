"""Rounding a detector: every method at every number of bits, by the precision of what it finds.

    QEVO_DATA_DIR=... python experiments/refine_detector.py [--network yolo-fastest-1.1-xl]

The float detector is darknet's: published Yolo-Fastest on COCO, or a folder that yolo_bccd.py made.
Each seed calibrates on other training images, which all methods share, with the same activation
scales and fitted biases; labels are not used. All layers have the stated bits, first and last
included, but depthwise layers, which have few weights and 8 bits; all methods but nearest rounding
and its draws round those by the layer-wise fit. Activations have 8 bits.

--generations goes on from the best of the layer-wise methods with a search over multipliers and
biases, then weights, of the whole network, for maps that are the float network's where it sees
objects; it is accepted on training images that it is not searched on.

Measured on images that nothing has seen: mean average precision at an overlap of 0.5, and how many
of the objects that the float detector is more than 80 % sure of are still found. Prints a table;
writes results/refine_NETWORK.json and, of the first seed, what is found in some images, .png.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from detector import Subject
from records import claim, finished, write_record
from rich.console import Console
from rich.table import Table

from qevo import NetworkProblem, QuantizedNetwork, evolve
from qevo.algorithms import ShiftConfig, ShiftES
from qevo.core.folder import CHECKPOINT
from qevo.nets import FixedMaps, load_safetensors
from qevo.quantize import FloatTeacher, LayerwiseFit, best_of_n, round_network
from qevo.quantize.methods import ROUNDINGS
from qevo.quantize.rounding import FloatLayer, Rounded, Rounding
from qevo.report.table import METHODS
from qevo.run import folder as files
from qevo.run.command import flags
from qevo.run.provenance import origin
from qevo.run.session import script

DEPTHWISE = 8  # bits of depthwise layers

console = Console(width=150)
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Round a detector in every way."""

    network: str = "yolo-fastest-1.1"
    """A published one, or the folder of a run of yolo_bccd.py."""
    bits: tuple[str, ...] = ("8", "6", "4", "3")
    """Bits of all weights but depthwise ones."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each, on other calibration images."""
    calibration: int = 64
    """Training images that all methods are fitted to."""
    methods: tuple[str, ...] = ("nearest", "best_of_n", *ROUNDINGS)
    """Roundings."""
    draws: int = 16
    """Stochastic roundings of which the best is taken."""
    generations: int = 0
    """Of a whole-network search, half of them over multipliers and biases."""
    population: int = 8
    """Candidates of a generation."""
    batch: int = 32
    """Images that candidates are scored on."""
    examples: int = 3
    """Images of the picture."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; what is measured is not measured again."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the picture go."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather."""
    subject = Subject(config.network)
    records: dict[str, list[Record]] = {
        bits: [Run(config, subject, seed, bits).record() for seed in config.seeds]
        for bits in config.bits
    }
    name = f"refine_{subject.name.replace('-', '_').replace('.', '_')}"
    summary = {
        "command": f"python experiments/refine_detector.py {' '.join(flags(config))}",
        "float": subject.measured(subject.float_outputs),
        "images": [len(subject.train), len(subject.test)],
        "runs": records,
    }
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", config, subject)
    console.print(table(subject, summary["float"], records))


class Run:
    """One seed at one number of bits, in its folder."""

    def __init__(self, config: Config, subject: Subject, seed: int, bits: str) -> None:
        self.config, self.subject, self.seed, self.bits = config, subject, seed, bits
        self.folder = config.runs / f"refine-{subject.name}-{config.calibration}-{seed}" / bits

    def record(self) -> Record:
        """What is measured of each method; one that is known is not run again."""
        config, subject = self.config, self.subject
        free = ("bits", "seeds", "methods", "examples", "runs", "results")
        claim(self.folder, config, free=free)
        path = self.folder / files.RESULT
        found: Record = files.read_json(path) if path.exists() else {"measured": {}, "seconds": {}}
        wanted = [*config.methods, *(["evolved"] if config.generations else [])]
        todo = [method for method in wanted if method not in found["measured"]]
        if not todo:
            return found
        rows = np.random.default_rng(self.seed).permutation(len(subject.train))
        chosen, others = rows[: config.calibration], rows[config.calibration :]
        teacher = FloatTeacher(
            subject.detector.module, subject.variables, subject.train_images[chosen]
        )
        for method in todo:
            began = time.monotonic()
            with console.status(f"{subject.name}, {self.bits} bits, seed {self.seed}: {method}"):
                if method == "evolved":
                    start = self._load(found)
                    network, count = self._evolved(start, chosen, others)
                    found["evaluations"] = count
                else:
                    network = self._rounded(teacher, method)
            seconds = time.monotonic() - began
            network.save(self.folder / f"{method}.safetensors")
            found["seconds"][method] = seconds
            found["measured"][method] = subject.measured(subject.outputs(network)) | {
                "divergence": teacher.divergence(network),
                **origin(),
            }
            files.write_json(path, found)
        return found

    def _bits(self) -> dict[str, str | int]:
        width = int(self.bits) if self.bits.isdecimal() else self.bits
        return {"*": width} | dict.fromkeys(self.subject.depthwise, DEPTHWISE)

    def _rounded(self, teacher: FloatTeacher, method: str) -> QuantizedNetwork:
        bits = self._bits()
        if method == "best_of_n":
            return best_of_n(teacher, bits=bits, draws=self.config.draws, seed=self.seed).network
        if method == "nearest":
            return round_network(teacher, bits=bits)
        return round_network(teacher, bits=bits, method=beside_depthwise(ROUNDINGS[method]))

    def _load(self, found: Record) -> QuantizedNetwork:
        """The rounding that is nearest to the float network on the calibration images."""
        known = {name: found["measured"][name]["divergence"] for name in self.config.methods}
        best = min(known, key=known.__getitem__)
        return load_safetensors(self.folder / f"{best}.safetensors")

    def _evolved(
        self, network: QuantizedNetwork, chosen: np.ndarray, others: np.ndarray
    ) -> tuple[QuantizedNetwork, int]:
        """What a search in the whole network accepts on images that it is not searched on."""
        config, subject = self.config, self.subject
        maps = FixedMaps.of(network, subject.detector.shapes, subject.numbers)
        targets = maps.targets(subject.train_outputs)
        count = 0
        for index, genes in enumerate((("multipliers", "biases"), ("weights",))):
            problem = NetworkProblem.of(
                network,
                subject.train_images[chosen],
                targets[chosen],
                subject.train_images[others],
                targets[others],
                loss="squared_error",
                maps=maps,
                genes=genes,  # type: ignore[arg-type]
                batch_size=min(config.batch, len(chosen)),
                arithmetic="fast",
                batch_chunk=min(config.batch, 16),
            )
            result = finished(
                evolve(
                    ShiftES(problem.space, ShiftConfig(population=config.population)),
                    problem,
                    self.seed,
                    generations=config.generations // 2,
                    folder=self.folder / f"search_{index}",
                    resume=(self.folder / f"search_{index}" / CHECKPOINT).exists(),
                    progress=False,
                )
            )
            network = problem.network(network, result.solution)
            count += result.evaluations
        return network, count


def beside_depthwise(rounding: Rounding) -> Rounding:
    """A rounding of all layers but depthwise ones, which have the layer-wise fit."""

    def rounded(layer: FloatLayer) -> Rounded:
        return LayerwiseFit()(layer) if layer.depthwise else rounding(layer)

    return rounded


def table(subject: Subject, real: Mapping[str, float], records: dict[str, list[Record]]) -> Table:
    """Precision and what is kept, mean and standard deviation over the seeds."""
    title = (
        f"{subject.name}: mAP50 of {len(subject.test)} images, %, and the share of sure objects"
        f" that is kept; float {100 * real['map50']:.1f}"
    )
    found = Table(title=title, title_justify="left")
    found.add_column("bits")
    found.add_column("")
    shown = [m for m in METHODS if m in next(iter(records.values()))[0]["measured"]]
    for method in shown:
        found.add_column(METHODS[method], justify="right")
    for bits, runs in records.items():
        for key, label in (("map50", "mAP50"), ("kept", "kept")):
            cells = []
            for method in shown:
                values = [100 * run["measured"][method][key] for run in runs]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.1f}{spread}")
            found.add_row(bits if key == "map50" else "", label, *cells)
    everything = [run["seconds"] for runs in records.values() for run in runs]
    spent = (f"{statistics.fmean(part[m] for part in everything):.0f}" for m in shown)
    found.add_row("", "seconds", *spent)
    return found


def draw(path: pathlib.Path, config: Config, subject: Subject) -> None:
    """What nearest rounding and the last method find at the fewest bits but one."""
    bits = config.bits[-2:][0]
    folder = Run(config, subject, config.seeds[0], bits).folder
    last = "evolved" if config.generations else config.methods[-1]
    found = {}
    for method in dict.fromkeys(("nearest", last)):
        network = load_safetensors(folder / f"{method}.safetensors")
        found[f"{METHODS[method]}, {bits} bit"] = subject.found(subject.outputs(network))
    subject.draw_examples(path, found, config.examples)


if __name__ == "__main__":
    script(main, Config, __doc__)
