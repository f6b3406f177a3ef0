"""Sparse detectors in few bytes: zeros and bits against the precision of what is found.

    QEVO_DATA_DIR=... python experiments/de_yolo.py [--network runs/yolo_bccd]

The float detector is darknet's: published Yolo-Fastest on COCO, or a folder that yolo_bccd.py made;
nothing after it has a gradient, and labels are not used. At every share of zeros in the whole
network, each layer's share is chosen by what it costs in squared error of the maps where the float
network sees objects, on images that layers are not fitted to. Masks are drawn by magnitude, by the
second-order measure with refits or by directed evolution: cycles of refits and of tentative zeroing
in the whole integer network, scored by the same distance. Survivors are fitted layer by layer;
depthwise layers and those that give the maps keep all their weights, the former at 8 bits. --repair
goes on with a search that keeps the zeros, for all alike.

The ratio is four bytes for every float parameter, biases included, over the bytes of the whole
file. Measured on images that nothing has seen: mean average precision at an overlap of 0.5, and how
many of the objects that the float detector is more than 80 % sure of are still found. Prints a
table; writes results/de_NETWORK.json and .png, with what is found in some images before and after.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pathlib
import time

from detector import Subject
from matplotlib import rc_context
from matplotlib.figure import Figure
from printing import console, table
from records import PLACES, Record, claim, command, kept, write_record
from rich.table import Table
from zeroing import (
    METHODS,
    RADIUS,
    SHARES,
    Method,
    Zeroing,
    ZeroingConfig,
    shares_of,
    survivors,
)

from qevo import NetworkProblem, QuantizedNetwork
from qevo.compress import coarsen, compress, decompress, open_compressed, summarise
from qevo.core.writing import write_whole
from qevo.quantize import SparsityCost, sparsity_costs
from qevo.quantize.rounding import Rounding
from qevo.quantize.variables import variable_shapes
from qevo.report.picture import STYLE
from qevo.run.provenance import origin
from qevo.run.session import script

COSTED = 16  # images that the cost of zeros is measured on; layers are fitted to others
COLORS = ("#0e7490", "#15803d", "#c2410c", "#7c3aed")
DASHES = ((0, (1, 4)), ":", "-", "-.", "--")  # of each method


@dataclasses.dataclass(frozen=True)
class Config(ZeroingConfig):
    """Prune, fit and code a detector."""

    network: str = "yolo-fastest-1.1"
    """A published one, or the folder of a run of yolo_bccd.py."""
    zeros: tuple[float, ...] = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
    """Shares of zeros in all layers but depthwise ones and those that give the maps."""
    bits: tuple[int, ...] = (8, 6, 4)
    """Of the survivors."""
    methods: tuple[Method, ...] = ("magnitude", "second_order")
    """Who chooses the zeros."""
    calibration: int = 64
    """Training images that layers are fitted to."""
    more: float = 1.5
    """Survivors that directed evolution starts from, for each one that it leaves."""
    cycles: int = 2
    """Of zeroing and refits."""
    generations: int = 30
    """Of a cycle."""
    repair: int = 0
    """Generations of a search that keeps the zeros, for every mask."""
    population: int = 8
    """Candidates of a generation."""
    batch: int = 32
    """Images that candidates are scored on."""
    digits: int = 8
    """Binary digits that multipliers keep in the file."""
    examples: int = 3
    """Images of the picture."""


def main(config: Config) -> None:
    """Prune at every share in every way."""
    subject = Subject(config.network)
    run = Run(config, subject)
    rows = [
        run.row(bits, zeros, method)
        for bits in config.bits
        for zeros in config.zeros
        for method in (config.methods if zeros else config.methods[-1:])
    ]
    name = f"de_{subject.record_name}"
    real = subject.measured(subject.float_outputs)
    summary = {
        "command": command("de_yolo", config),
        "float": real,
        "images": [len(subject.train), len(subject.test)],
        "rows": rows,
    }
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", subject, rows, real)
    run.draw_examples(config.results / f"{name}_boxes.png")
    console.print(table_of(subject, rows, real))


class Run:
    """The float detector, what all rows share, and its folder."""

    def __init__(self, config: Config, subject: Subject) -> None:
        self.config, self.subject = config, subject
        self.folder = config.runs / f"de-{subject.name}-{config.seed}"
        free = ("zeros", "bits", "methods", "examples", *PLACES)
        claim(self.folder, config, free=free)
        self.rows = subject.draw(config.calibration, config.seed)
        self.teacher = subject.teacher(self.rows[0])

    def row(self, bits: int, zeros: float, method: Method) -> Record:
        """What is measured of one file."""
        path = self._path(bits, zeros, method)
        return kept(path.with_suffix(".json"), lambda: self._row(path, bits, zeros, method))

    def _row(self, path: pathlib.Path, bits: int, zeros: float, method: Method) -> Record:
        config, shares, zeroing = self.config, self._shares(zeros), self._zeroing(bits)
        generations = config.repair
        if method == "directed" and zeros:
            generations += config.cycles * config.generations
        began = time.monotonic()
        with console.status(f"{self.subject.name}: {bits} bits, {100 * zeros:g} % zeros, {method}"):
            network = zeroing.repaired(zeroing.fitted(shares, method))
        data = compress(coarsen(network, digits=config.digits))
        write_whole(path, data)
        network = decompress(data)  # what is measured is what is in the file
        file = summarise(open_compressed(data))
        return {
            "bits": bits,
            "zeros": zeros,
            "method": method,
            "all_zeros": file.zeros / file.weights,
            "bytes": len(data),
            "ratio": file.ratio,
            "evaluations": generations * config.population,
            "seconds": time.monotonic() - began,
            **self.subject.measured(self.subject.outputs(network)),
            "divergence": self.teacher.divergence(network),
            "settings": zeroing.settings,
            **origin(),
        }

    def _shares(self, zeros: float) -> dict[str, float]:
        """Of each layer."""
        none = dict.fromkeys(self.teacher.layer_names, 0.0)
        if not zeros:
            return none
        left = survivors(self._costs, self._sizes)
        budget = (1 - zeros) * sum(self._sizes[name] for name in self._costs)
        return none | shares_of(self._costs, left, budget)

    @functools.cached_property
    def _costs(self) -> dict[str, list[SparsityCost]]:
        """What zeros cost in each layer that may have some.

        In those that give the maps, what is least in squared error are the boxes, whose values are
        small and must be exact.
        """
        found = kept(self.folder / "costs.json", self._measured_costs)
        whole = {*self.subject.depthwise, *self.teacher.calibration.outputs}
        return {
            name: list(itertools.starmap(SparsityCost, costs))
            for name, costs in found.items()
            if name not in whole
        }

    def _measured_costs(self) -> Record:
        """Of all layers, in minutes."""
        subject, layers = self.subject, len(self.teacher.layer_names)
        with console.status(f"{subject.name}: what zeros cost in each layer") as status:

            def progress(done: int, name: str) -> None:
                status.update(f"{subject.name}: what zeros cost, {done} of {layers} layers: {name}")

            return sparsity_costs(
                self.teacher,
                SHARES,
                bits=min(self.config.bits),
                images=subject.train_images[self.rows[1][:COSTED]],
                distance=subject.distance,
                progress=progress,
            )

    @functools.cached_property
    def _sizes(self) -> dict[str, int]:
        detector = self.subject.detector
        shapes = variable_shapes(detector.module, detector.image_shape)
        names = self.teacher.layer_names
        return {name: math.prod(shapes[f"params/{name}/kernel"]) for name in names}

    def _path(self, bits: int, zeros: float, method: Method) -> pathlib.Path:
        return self.folder / f"{bits}-{zeros:g}-{method}.qevo"

    def _zeroing(self, bits: int) -> Zeroing:
        """The search at so many bits."""

        def problem(network: QuantizedNetwork) -> NetworkProblem:
            return self.subject.problem(network, *self.rows, radius=RADIUS, batch=self.config.batch)

        def rounded(rounding: Rounding) -> QuantizedNetwork:
            return self.teacher.convert(bits=self.subject.bits(bits), rounding=rounding)

        return Zeroing(self.config, problem, rounded)

    def draw_examples(self, path: pathlib.Path) -> None:
        """What the sparsest files of the fewest bits find."""
        config, subject = self.config, self.subject
        found = {}
        bits, method = config.bits[-1], config.methods[-1]
        for zeros in [share for share in config.zeros if share][-2:]:
            network = decompress(self._path(bits, zeros, method).read_bytes())
            title = f"{bits} bit, {100 * zeros:g} % zeros"
            found[title] = subject.found(subject.outputs(network))
        subject.draw_examples(path, found, config.examples)


def table_of(subject: Subject, rows: list[Record], real: dict[str, float]) -> Table:
    """Every file."""
    title = (
        f"{subject.name}: {len(subject.test)} images, float mAP50 {100 * real['map50']:.1f} %,"
        f" {real['sure']} sure objects"
    )
    sizes = "bits", "zeros, %", "zeros by", "bytes", "ratio"
    found = table(title, (), (*sizes, "mAP50, %", "kept, %", "seconds"))
    for row in rows:
        found.add_row(
            str(row["bits"]),
            f"{100 * row['all_zeros']:.1f}",
            METHODS[row["method"]] if row["zeros"] else "",
            f"{row['bytes']:,}",
            f"{row['ratio']:.1f}",
            f"{100 * row['map50']:.1f}",
            f"{100 * row['kept']:.1f}",
            f"{row['seconds']:.0f}",
        )
    return found


def draw(path: pathlib.Path, subject: Subject, rows: list[Record], real: dict[str, float]) -> None:
    """Precision and what is kept against zeros, for each number of bits and each way to choose."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots(1, 2)
        bits = list(dict.fromkeys(row["bits"] for row in rows))
        for method, dashes in zip(METHODS, DASHES, strict=True):
            for width, color in zip(bits, COLORS, strict=False):
                mine = [
                    row
                    for row in rows
                    if row["bits"] == width and (row["method"] == method or not row["zeros"])
                ]
                if not any(row["method"] == method and row["zeros"] for row in mine):
                    continue
                for ax, key in zip(axes, ("map50", "kept"), strict=True):
                    ax.plot(
                        [100 * row["all_zeros"] for row in mine],
                        [100 * row[key] for row in mine],
                        marker="o",
                        ls=dashes,
                        ms=4,
                        color=color,
                        label=f"{width} bit, {METHODS[method]}",
                    )
        axes[0].axhline(100 * real["map50"], color="0.6", lw=0.8, label="float")
        axes[0].set_ylabel("mAP50, %")
        axes[1].set_ylabel("sure objects still found, %")
        for ax in axes:
            ax.set_xlabel("zeros among all weights, %")
        axes[0].set_title(subject.name, loc="left")
        axes[0].legend(frameon=False)
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    script(main, Config, __doc__)
