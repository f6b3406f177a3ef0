"""Directed evolution of zeros, for the scripts beside it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from records import Record
from searching import finished

from qevo import NetworkProblem, QuantizedNetwork, evolve
from qevo.algorithms.directed import Directed, DirectedConfig, integer_importance
from qevo.algorithms.zero_patterns import Pattern
from qevo.compress import allocate, reallocate
from qevo.quantize.pruning import removal_costs
from qevo.quantize.rounding import FloatLayer, Rounded, Rounding
from qevo.quantize.sparse import SparseFit, SparsityCost

Method = Literal["random", "magnitude", "second_order", "cycles", "directed"]
METHODS = {  # who chooses the zeros
    "random": "random",
    "magnitude": "magnitude",
    "second_order": "second order",
    "cycles": "second order in cycles",
    "directed": "directed evolution",
}
RADIUS = 127  # of the problems: a weight may take any of its levels
SHARES = (
    0.0,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.87,
    0.91,
    0.935,
    0.95,
    0.963,
    0.973,
    0.981,
    0.988,
    0.992,
    0.995,
)


@dataclasses.dataclass(frozen=True)
class ZeroingConfig:
    """How zeros are searched for, and where results go."""

    calibration: int = 4000
    """Images that layers are fitted to."""
    pattern: Pattern = "free"
    """What is zeroed together: any weights, filters (output channels of all layers but the last),
    or all but at most n in each run of m rows, as in 2 4, whatever the share of zeros."""
    more: float = 2.0
    """Survivors that directed evolution starts from, for each one that it leaves."""
    cycles: int = 8
    """Of zeroing and refits."""
    generations: int = 12
    """Of a cycle."""
    repair: int = 60
    """Generations of the search that keeps the zeros, for every mask."""
    population: int = 16
    """Candidates of a generation."""
    slots: int = 512
    """The most weights of a tentative set."""
    batch: int = 512
    """Images that candidates are scored on."""
    seed: int = 0
    """Of everything."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where the run folder lies; what is there is not made again."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table and the pictures go."""


@dataclasses.dataclass(frozen=True)
class Zeroing:
    """A search over zeros and survivors, and how often it is refitted.

    Attributes:
      config: how.
      problem: the search around a network.
      rounded: a network of the float one, by a rounding.
      last: layer that keeps its channels, where whole filters go.
    """

    config: ZeroingConfig
    problem: Callable[[QuantizedNetwork], NetworkProblem]
    rounded: Callable[[Rounding], QuantizedNetwork]
    last: str = ""

    @property
    def settings(self) -> Record:
        """Of all searches, for records."""
        search = dataclasses.asdict(self._settings({}, self.config.pattern))
        del search["zeros"]  # each has its own
        return {"radius": RADIUS, "search": search}

    def fitted(self, shares: Mapping[str, float], method: Method) -> QuantizedNetwork:
        """Survivors of a method's masks, layer by layer.

        "cycles" are what directed evolution's cycles of costs and refits of the whole network give
        without one tentative set.
        """
        if method in ("directed", "cycles") and any(shares.values()):
            generations = self.config.generations if method == "directed" else 0
            masks = self.masks(shares, generations)
            return self.rounded(SparseFit(masks=masks, seed=self.config.seed))
        order: Any = "second_order" if method in ("directed", "cycles") else method
        pattern = self.config.pattern
        return self.rounded(
            SparseFit(zeros=shares, order=order, pattern=pattern, seed=self.config.seed)
        )

    def repaired(self, network: QuantizedNetwork) -> QuantizedNetwork:
        """What the search makes of the survivors."""
        if not self.config.repair:
            return network
        return self.search(network, {}, self.config.repair)

    def masks(self, zeros: Mapping[str, float], generations: int) -> dict[str, np.ndarray]:
        """Masks with these shares of zeros, by directed evolution from fewer, refit by refit."""
        config = self.config
        left = {name: 1 - share for name, share in zeros.items()}
        begin = {name: max(1 - config.more * share, 0.0) for name, share in left.items()}
        pattern = config.pattern
        if not isinstance(pattern, str):  # there is nothing between none and all of its zeros
            begin, pattern = dict.fromkeys(left, 0.0), "free"
        fit = SparseFit(zeros=begin, pattern=pattern, seed=config.seed)
        for cycle in range(1, config.cycles + 1):
            network, costs = self.costed(fit)
            rest = config.more ** (1 - cycle / config.cycles)
            goals = {name: max(1 - rest * share, 0.0) for name, share in left.items()}
            network = self.search(network, costs, generations, goals)
            fit = SparseFit(masks=masks_of(network), seed=config.seed)
        return dict(fit.masks)

    def costed(self, fit: SparseFit) -> tuple[QuantizedNetwork, dict[str, np.ndarray]]:
        """The network of a rounding, and what zeroing each of its weights costs, by layer."""
        costs: dict[str, np.ndarray] = {}
        made_up = self.config.pattern != "filters"  # of a filter they are added up

        def noting(layer: FloatLayer) -> Rounded:
            found = fit(layer)
            costs[layer.name] = removal_costs(layer, found, made_up=made_up)
            return found

        network = self.rounded(noting)
        return network, {name: costs[name].reshape(w.shape) for name, w in network.weights.items()}

    def search(
        self,
        network: QuantizedNetwork,
        costs: Mapping[str, np.ndarray],
        generations: int,
        goals: Mapping[str, float] | None = None,
    ) -> QuantizedNetwork:
        """Directed evolution to some shares of zeros, or its repair alone where there are none.

        In no generations the least important weights go.
        """
        problem = self.problem(network)
        now = {name: 1 - float(mask.mean()) for name, mask in masks_of(network).items()}
        pattern = self.config.pattern if goals else "free"
        wanted = dict(goals or now)
        if pattern == "free":
            wanted = {name: max(share, now[name]) for name, share in wanted.items()}
        elif pattern == "filters":
            wanted.pop(self.last, None)
        # A layer that has lost all its weights stays without any.
        wanted = {name: share for name, share in wanted.items() if now[name] < 1}
        named = {f"weights/{name}": cost for name, cost in costs.items()}
        importance = integer_importance(problem.space, named)
        search = Directed(problem.space, self._settings(wanted, pattern), importance)
        if not generations:
            start = search.start(jax.random.key(self.config.seed))
            return problem.network(network, problem.space.decode(search.solution(start)))
        result = finished(
            evolve(search, problem, self.config.seed, generations=generations, progress=False)
        )
        return problem.network(network, result.solution)

    def _settings(self, zeros: Mapping[str, float], pattern: Pattern) -> DirectedConfig:
        return DirectedConfig(
            zeros=tuple((f"weights/{name}", share) for name, share in zeros.items()),
            pattern=pattern,
            population=self.config.population,
            committed=max(self.config.population // 4, 1),
            slots=self.config.slots,
        )


def survivors(
    costs: Mapping[str, Sequence[SparsityCost]], weights: Mapping[str, int]
) -> dict[str, list[float]]:
    """Of each layer's weights, how many are left at each of its costs' shares of zeros."""
    return {name: [(1 - cost.zeros) * weights[name] for cost in costs[name]] for name in costs}


def shares_of(
    costs: Mapping[str, Sequence[SparsityCost]],
    sizes: Mapping[str, Sequence[float]],
    budget: float,
    divergence: Callable[[dict[str, float]], float] | None = None,
    tries: int = 0,
) -> dict[str, float]:
    """The share of zeros of each layer, at the least divergence within a budget.

    Args:
      costs: of each layer at several shares.
      sizes: of each layer at these shares, such as its bytes, or the weights that are left.
      budget: of all sizes.
      divergence: of a whole network with such shares; what layers cost one by one does not quite
        add up.
      tries: how many of these are measured, at most.
    """

    def shares(choice: Sequence[int]) -> dict[str, float]:
        picked = zip(sizes, choice, strict=True)
        return {name: costs[name][option].zeros for name, option in picked}

    tables = list(sizes.values()), [[cost.divergence for cost in costs[name]] for name in sizes]
    choice = allocate(*tables, budget).choice
    if divergence is None or not tries:
        return shares(choice)
    best = reallocate(*tables, budget, choice, lambda new: divergence(shares(new)), tries=tries)
    return shares(best)


def masks_of(network: QuantizedNetwork) -> dict[str, np.ndarray]:
    """Which weights are not zero, by layer."""
    return {name: np.asarray(kernel) != 0 for name, kernel in network.weights.items()}
