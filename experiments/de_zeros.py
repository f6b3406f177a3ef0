"""Who chooses the zeros: directed evolution beside second order, magnitude and chance.

    QEVO_DATA_DIR=... python experiments/de_zeros.py [--network resnet_20]

LeNet-5 (Caffe's, trained here on MNIST) or the published ResNet-20 on CIFAR-10. For each share of
zeros in the whole network, each layer's share is chosen by what it costs in divergence from the
float network, the same for all. The masks are drawn at random, by magnitude, by the second-order
measure with refits, or by directed evolution; then all are treated alike: survivors fitted layer by
layer to the same images, and the same search over survivors, multipliers and biases that keeps the
zeros. Nothing has a gradient but the float network's training.

Prints validation and test accuracy; writes results/de_zeros_NETWORK.json and .png. The published
ResNet-20 was trained on the images that are validation images here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from de_lenet import COLORS, METHODS, SAMPLE, soft_labels
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from zeroing import SHARES, Zeroing, masks_of, shares_of

from qevo import NetworkProblem, QuantizedNetwork
from qevo.data import load
from qevo.nets import Float, LeNet5
from qevo.quantize import FloatTeacher, TrainingConfig, float_logits, load_published, train
from qevo.quantize.pruning import SparseFit, sparsity_costs
from qevo.quantize.published import published_scaling
from qevo.report.picture import STYLE
from qevo.run import folder as files
from qevo.run.command import flags
from qevo.run.provenance import commit, device, versions
from qevo.run.session import script

WEIGHTS = pathlib.Path("weights") / "resnet_cifar10" / "resnet20_cifar10_f32.npz"

console = Console(width=120)
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Zero in every way."""

    network: Literal["lenet_5", "resnet_20"] = "lenet_5"
    """Network."""
    zeros: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    """Shares of all weights."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Who chooses."""
    bits: int = 4
    """Of the survivors."""
    calibration: int = 4000
    """Images that layers are fitted to."""
    more: float = 1.5
    """Survivors that directed evolution starts from, for each one that it leaves."""
    cycles: int = 2
    """Of zeroing and refits."""
    generations: int = 40
    """Of a cycle."""
    repair: int = 60
    """Generations of the search that keeps the zeros, for every mask."""
    population: int = 16
    """Candidates of a generation."""
    batch: int = 512
    """Images that candidates are scored on."""
    seed: int = 0
    """Of everything."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where the run folder lies; what is measured is not measured again."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the picture go."""


def main(config: Config) -> None:
    """Zero at every share in every way."""
    run = Run(config)
    rows = [run.row(zeros, method) for zeros in config.zeros for method in config.methods]
    summary = {
        "command": f"python experiments/de_zeros.py {' '.join(flags(config))}".strip(),
        "float": run.float_accuracy,
        "rows": rows,
        "versions": versions(),
        "device": device(),
        "commit": commit(),
    }
    config.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=2) + "\n"
    name = f"de_zeros_{config.network}"
    (config.results / f"{name}.json").write_text(text, encoding="utf-8")
    draw(config.results / f"{name}.png", config, rows, run.float_accuracy)
    console.print(table(config, rows, run.float_accuracy))


class Run:
    """The float network, what all rows share, and its folder."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = config.runs / f"de-zeros-{config.network}-{config.seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        data = "mnist" if config.network == "lenet_5" else "cifar10"
        self.data = load(data, seed=config.seed)
        self.module, variables = self._float()
        search = self.data.search.images[: config.calibration]
        self.teacher = FloatTeacher(self.module, variables, search)
        logits = {
            name: float_logits(self.module, variables, getattr(self.data, name).images)
            for name in ("search", "validation", "test")
        }
        self.soft = {name: soft_labels(logits[name]) for name in ("search", "validation")}
        self.float_accuracy = {
            name: float((logits[name].argmax(1) == getattr(self.data, name).labels).mean())
            for name in ("validation", "test")
        }
        with console.status("what zeros cost in each layer"):
            self.costs = sparsity_costs(self.teacher, SHARES, bits=config.bits)
        dense = self._rounded(SparseFit(zeros=dict.fromkeys(self.costs, 0.5), order="magnitude"))
        self.sizes = {name: kernel.size for name, kernel in dense.weights.items()}
        self.zeroing = Zeroing(
            self._problem,
            self._rounded,
            search[:SAMPLE],
            more=config.more,
            cycles=config.cycles,
            generations=config.generations,
            population=config.population,
            seed=config.seed,
        )

    def row(self, zeros: float, method: str) -> Record:
        """What is measured of one network."""
        config, path = self.config, self.folder / f"{zeros:g}-{method}.json"
        if path.exists():
            return files.read_json(path)
        began = time.monotonic()
        with console.status(f"{config.network}: {100 * zeros:g} % zeros, {METHODS[method]}"):
            shares = shares_of(self.costs, self.sizes, zeros)
            if method == "directed":
                fit = SparseFit(masks=self.zeroing.masks(shares), seed=config.seed)
            else:
                order: Any = method
                fit = SparseFit(zeros=shares, order=order, seed=config.seed)
            fitted = self._rounded(fit)
            network = self.zeroing.search(fitted, masks_of(fitted), config.repair)
        kernels = [np.asarray(kernel) for kernel in network.weights.values()]
        found = {
            "zeros": zeros,
            "method": method,
            "all_zeros": sum(int((k == 0).sum()) for k in kernels) / sum(k.size for k in kernels),
            "fitted": self._accuracy(fitted, "validation"),
            "validation": self._accuracy(network, "validation"),
            "test": self._accuracy(network, "test"),
            "seconds": time.monotonic() - began,
        }
        files.write_json(path, found)
        return found

    def _problem(self, network: QuantizedNetwork) -> NetworkProblem:
        data = self.data
        return NetworkProblem.of(
            network,
            data.search.images,
            self.soft["search"],
            data.validation.images,
            data.validation.labels,
            validation_targets=self.soft["validation"],
            radius=127,
            batch_size=self.config.batch,
            arithmetic="fast",
        )

    def _rounded(self, fit: SparseFit) -> QuantizedNetwork:
        return self.teacher.convert(bits=self.config.bits, rounding=fit)

    def _accuracy(self, network: QuantizedNetwork, part: str) -> float:
        split = getattr(self.data, part)
        return float((network(split.images).argmax(1) == split.labels).mean())

    def _float(self) -> tuple[Any, Any]:
        if self.config.network == "resnet_20":
            path = pathlib.Path(os.environ.get("QEVO_DATA_DIR", ".")) / WEIGHTS
            module, variables = load_published(path)
            return module.clone(numerics=Float(scaling=published_scaling(module))), variables
        module, path = (
            LeNet5(channels=(20, 50), hidden=(500,), padding="VALID"),
            self.folder / files.TEACHER,
        )
        if not path.exists():
            training = TrainingConfig(
                epochs=20, batch=250, learning_rate=2e-3, weight_decay=0.3, seed=self.config.seed
            )
            search = self.data.search
            with console.status("training"):
                files.save_arrays(
                    path, train(module, search.images, search.labels, config=training)
                )
        return module, files.load_arrays(path)


def table(config: Config, rows: list[Record], accuracy: Mapping[str, float]) -> Table:
    """Every network."""
    title = (
        f"{config.network}, {config.bits} bit; float {100 * accuracy['validation']:.2f} %"
        f" validation, {100 * accuracy['test']:.2f} % test"
    )
    found = Table(title=title, title_justify="left")
    for column in ("zeros, %", "zeros by", "fitted, val. %", "searched, val. %", "test, %", "s"):
        found.add_column(column, justify="right")
    for row in rows:
        found.add_row(
            f"{100 * row['all_zeros']:.1f}",
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
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.5), layout="constrained")
        ax = figure.subplots()
        for method in config.methods:
            mine = [(row["zeros"], row["test"]) for row in rows if row["method"] == method]
            zeros, test = (100 * np.array(part) for part in zip(*mine, strict=True))
            ax.plot(100 - zeros, test, "o-", ms=4, color=COLORS[method], label=METHODS[method])
        ax.axhline(100 * accuracy["test"], color="0.6", lw=0.8, label="float")
        ax.set_xscale("log")
        ax.invert_xaxis()
        ticks = [100 - 100 * zeros for zeros in config.zeros]
        ax.set_xticks(ticks, [f"{100 * zeros:g}" for zeros in config.zeros])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("zeros, %")
        ax.set_ylabel("test accuracy, %")
        ax.set_title(f"{config.network}, survivors of {config.bits} bits", loc="left")
        ax.legend(frameon=False)
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    script(main, Config, __doc__)
