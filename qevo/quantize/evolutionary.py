"""Evolutionary rounding: the layer-wise fit, searched further in integers."""

from __future__ import annotations

import dataclasses
import zlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from qevo.algorithms.least_squares import Columns, ColumnSearch, evolve_columns, integer_columns
from qevo.core.devices import cores
from qevo.core.space import GENE_MAX
from qevo.errors import QevoError
from qevo.quantize.layerwise import LayerwiseFit, LeastSquares, best_scale, regression
from qevo.quantize.rounding import FloatLayer, Rounded, each_channel


@dataclasses.dataclass(frozen=True)
class EvolutionaryRounding:
    """Evolve the levels of each output channel under the quadratic form of its layer.

    Starts where `LayerwiseFit` ends, which few moves of a single level improve, and alternates
    between the search over levels (`evolve_columns`) and the best scale for them. A channel keeps
    what has the least error of all its rounds, the fit included.

    Attributes:
      fit: where to start.
      search: settings of the search.
      rounds: alternations of levels and scale.
      radius: levels that a weight may move in one round.
      work: the most weights of a layer times generations in one round; a larger layer has fewer
        generations than ``search`` says, so that it takes no more than its share of the time.
      seed: of the search; each layer draws from its own stream.
    """

    fit: LayerwiseFit = dataclasses.field(default_factory=LayerwiseFit)
    search: ColumnSearch = dataclasses.field(default_factory=ColumnSearch)
    rounds: int = 2
    radius: int = 2
    work: int = 250_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 0 or not 1 <= self.radius <= GENE_MAX or self.work < 1:
            raise QevoError(
                f"rounds must be 0 or more, radius 1 to {GENE_MAX} and work at least 1, got "
                f"{self.rounds}, {self.radius} and {self.work}"
            )

    def __call__(self, layer: FloatLayer) -> Rounded:
        if layer.depthwise:
            return each_channel(self, layer)
        problem = regression(layer, self.fit.ridge)
        best = self.fit.solve(layer, problem)
        error = problem.error(best.levels, best.scale)
        gram_target = problem.gram @ problem.target
        key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(layer.name.encode()))
        levels, scale = best
        for number in range(self.rounds):
            levels = self._evolve(jax.random.fold_in(key, number), layer, problem, levels, scale)
            tuned = layer.grid.nearest(best_scale(levels, problem.gram, gram_target, scale))
            for candidate in (scale, tuned):
                found = problem.error(levels, candidate)
                better = found < error
                best = Rounded(
                    *(np.where(better, *p) for p in zip((levels, candidate), best, strict=True))
                )
                error = np.minimum(found, error)
            scale = tuned
        return best

    def _evolve(
        self,
        key: jax.Array,
        layer: FloatLayer,
        problem: LeastSquares,
        levels: np.ndarray,
        scale: np.ndarray,
    ) -> np.ndarray:
        wide = levels.astype(np.int64)
        columns = integer_columns(
            wide,
            problem.target / scale,
            problem.gram,
            low=np.maximum(wide - self.radius, layer.low),
            high=np.minimum(wide + self.radius, layer.high),
        )
        generations = max(1, min(self.search.generations, self.work // wide.size))
        search = dataclasses.replace(self.search, generations=generations)
        return search_columns(key, columns, search)


def search_columns(key: jax.Array, columns: Columns, search: ColumnSearch) -> np.ndarray:
    """`evolve_columns`, on a CPU with a part of the columns for each core; int8 ``[K, C]``."""
    threads = cores() if jax.default_backend() == "cpu" else 1
    if threads == 1:  # in this thread, whose default device others do not inherit
        return np.asarray(evolve_columns(key, columns, search)).T
    keys = jax.random.split(key, len(columns.levels))
    size = -(-len(keys) // threads)

    def part(start: int) -> np.ndarray:
        own = slice(start, start + size)
        given = columns._replace(
            levels=columns.levels[own],
            low=columns.low[own],
            high=columns.high[own],
            product=columns.product[own],
        )
        return np.asarray(evolve_columns(keys[own], given, search))

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(part, range(0, len(keys), size)))).T
