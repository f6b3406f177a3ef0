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
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import numpy as np
import zstandard
from classifier import Classifier, ClassifierConfig
from curves import picture
from flax import linen as nn
from float_networks import caffe_lenet_5, trained_classifier
from printing import console, table
from records import PLACES, Record, claim, command, kept, write_record
from rich.table import Table
from zeroing import METHODS, Method

from qevo.compress import coarsen, compress, decompress, open_compressed, summarise
from qevo.core.writing import write_whole
from qevo.data import load
from qevo.nets import LeNet300
from qevo.run.provenance import origin
from qevo.run.session import script

WITHIN = 0.003  # of the float network's accuracy


@dataclasses.dataclass(frozen=True)
class Config(ClassifierConfig):
    """Prune, fit, search and code."""

    network: Literal["lenet_300_100", "lenet_5"] = "lenet_300_100"
    """LeNet-300-100, or Caffe's LeNet-5."""
    data: str = "mnist"
    """Data set."""
    ratios: tuple[float, ...] = (35, 50, 70, 95, 125)
    """Files so many times smaller are aimed at."""
    methods: tuple[Method, ...] = get_args(Method)
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
    run = Run(config)
    rows = [run.row(ratio, method) for ratio in config.ratios for method in config.methods]
    real = run.classifier.float_accuracy
    best = chosen(rows, real["validation"])
    name = f"de_{config.network}_{pathlib.Path(config.data).stem}"
    summary = {
        "command": command("de_lenet", config),
        "float": real,
        "parameters": run.parameters,
        "rows": rows,
        "chosen": best,
        "seconds": {"training": run.training_seconds},
        "data_sha256": run.classifier.data.fingerprint(),
        **origin(),
    }
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", config, rows, real)
    console.print(table_of(config, rows, best, real))


class Run:
    """The float network, what all rows share, and its folder."""

    def __init__(self, config: Config) -> None:
        self.config = config
        name = f"de-{config.network}-{pathlib.Path(config.data).stem}-{config.seed}"
        self.folder = config.runs / name
        claim(self.folder, config, free=("ratios", "methods", *PLACES))
        data = load(config.data, seed=config.seed)
        module: nn.Module = LeNet300() if config.network == "lenet_300_100" else caffe_lenet_5()
        variables, self.training_seconds = trained_classifier(
            module,
            data,
            self.folder,
            epochs=config.epochs,
            weight_decay=config.weight_decay,
            seed=config.seed,
        )
        self.classifier = Classifier(config, config.bits, data, module, variables)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))

    def row(self, ratio: float, method: Method) -> Record:
        """What is measured of one file."""
        name = f"{ratio:g}-{method}"
        return kept(self.folder / f"{name}.json", lambda: self._row(name, ratio, method))

    def _row(self, name: str, ratio: float, method: Method) -> Record:
        config, zeroing = self.config, self.classifier.zeroing
        shares = self.zeros(ratio)
        began = time.monotonic()
        with console.status(f"{ratio:g}x, {METHODS[method]}"):
            fitted = zeroing.fitted(shares, method)
            network = coarsen(zeroing.repaired(fitted), digits=config.digits)
        data = compress(network)
        write_whole(self.folder / f"{name}.qevo", data)
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
            "settings": zeroing.settings,
            **origin(),
        }

    def zeros(self, ratio: float) -> dict[str, float]:
        """The share of each layer, the same for all methods."""

        def found() -> Record:
            sizes = {
                name: [c.bytes for c in layer] for name, layer in self.classifier.costs.items()
            }
            with console.status(f"{ratio:g}x: zeros of each layer"):
                return self.classifier.shares(sizes, 4 * self.parameters / ratio - self.overhead)

        return kept(self.folder / f"{ratio:g}-shares.json", found)

    @functools.cached_property
    def overhead(self) -> int:
        """Bytes of a file that are not weights."""
        coarse = coarsen(self.classifier.dense, digits=self.config.digits)
        file = summarise(open_compressed(compress(coarse)))
        return file.constants + file.overhead


def chosen(rows: list[Record], accuracy: float) -> Record | None:
    """The smallest file whose validation accuracy is near enough to the float network's."""
    near = [row for row in rows if row["validation"] >= accuracy - WITHIN]
    return min(near, key=lambda row: row["bytes"], default=None)


def table_of(
    config: Config, rows: list[Record], best: Record | None, accuracy: Mapping[str, float]
) -> Table:
    """Every file, the chosen one marked."""
    title = f"{config.network}, {config.data}; float {100 * accuracy['validation']:.2f} % "
    title += f"validation, {100 * accuracy['test']:.2f} % test"
    sizes = ("zeros, %", "bits", "bytes", "ratio", "with zstd")
    measured = ("fitted, val. %", "searched, val. %", "test, %", "seconds")
    found = table(title, ("zeros by",), (*sizes, *measured))
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
