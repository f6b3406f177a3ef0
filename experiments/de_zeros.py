"""Who chooses the zeros: directed evolution beside second order, magnitude and chance.

    QEVO_DATA_DIR=... python experiments/de_zeros.py [--network resnet_20]

LeNet-5 (Caffe's, trained here on MNIST) or the published ResNet-20 on CIFAR-10. For each share of
zeros in the whole network, each layer's share is chosen by the divergence from the float network
with masks by the second order, the same for all. The masks are drawn at random, by magnitude, by
the second-order measure with refits, or by directed evolution; then all are treated alike:
survivors fitted layer by layer to the same images, and the same search over survivors, multipliers
and biases that keeps the zeros. Nothing has a gradient but the float network's training. With
--pattern filters whole output channels go, with --pattern 2 4 all but two of each four inputs of a
channel. With --count multiplications the shares are of these: convolutions lose most, not the
layers with the most weights.

Prints validation and test accuracy; writes results/de_zeros_NETWORK.json and .png. The published
ResNet-20 was trained on the images that are validation images here.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from classifier import Classifier, ClassifierConfig
from curves import picture
from flax import linen as nn
from float_networks import PUBLISHED, caffe_lenet_5, trained_classifier
from printing import console, table
from records import PLACES, Record, claim, command, kept, write_record
from rich.table import Table
from zeroing import METHODS, Method, survivors

from qevo.data import Dataset, load
from qevo.nets import Float
from qevo.quantize import load_published
from qevo.quantize.published import published_scaling
from qevo.run.provenance import origin
from qevo.run.session import script


@dataclasses.dataclass(frozen=True)
class Config(ClassifierConfig):
    """Zero in every way."""

    network: Literal["lenet_5", "resnet_20"] = "lenet_5"
    """Network."""
    zeros: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    """Shares of the whole network."""
    count: Literal["weights", "multiplications"] = "weights"
    """What they are shares of."""
    methods: tuple[Method, ...] = get_args(Method)
    """Who chooses."""
    bits: int = 4
    """Of the survivors."""


def main(config: Config) -> None:
    """Zero at every share in every way."""
    run = Run(config)
    rows = [run.row(zeros, method) for zeros in config.zeros for method in config.methods]
    real = run.classifier.float_accuracy
    summary = {"command": command("de_zeros", config), "float": real, "rows": rows}
    name = f"de_zeros_{name_of(config)}"
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", config, rows, real)
    console.print(table_of(config, rows, real))


def name_of(config: Config) -> str:
    """The network, and the pattern of its zeros."""
    parts = [config.network]
    if config.pattern != "free":
        pattern = [config.pattern] if isinstance(config.pattern, str) else map(str, config.pattern)
        parts.append("_of_".join(pattern))
    if config.count != "weights":
        parts.append(config.count)
    return "_".join(parts)


class Run:
    """The float network, what all rows share, and its folder."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = config.runs / f"de-zeros-{name_of(config)}-{config.seed}"
        claim(self.folder, config, free=("zeros", "methods", *PLACES))
        data = load("mnist" if config.network == "lenet_5" else "cifar10", seed=config.seed)
        self.classifier = Classifier(config, config.bits, data, *self._float(data))

    def row(self, zeros: float, method: Method) -> Record:
        """What is measured of one network."""
        path = self.folder / f"{zeros:g}-{method}.json"
        return kept(path, lambda: self._row(zeros, method))

    def _row(self, zeros: float, method: Method) -> Record:
        zeroing, shares = self.classifier.zeroing, self.shares(zeros)
        began = time.monotonic()
        with console.status(f"{100 * zeros:g} % zeros, {METHODS[method]}"):
            fitted = zeroing.fitted(shares, method)
            network = zeroing.repaired(fitted)
        kernels = {name: np.asarray(kernel) for name, kernel in network.weights.items()}
        zeroed = {name: float((kernel == 0).mean()) for name, kernel in kernels.items()}
        return {
            "zeros": zeros,
            "method": method,
            "shares": shares,
            "layer_zeros": zeroed,
            "all_zeros": overall(zeroed, self.classifier.sizes),
            "spared": overall(zeroed, self.classifier.multiplications),
            "fitted": self.classifier.accuracy(fitted, "validation"),
            "validation": self.classifier.accuracy(network, "validation"),
            "test": self.classifier.accuracy(network, "test"),
            "seconds": time.monotonic() - began,
            "settings": zeroing.settings,
            **origin(),
        }

    def shares(self, zeros: float) -> dict[str, float]:
        """Of each layer, where so much of the whole network is to be zero."""

        def found() -> Record:
            classifier = self.classifier
            weights = self.config.count == "weights"
            sizes = classifier.sizes if weights else classifier.multiplications
            left = survivors(classifier.costs, sizes)
            with console.status(f"{100 * zeros:g} % zeros, those of each layer"):
                return classifier.shares(left, (1 - zeros) * sum(sizes.values()))

        return kept(self.folder / f"{zeros:g}-shares.json", found)

    def _float(self, data: Dataset) -> tuple[nn.Module, Any]:
        if self.config.network == "resnet_20":
            module, variables = load_published(PUBLISHED["resnet_20"])
            return module.clone(numerics=Float(scaling=published_scaling(module))), variables
        module = caffe_lenet_5()
        return module, trained_classifier(
            module, data, self.folder, seed=self.config.seed
        ).variables


def overall(shares: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """The share of the whole network, from those of its layers."""
    return sum(share * sizes[name] for name, share in shares.items()) / sum(sizes.values())


def table_of(config: Config, rows: list[Record], accuracy: Mapping[str, float]) -> Table:
    """Every network."""
    title = (
        f"{config.network}, {config.bits} bit; float {100 * accuracy['validation']:.2f} %"
        f" validation, {100 * accuracy['test']:.2f} % test"
    )
    columns = (
        "zeros, %",
        "multiplications spared, %",
        "zeros by",
        "fitted, val. %",
        "searched, val. %",
        "test, %",
        "s",
    )
    found = table(title, (), columns)
    for row in rows:
        found.add_row(
            *(f"{100 * row[part]:.1f}" for part in ("all_zeros", "spared")),
            METHODS[row["method"]],
            *(f"{100 * row[part]:.2f}" for part in ("fitted", "validation", "test")),
            f"{row['seconds']:.0f}",
            end_section=row["method"] == config.methods[-1],
        )
    return found


def draw(
    path: pathlib.Path, config: Config, rows: list[Record], accuracy: Mapping[str, float]
) -> None:
    """Test accuracy against zeros, for each way to choose them."""
    curves = {
        method: [
            (100 - 100 * row["zeros"], 100 * row["test"]) for row in rows if row["method"] == method
        ]
        for method in config.methods
    }
    with picture(path, curves, 100 * accuracy["test"]) as ax:
        ax.invert_xaxis()
        ticks = [100 - 100 * zeros for zeros in config.zeros]
        ax.set_xticks(ticks, [f"{100 * zeros:g}" for zeros in config.zeros])
        ax.set_xticks([], minor=True)
        of = "" if config.count == "weights" else f"of the {config.count}, "
        ax.set_xlabel(f"zeros, {of}%")
        ax.set_ylabel("test accuracy, %")
        ax.set_title(f"{config.network}, survivors of {config.bits} bits", loc="left")


if __name__ == "__main__":
    script(main, Config, __doc__)
