"""A float classifier and networks of it with zeros, for the scripts beside it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax import linen as nn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from zeroing import SHARES, Zeroing, ZeroingConfig, shares_of

from qevo import NetworkProblem, QuantizedNetwork
from qevo.data import Dataset
from qevo.quantize import FloatTeacher, TrainingConfig, accuracy, float_logits, soft_labels, train
from qevo.quantize.rounding import Rounding
from qevo.quantize.sparse import SparseFit, sparsity_costs
from qevo.report.picture import STYLE
from qevo.run import folder as files

LOGIT_BITS = 13  # fraction bits of the float network's logits
METHODS = {
    "random": "random",
    "magnitude": "magnitude",
    "second_order": "second order",
    "cycles": "second order in cycles",
    "directed": "directed evolution",
}
COLORS = {
    "random": "#9ca3af",
    "magnitude": "#c2410c",
    "second_order": "#0e7490",
    "cycles": "#7c3aed",
    "directed": "#15803d",
}

console = Console(width=150)


class Classifier:
    """The float network, what zeros cost in it, and what all networks of it share.

    Args:
      config: of the search.
      bits: of the survivors.
      data: images with labels.
      module, variables: the float network.
    """

    def __init__(
        self, config: ZeroingConfig, bits: int, data: Dataset, module: nn.Module, variables: Any
    ) -> None:
        self.batch, self.bits, self.data = config.batch, bits, data
        free = config.pattern in ("free", "filters")  # else shares decide nothing
        self.tries = config.tries if free else 0
        search = data.search.images
        self.teacher = FloatTeacher(module, variables, search[: config.calibration])
        logits = {
            name: float_logits(module, variables, getattr(data, name).images)
            for name in ("search", "validation", "test")
        }
        self.soft = {
            name: soft_labels(logits[name], fraction_bits=LOGIT_BITS)
            for name in ("search", "validation")
        }
        self.float_accuracy = {
            name: accuracy(logits[name], getattr(data, name).labels)
            for name in ("validation", "test")
        }
        with console.status("what zeros cost in each layer"):
            self.costs = sparsity_costs(self.teacher, SHARES, bits=bits)
        last = list(self.costs)[-1]
        self.zeroing = Zeroing(config, self._problem, self._rounded, last)
        half = SparseFit(zeros=dict.fromkeys(self.costs, 0.5), order="magnitude")
        self.dense = self._rounded(half)
        self.sizes = {name: kernel.size for name, kernel in self.dense.weights.items()}

    def shares(self, sizes: Mapping[str, Sequence[float]], budget: float) -> dict[str, float]:
        """The share of zeros of each layer, of such sizes within a budget.

        Measured with the masks of the second order, and the same for all methods.
        """

        def divergence(shares: dict[str, float]) -> float:
            return self.teacher.divergence(self.zeroing.fitted(shares, "second_order"))

        return shares_of(self.costs, sizes, budget, divergence, self.tries)

    def accuracy(self, network: QuantizedNetwork, part: str) -> float:
        """Of a part of the data, 0 to 1."""
        split = getattr(self.data, part)
        return accuracy(network(split.images), split.labels)

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
            batch_size=min(self.batch, len(data.search)),
            arithmetic="fast",
        )

    def _rounded(self, rounding: Rounding) -> QuantizedNetwork:
        return self.teacher.convert(bits=self.bits, rounding=rounding)


def trained(
    module: nn.Module,
    data: Dataset,
    path: pathlib.Path,
    *,
    epochs: int,
    weight_decay: float,
    seed: int,
) -> Any:
    """The variables in a file, trained if it is not there."""
    if not path.exists():
        training = TrainingConfig(
            epochs=epochs,
            batch=min(250, len(data.search)),
            learning_rate=2e-3,
            weight_decay=weight_decay,
            seed=seed,
        )
        images, labels = data.search.images, data.search.labels
        with console.status("training"):
            files.save_arrays(path, train(module, images, labels, config=training))
    return files.load_arrays(path)


@contextlib.contextmanager
def picture(
    path: pathlib.Path, curves: Mapping[str, Sequence[tuple[float, float]]], level: float
) -> Iterator[Axes]:
    """The axes of a figure that is written at the end: a curve for each way to choose zeros.

    Args:
      path: PNG to write.
      curves: points of each of `METHODS`; x is logarithmic.
      level: of the float network.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.5), layout="constrained")
        ax = figure.subplots()
        for method, points in curves.items():
            x, y = zip(*points, strict=True)
            ax.plot(x, y, "o-", ms=4, color=COLORS[method], label=METHODS[method])
        ax.axhline(level, color="0.6", lw=0.8, label="float")
        ax.set_xscale("log")
        yield ax
        ax.legend(frameon=False)
        figure.savefig(path, dpi=130)
