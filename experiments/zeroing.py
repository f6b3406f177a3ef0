"""Directed evolution of zeros, for the scripts beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qevo import NetworkProblem, QuantizedNetwork, evolve
from qevo.algorithms.directed import Directed, DirectedConfig, integer_importance
from qevo.compress import allocate
from qevo.quantize.pruning import SparseFit, SparsityCost, square_costs

SHARES = (0.0, 0.5, 0.7, 0.8, 0.87, 0.91, 0.935, 0.95, 0.963, 0.973, 0.981, 0.988)

Masks = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Zeroing:
    """A search over zeros and survivors, and how often it is refitted.

    Attributes:
      problem: the search around a network.
      rounded: a network of the float one, by a rounding.
      sample: images uint8 ``[n, H, W, C]`` that importance is measured on.
      more: survivors that directed evolution starts from, for each one that it leaves.
      cycles: of zeroing and refits.
      generations: of a cycle.
      population: candidates of a generation.
      seed: of everything.
    """

    problem: Callable[[QuantizedNetwork], NetworkProblem]
    rounded: Callable[[SparseFit], QuantizedNetwork]
    sample: np.ndarray
    more: float
    cycles: int
    generations: int
    population: int
    seed: int

    def masks(self, zeros: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Masks with these shares of zeros, by directed evolution from fewer."""
        left = {name: 1 - share for name, share in zeros.items()}
        begin = {name: max(1 - self.more * share, 0.0) for name, share in left.items()}
        network = self.rounded(SparseFit(zeros=begin, seed=self.seed))
        masks: dict[str, np.ndarray] = {}
        for cycle in range(1, self.cycles + 1):
            rest = self.more ** (1 - cycle / self.cycles)
            goals = {name: max(1 - rest * share, 0.0) for name, share in left.items()}
            network = self.search(network, masks_of(network), self.generations, goals)
            masks = masks_of(network)
            if cycle < self.cycles:
                network = self.rounded(SparseFit(masks=masks, seed=self.seed))
        return masks

    def search(
        self,
        network: QuantizedNetwork,
        masks: Masks,
        generations: int,
        goals: Mapping[str, float] | None = None,
    ) -> QuantizedNetwork:
        """Directed evolution to some shares of zeros, or its repair alone where there are none."""
        if not generations:
            return network
        problem = self.problem(network)
        now = {name: 1 - float(mask.mean()) for name, mask in masks.items()}
        goals = {name: max(share, now[name]) for name, share in (goals or now).items()}
        squares = square_costs(network, self.sample)
        importance = integer_importance(
            problem.space, {f"weights/{name}": square for name, square in squares.items()}
        )
        settings = DirectedConfig(
            zeros=tuple((f"weights/{name}", share) for name, share in goals.items()),
            population=self.population,
            committed=max(self.population // 4, 1),
        )
        result = evolve(
            Directed(problem.space, settings, importance),
            problem,
            self.seed,
            generations=generations,
            progress=False,
        )
        return problem.network(network, result.solution)


def shares_of(
    costs: Mapping[str, Sequence[SparsityCost]], sizes: Mapping[str, int], zeros: float
) -> dict[str, float]:
    """The share of zeros of each layer: the least sum of divergences with so many in all.

    Args:
      costs: of each layer at several shares.
      sizes: weights of each layer.
      zeros: share of them all, not to be passed by more than one step of a layer.
    """
    left = [[(1 - cost.zeros) * sizes[name] for cost in layer] for name, layer in costs.items()]
    divergences = [[cost.divergence for cost in layer] for layer in costs.values()]
    choice = allocate(left, divergences, (1 - zeros) * sum(sizes.values())).choice
    picked = zip(costs.items(), choice, strict=True)
    return {name: layer[option].zeros for (name, layer), option in picked}


def masks_of(network: QuantizedNetwork) -> dict[str, np.ndarray]:
    """Which weights are not zero, by layer."""
    return {name: np.asarray(kernel) != 0 for name, kernel in network.weights.items()}
