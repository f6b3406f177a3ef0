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
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import get_args

import numpy as np
from detector import Subject
from printing import console, mean, mean_and_spread, measured_methods, table
from records import PLACES, Record, claim, command, kept, write_record
from rich.table import Table
from roundings import Method, rounded
from searching import shift_search

from qevo import QuantizedNetwork
from qevo.algorithms import ShiftConfig
from qevo.nets import load_safetensors
from qevo.problems.genes import Genes
from qevo.quantize import FloatTeacher
from qevo.quantize.bits import read_bits
from qevo.report.table import METHODS
from qevo.run.provenance import origin
from qevo.run.session import script

RADIUS = 1  # levels that the search may move a weight
STAGES: tuple[tuple[Genes, ...], ...] = (("multipliers", "biases"), ("weights",))


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
    methods: tuple[Method, ...] = get_args(Method)
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
    name = f"refine_{subject.record_name}"
    summary = {
        "command": command("refine_detector", config),
        "float": subject.measured(subject.float_outputs),
        "images": [len(subject.train), len(subject.test)],
        "runs": records,
    }
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", config, subject)
    console.print(table_of(subject, summary["float"], records))


class Run:
    """One seed at one number of bits, in its folder."""

    def __init__(self, config: Config, subject: Subject, seed: int, bits: str) -> None:
        self.config, self.subject, self.seed, self.bits = config, subject, seed, bits
        self.folder = config.runs / f"refine-{subject.name}-{config.calibration}-{seed}" / bits

    def record(self) -> Record:
        """What is measured of each method; one that is known is not run again."""
        free = ("bits", "seeds", "methods", "examples", *PLACES)
        claim(self.folder, self.config, free=free)
        parts = {method: self._kept(method) for method in self.config.methods}
        found = {}
        if self.config.generations:
            known = {method: part["measured"]["divergence"] for method, part in parts.items()}
            start = min(known, key=known.__getitem__)
            parts["evolved"] = kept(self.folder / "evolved.json", lambda: self._evolved(start))
            found = {key: parts["evolved"][key] for key in ("evaluations", "settings")}
        keys = "measured", "seconds"
        return {key: {m: part[key] for m, part in parts.items()} for key in keys} | found

    @functools.cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Images that all methods are fitted to, and those that the search is accepted on."""
        return self.subject.draw(self.config.calibration, self.seed)

    @functools.cached_property
    def _teacher(self) -> FloatTeacher:
        return self.subject.teacher(self._rows[0])

    def _kept(self, method: Method) -> Record:
        return kept(self.folder / f"{method}.json", lambda: self._rounded(method))

    def _rounded(self, method: Method) -> Record:
        bits, teacher = self.subject.bits(read_bits(self.bits)), self._teacher
        began = time.monotonic()
        with console.status(self._title(method)):
            network = rounded(teacher, method, bits=bits, draws=self.config.draws, seed=self.seed)
        return self._measured(method, network, time.monotonic() - began)

    def _evolved(self, start: str) -> Record:
        """What a search in the whole network accepts on images that it is not searched on."""
        config = self.config
        network = load_safetensors(self.folder / f"{start}.safetensors")
        search = ShiftConfig(population=config.population)
        evaluations, began = 0, time.monotonic()
        with console.status(self._title("evolved")):
            for index, genes in enumerate(STAGES):
                problem = self.subject.problem(
                    network, *self._rows, genes=genes, radius=RADIUS, batch=config.batch
                )
                result = shift_search(
                    problem,
                    search,
                    self.seed,
                    generations=config.generations // 2,
                    folder=self.folder / f"search_{index}",
                )
                network = problem.network(network, result.solution)
                evaluations += result.evaluations
        found = self._measured("evolved", network, time.monotonic() - began)
        settings = {"start": start, "radius": RADIUS, "search": dataclasses.asdict(search)}
        return found | {"evaluations": evaluations, "settings": settings}

    def _title(self, method: str) -> str:
        return f"{self.subject.name}, {self.bits} bits, seed {self.seed}: {method}"

    def _measured(self, method: str, network: QuantizedNetwork, seconds: float) -> Record:
        network.save(self.folder / f"{method}.safetensors")
        measured = self.subject.measured(self.subject.outputs(network))
        measured |= {"divergence": self._teacher.divergence(network), **origin()}
        return {"measured": measured, "seconds": seconds}


def table_of(
    subject: Subject, real: Mapping[str, float], records: dict[str, list[Record]]
) -> Table:
    """Precision and what is kept, mean and standard deviation over the seeds."""
    title = (
        f"{subject.name}: mAP50 of {len(subject.test)} images, %, and the share of sure objects"
        f" that is kept; float {100 * real['map50']:.1f}"
    )
    everything = [run for runs in records.values() for run in runs]
    shown = measured_methods(run["measured"] for run in everything)
    found = table(title, ("bits", ""), [METHODS[method] for method in shown])
    for bits, runs in records.items():
        for key, label in (("map50", "mAP50"), ("kept", "kept")):
            cells = (
                mean_and_spread([100 * run["measured"][method][key] for run in runs], 1)
                for method in shown
            )
            found.add_row(bits if key == "map50" else "", label, *cells)
    spent = (mean([run["seconds"][method] for run in everything], 0) for method in shown)
    found.add_row("", "seconds", *spent)
    return found


def draw(path: pathlib.Path, config: Config, subject: Subject) -> None:
    """What the first and the last method find at the fewest bits but one."""
    bits = config.bits[-2:][0]
    folder = Run(config, subject, config.seeds[0], bits).folder
    last = "evolved" if config.generations else config.methods[-1]
    found = {}
    for method in dict.fromkeys((config.methods[0], last)):
        network = load_safetensors(folder / f"{method}.safetensors")
        found[f"{METHODS[method]}, {bits} bit"] = subject.found(subject.outputs(network))
    subject.draw_examples(path, found, config.examples)


if __name__ == "__main__":
    script(main, Config, __doc__)
