"""Sparse LeNets in few bytes: directed evolution beside magnitude and random pruning.

    QEVO_DATA_DIR=... python experiments/de_lenet.py [--network lenet_5] [--data fashion_mnist]

A float network is trained once; nothing after it has a gradient. For each ratio, the share of zeros
of each layer is chosen under the budget of bytes by what it costs in divergence from the float
network. Four masks have these zeros: random, by magnitude, by the second-order measure with refits,
and by directed evolution, which starts from fewer zeros and goes on in cycles of tentative zeroing
in the whole integer network and refits. From then on all are treated alike: survivors fitted layer
by layer to the float network, a search over survivors, multipliers and biases that keeps the zeros,
constants in fewer digits, and the file. LeNet-5 is Caffe's, of 431,080 parameters, as in the
compression literature.

Ratios are four bytes for every float parameter, biases included, over the bytes of the whole file.
The smallest file within 0.3 points of the float network's validation accuracy is the one that
counts; test accuracy is opened once, for the table. Prints the table; writes
results/de_NETWORK_DATA.json and .png, and the files to the run folder.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import zstandard
from flax import linen as nn
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from zeroing import SHARES, Zeroing, masks_of

from qevo import NetworkProblem, QuantizedNetwork
from qevo.compress import allocate, coarsen, compress, decompress, open_compressed, summarize
from qevo.data import Dataset, load
from qevo.errors import QevoError
from qevo.integer.loss import softmax
from qevo.nets import LeNet5, LeNet300
from qevo.nets.file import write_whole
from qevo.quantize import FloatTeacher, TrainingConfig, float_logits, train
from qevo.quantize.pruning import SparseFit, SparsityCost, sparsity_costs
from qevo.report.picture import STYLE
from qevo.run import folder as files
from qevo.run.command import flags
from qevo.run.provenance import commit, device, versions
from qevo.run.session import script

WITHIN = 0.003  # of the float network's accuracy
LOGIT_BITS = 13  # fraction bits of the float network's logits
SAMPLE = 512  # images that importance is measured on
METHODS = {
    "random": "random",
    "magnitude": "magnitude",
    "second_order": "second order",
    "directed": "directed evolution",
}
COLORS = {
    "random": "#9ca3af",
    "magnitude": "#c2410c",
    "second_order": "#0e7490",
    "directed": "#15803d",
}

console = Console(width=150)
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
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
    more: float = 1.5
    """Survivors that directed evolution starts from, for each one that it leaves."""
    cycles: int = 2
    """Of zeroing and refits."""
    generations: int = 60
    """Of a cycle."""
    repair: int = 100
    """Generations of the search that keeps the zeros, for every mask."""
    population: int = 16
    """Candidates of a generation."""
    batch: int = 1024
    """Images that candidates are scored on."""
    digits: int = 6
    """Binary digits that multipliers keep in the file."""
    seed: int = 0
    """Of everything."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where the run folder lies; a trained network is not trained again."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the picture go."""


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
        "float": run.float_accuracy,
        "parameters": run.parameters,
        "rows": rows,
        "chosen": chosen(rows, run.float_accuracy["validation"]),
        "seconds": run.seconds,
        "data_sha256": run.data.fingerprint(),
        "versions": versions(),
        "device": device(),
        "commit": commit(),
    }
    config.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=2) + "\n"
    (config.results / f"{name}.json").write_text(text, encoding="utf-8")
    draw(config.results / f"{name}.png", config, rows, run.float_accuracy)
    console.print(table(config, rows, summary["chosen"], run.float_accuracy))


class Run:
    """The float network, what all rows share, and its folder."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.seconds: dict[str, float] = {}
        name = f"de-{config.network}-{pathlib.Path(config.data).stem}-{config.seed}"
        self.folder = config.runs / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data: Dataset = load(config.data, seed=config.seed)
        self.module: nn.Module = (
            LeNet300()
            if config.network == "lenet_300_100"
            else LeNet5(channels=(20, 50), hidden=(500,), padding="VALID")
        )
        variables = self._variables()
        search = self.data.search.images[: config.calibration]
        self.teacher = FloatTeacher(self.module, variables, search)
        parts = {"search": self.data.search, "validation": self.data.validation}
        logits = {
            name: float_logits(self.module, variables, part.images)
            for name, part in (parts | {"test": self.data.test}).items()
        }
        self.soft = {name: soft_labels(logits[name]) for name in parts}
        self.float_accuracy = {
            name: float((logits[name].argmax(1) == getattr(self.data, name).labels).mean())
            for name in ("validation", "test")
        }
        began = time.monotonic()
        with console.status("what zeros cost in each layer"):
            self.costs = sparsity_costs(self.teacher, SHARES, bits=config.bits)
        self.seconds["costs"] = time.monotonic() - began
        self.zeroing = Zeroing(
            self._problem,
            self._rounded,
            self.data.search.images[:SAMPLE],
            more=config.more,
            cycles=config.cycles,
            generations=config.generations,
            population=config.population,
            seed=config.seed,
        )
        dense = self._rounded(SparseFit(zeros=dict.fromkeys(self.costs, 0.5), order="magnitude"))
        self.sizes = {name: kernel.size for name, kernel in dense.weights.items()}
        channels = sum(kernel.shape[-1] for kernel in dense.weights.values())
        self.parameters = sum(self.sizes.values()) + channels
        file = summarize(open_compressed(compress(coarsen(dense, digits=config.digits))))
        self.overhead = file.constants + file.overhead

    def row(self, ratio: float, method: str) -> Record:
        """What is measured of one file."""
        config = self.config
        path = self.folder / f"{ratio:g}-{method}.qevo"
        began = time.monotonic()
        with console.status(f"{ratio:g}x, {METHODS[method]}"):
            zeros = self.zeros(ratio)
            if method == "directed":
                fit = SparseFit(masks=self.zeroing.masks(zeros), seed=config.seed)
            else:
                order: Any = method
                fit = SparseFit(zeros=zeros, order=order, seed=config.seed)
            fitted = self._rounded(fit)
            network = self.zeroing.search(fitted, masks_of(fitted), config.repair)
            network = coarsen(network, digits=config.digits)
        data = compress(network)
        write_whole(path, data)
        network = decompress(data)  # what is measured is what is in the file
        kernels = {name: np.asarray(kernel) for name, kernel in network.weights.items()}
        file = summarize(open_compressed(data))
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
            "fitted": self._accuracy(fitted, "validation"),
            "validation": self._accuracy(network, "validation"),
            "test": self._accuracy(network, "test"),
            "seconds": time.monotonic() - began,
        }

    def zeros(self, ratio: float) -> dict[str, float]:
        """The share of each layer: the least sum of divergences within the bytes."""
        budget = 4 * self.parameters / ratio - self.overhead
        costs: list[list[SparsityCost]] = list(self.costs.values())
        found = allocate(
            [[cost.bytes for cost in layer] for layer in costs],
            [[cost.divergence for cost in layer] for layer in costs],
            budget,
        )
        picked = zip(self.costs.items(), found.choice, strict=True)
        return {name: layer[option].zeros for (name, layer), option in picked}

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
            batch_size=min(self.config.batch, len(data.search)),
            arithmetic="fast",
        )

    def _rounded(self, fit: SparseFit) -> QuantizedNetwork:
        return self.teacher.convert(bits=self.config.bits, rounding=fit)

    def _accuracy(self, network: QuantizedNetwork, part: str) -> float:
        split = getattr(self.data, part)
        return float((network(split.images).argmax(1) == split.labels).mean())

    def _variables(self) -> Any:
        config, path = self.config, self.folder / files.TEACHER
        if not path.exists():
            training = TrainingConfig(
                epochs=config.epochs,
                batch=min(250, len(self.data.search)),
                learning_rate=2e-3,
                weight_decay=config.weight_decay,
                seed=config.seed,
            )
            began = time.monotonic()
            with console.status("training"):
                images, labels = self.data.search.images, self.data.search.labels
                files.save_arrays(path, train(self.module, images, labels, config=training))
            self.seconds["training"] = time.monotonic() - began
        return files.load_arrays(path)


def soft_labels(logits: np.ndarray) -> np.ndarray:
    """Frequencies int32 ``[n, C]`` of a float network's classes."""
    fixed = np.rint(np.clip(logits, -1e4, 1e4) * 2.0**LOGIT_BITS).astype(np.int32)
    parts = range(0, len(fixed), 1 << 15)
    found = [
        softmax(jnp.asarray(fixed[i : i + (1 << 15)]), fraction_bits=LOGIT_BITS) for i in parts
    ]
    return np.concatenate(jax.device_get(found))


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
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.5), layout="constrained")
        ax = figure.subplots()
        for method in config.methods:
            mine = sorted((row["ratio"], row["test"]) for row in rows if row["method"] == method)
            ratios, found = zip(*mine, strict=True)
            errors = [100 * (1 - value) for value in found]
            ax.plot(ratios, errors, "o-", ms=4, color=COLORS[method], label=METHODS[method])
        ax.axhline(100 * (1 - accuracy["test"]), color="0.6", lw=0.8, label="float")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("float32 bytes over the bytes of the file")
        ax.set_ylabel("test error, %")
        ax.set_title(f"{config.network}, {config.data}", loc="left")
        ax.legend(frameon=False)
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    script(main, Config, __doc__)
