"""Sparse LeNets in few bytes: directed evolution beside magnitude and random pruning.

    QEVO_DATA_DIR=... python experiments/de_lenet.py [--network lenet_5] [--data fashion_mnist]

A float network is trained once; nothing after it has a gradient. For each ratio, the share of zeros
of each layer is chosen under the budget of bytes by the divergence from the float network: first by
what layers cost one by one, then by local search with whole networks of second-order masks. Four
masks have these zeros: random, by magnitude, by the second-order measure with refits, and by
directed evolution, which starts from fewer zeros and goes on in cycles of tentative zeroing in the
whole integer network and refits. From then on all are treated alike: survivors fitted layer by
layer to the float network, a search over survivors, multipliers and biases that keeps the zeros,
constants in fewer digits, and the file. LeNet-5 is Caffe's, of 431,080 parameters, as in the
compression literature.

Ratios are four bytes for every float parameter, biases included, over the bytes of the whole file.
The smallest file within 0.3 points of the float network's validation accuracy is the one that
counts; test accuracy is opened once, for the table. Prints the table; writes
results/de_NETWORK_DATA.json and .png, and the files to the run folder.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import zstandard
from classifier import METHODS, Classifier, console, picture, trained
from flax import linen as nn
from records import claim, write_record
from rich.table import Table
from zeroing import ZeroingConfig

from qevo.compress import coarsen, compress, decompress, open_compressed, summarise
from qevo.core.writing import write_whole
from qevo.data import load
from qevo.errors import QevoError
from qevo.nets import LeNet5, LeNet300
from qevo.run import folder as files
from qevo.run.command import flags
from qevo.run.provenance import origin
from qevo.run.session import script

WITHIN = 0.003  # of the float network's accuracy

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config(ZeroingConfig):
    """Prune, fit, search and code."""

    network: Literal["lenet_300_100", "lenet_5"] = "lenet_300_100"
    """LeNet-300-100, or Caffe's LeNet-5."""
    data: str = "mnist"
    """Data set."""
    ratios: tuple[float, ...] = (35, 50, 70, 95, 125)
    """Files so many times smaller are aimed at."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Who chooses the zeros."""
    bits: int = 3
    """Of the survivors."""
    epochs: int = 20
    """Of training."""
    weight_decay: float = 0.3
    """Of training."""
    calibration: int = 10_000
    """Images that layers are fitted to."""
    repair: int = 100
    """Generations of the search that keeps the zeros, for every mask."""
    batch: int = 1024
    """Images that candidates are scored on."""
    digits: int = 6
    """Binary digits that multipliers keep in the file."""


def main(config: Config) -> None:
    """Train if need be, then prune at every ratio in every way."""
    odd = sorted({*config.methods} - {*METHODS})
    if odd:
        raise QevoError(f"methods are {', '.join(METHODS)}, not {', '.join(odd)}")
    run = Run(config)
    rows = [run.row(ratio, method) for ratio in config.ratios for method in config.methods]
    name = f"de_{config.network}_{pathlib.Path(config.data).stem}"
    summary = {
        "command": f"python experiments/de_lenet.py {' '.join(flags(config))}",
        "float": run.classifier.float_accuracy,
        "parameters": run.parameters,
        "rows": rows,
        "chosen": chosen(rows, run.classifier.float_accuracy["validation"]),
        "seconds": run.seconds,
        "data_sha256": run.classifier.data.fingerprint(),
        **origin(),
    }
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", config, rows, run.classifier.float_accuracy)
    console.print(table(config, rows, summary["chosen"], run.classifier.float_accuracy))


class Run:
    """The float network, what all rows share, and its folder."""

    def __init__(self, config: Config) -> None:
        self.config = config
        name = f"de-{config.network}-{pathlib.Path(config.data).stem}-{config.seed}"
        self.folder = config.runs / name
        claim(self.folder, config, free=("ratios", "methods", "runs", "results"))
        data = load(config.data, seed=config.seed)
        module: nn.Module = (
            LeNet300()
            if config.network == "lenet_300_100"
            else LeNet5(channels=(20, 50), hidden=(500,), padding="VALID")
        )
        began = time.monotonic()
        variables = trained(
            module,
            data,
            self.folder / files.TEACHER,
            epochs=config.epochs,
            weight_decay=config.weight_decay,
            seed=config.seed,
        )
        self.seconds = {"training": time.monotonic() - began}
        self.classifier = Classifier(config, config.bits, data, module, variables)
        dense, sizes = self.classifier.dense, self.classifier.sizes
        channels = sum(kernel.shape[-1] for kernel in dense.weights.values())
        self.parameters = sum(sizes.values()) + channels
        file = summarise(open_compressed(compress(coarsen(dense, digits=config.digits))))
        self.overhead = file.constants + file.overhead
        self._zeros: dict[float, dict[str, float]] = {}

    def row(self, ratio: float, method: str) -> Record:
        """What is measured of one file."""
        config = self.config
        path = self.folder / f"{ratio:g}-{method}.qevo"
        with console.status(f"{ratio:g}x: zeros of each layer"):
            shares = self.zeros(ratio)
        began = time.monotonic()
        with console.status(f"{ratio:g}x, {METHODS[method]}"):
            zeroing = self.classifier.zeroing
            fitted = zeroing.fitted(shares, method)
            network = zeroing.repaired(fitted)
            network = coarsen(network, digits=config.digits)
        data = compress(network)
        write_whole(path, data)
        network = decompress(data)  # what is measured is what is in the file
        kernels = {name: np.asarray(kernel) for name, kernel in network.weights.items()}
        file = summarise(open_compressed(data))
        coded = sum(layer.bytes for layer in file.layers)
        plain = b"".join(kernel.tobytes() for kernel in kernels.values())
        zstd = len(data) - coded + len(zstandard.ZstdCompressor(level=22).compress(plain))
        return {
            "aim": ratio,
            "method": method,
            "zeros": {name: float((kernel == 0).mean()) for name, kernel in kernels.items()},
            "all_zeros": file.zeros / file.weights,
            "bits": config.bits,
            "bytes": len(data),
            "ratio": file.ratio,
            "zstd_ratio": 4 * self.parameters / zstd,
            "fitted": self.classifier.accuracy(fitted, "validation"),
            "validation": self.classifier.accuracy(network, "validation"),
            "test": self.classifier.accuracy(network, "test"),
            "seconds": time.monotonic() - began,
        }

    def zeros(self, ratio: float) -> dict[str, float]:
        """The share of each layer, the same for all methods."""
        if ratio not in self._zeros:
            costs = self.classifier.costs
            sizes = {name: [cost.bytes for cost in layer] for name, layer in costs.items()}
            budget = 4 * self.parameters / ratio - self.overhead
            self._zeros[ratio] = self.classifier.shares(sizes, budget)
        return self._zeros[ratio]


def chosen(rows: list[Record], accuracy: float) -> Record | None:
    """The smallest file whose validation accuracy is near enough to the float network's."""
    near = [row for row in rows if row["validation"] >= accuracy - WITHIN]
    return min(near, key=lambda row: row["bytes"], default=None)


def table(
    config: Config, rows: list[Record], best: Record | None, accuracy: Mapping[str, float]
) -> Table:
    """Every file, the chosen one marked."""
    title = f"{config.network}, {config.data}; float {100 * accuracy['validation']:.2f} % "
    title += f"validation, {100 * accuracy['test']:.2f} % test"
    found = Table(title=title, title_justify="left")
    for column in ("zeros by", "zeros, %", "bits", "bytes", "ratio", "with zstd"):
        found.add_column(column, justify="right")
    for column in ("fitted, val. %", "searched, val. %", "test, %", "seconds"):
        found.add_column(column, justify="right")
    for row in rows:
        found.add_row(
            METHODS[row["method"]],
            f"{100 * row['all_zeros']:.1f}",
            str(row["bits"]),
            f"{row['bytes']:,}",
            f"{row['ratio']:.1f}",
            f"{row['zstd_ratio']:.1f}",
            *(f"{100 * row[part]:.2f}" for part in ("fitted", "validation", "test")),
            f"{row['seconds']:.0f}",
            style="bold" if row is best else None,
            end_section=row["method"] == config.methods[-1],
        )
    return found


def draw(
    path: pathlib.Path, config: Config, rows: list[Record], accuracy: Mapping[str, float]
) -> None:
    """Test error against ratio, for each way to choose the zeros."""
    curves = {
        method: sorted(
            (row["ratio"], 100 * (1 - row["test"])) for row in rows if row["method"] == method
        )
        for method in config.methods
    }
    with picture(path, curves, 100 * (1 - accuracy["test"])) as ax:
        ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        ax.set_xlabel("float32 bytes over the bytes of the file")
        ax.set_ylabel("test error, %")
        ax.set_title(f"{config.network}, {config.data}", loc="left")


if __name__ == "__main__":
    script(main, Config, __doc__)
