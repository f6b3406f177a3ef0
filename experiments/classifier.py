"""A float classifier and networks of it with zeros, for the scripts beside it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
from printing import console
from zeroing import RADIUS, SHARES, Zeroing, ZeroingConfig, shares_of

from qevo import NetworkProblem, QuantizedNetwork
from qevo.data import Dataset
from qevo.nets.timing import output_size, product_jobs
from qevo.quantize import (
    FloatTeacher,
    SparseFit,
    SparsityCost,
    accuracy,
    float_logits,
    soft_labels,
    sparsity_costs,
)
from qevo.quantize.rounding import Rounding

LOGIT_BITS = 13  # fraction bits of the float network's logits


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(ZeroingConfig):
    """How zeros in a classifier are searched for and shared out."""

    tries: int = 40
    """Ways to share zeros out among the layers that are measured."""


class Classifier:
    """The float network, what zeros cost in it, and what all networks of it share.

    Args:
      config: of the search.
      bits: of the survivors.
      data: images with labels.
      module, variables: the float network.
    """

    def __init__(
        self, config: ClassifierConfig, bits: int, data: Dataset, module: nn.Module, variables: Any
    ) -> None:
        self.config, self.bits, self.data = config, bits, data
        self.module, self.variables = module, variables

    @functools.cached_property
    def teacher(self) -> FloatTeacher:
        """Calibrated."""
        images = self.data.search.images[: self.config.calibration]
        return FloatTeacher(self.module, self.variables, images)

    @functools.cached_property
    def float_accuracy(self) -> dict[str, float]:
        """Of the float network, 0 to 1."""
        parts = {"validation": self.data.validation, "test": self.data.test}
        return {
            name: accuracy(float_logits(self.module, self.variables, part.images), part.labels)
            for name, part in parts.items()
        }

    @functools.cached_property
    def costs(self) -> dict[str, list[SparsityCost]]:
        """Of zeros in each layer, by divergence and bytes."""
        with console.status("what zeros cost in each layer"):
            return sparsity_costs(self.teacher, SHARES, bits=self.bits)

    @functools.cached_property
    def dense(self) -> QuantizedNetwork:
        """A network for its sizes, half of it zeros."""
        zeros = dict.fromkeys(self.teacher.layer_names, 0.5)
        return self._rounded(SparseFit(zeros=zeros, order="magnitude"))

    @property
    def sizes(self) -> dict[str, int]:
        """Weights of each layer."""
        return {name: kernel.size for name, kernel in self.dense.weights.items()}

    @functools.cached_property
    def multiplications(self) -> dict[str, int]:
        """Of each layer, for one image."""
        jobs = product_jobs(self.dense, 1)
        return {name: output_size(job) * math.prod(job.kernel[:-1]) for name, job in jobs.items()}

    @functools.cached_property
    def zeroing(self) -> Zeroing:
        """The search; filters of all layers but the last may go."""
        parts = (self.data.search, self.data.validation)
        logits = [float_logits(self.module, self.variables, part.images) for part in parts]
        soft = [soft_labels(found, fraction_bits=LOGIT_BITS) for found in logits]

        def problem(network: QuantizedNetwork) -> NetworkProblem:
            data = self.data
            return NetworkProblem.of(
                network,
                data.search.images,
                soft[0],
                data.validation.images,
                data.validation.labels,
                validation_targets=soft[1],
                radius=RADIUS,
                batch_size=min(self.config.batch, len(data.search)),
                arithmetic="fast",
            )

        return Zeroing(self.config, problem, self._rounded, list(self.dense.layers)[-1])

    def shares(self, sizes: Mapping[str, Sequence[float]], budget: float) -> dict[str, float]:
        """The share of zeros of each layer, of such sizes within a budget.

        Measured with the masks of the second order, and the same for all methods.
        """

        def divergence(shares: dict[str, float]) -> float:
            return self.teacher.divergence(self.zeroing.fitted(shares, "second_order"))

        free = self.config.pattern in ("free", "filters")  # else shares decide nothing
        tries = self.config.tries if free else 0
        return shares_of(self.costs, sizes, budget, divergence, tries)

    def accuracy(self, network: QuantizedNetwork, part: str) -> float:
        """Of a part of the data, 0 to 1."""
        split = getattr(self.data, part)
        return accuracy(network(split.images), split.labels)

    def _rounded(self, rounding: Rounding) -> QuantizedNetwork:
        return self.teacher.convert(bits=self.bits, rounding=rounding)
