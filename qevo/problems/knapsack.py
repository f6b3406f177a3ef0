"""0/1 knapsack: items of the largest total value that weigh no more than the capacity."""

from __future__ import annotations

import pathlib
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import MoveProblem
from qevo.core.space import INT32, Leaf, Space
from qevo.errors import QevoError
from qevo.problems.integers import integer, integers
from qevo.problems.limits import check_bytes
from qevo.problems.text import Lines, naming

TABLE_STEPS = 1 << 33  # items times capacity that dynamic programming may take: some ten seconds
TABLE_CAPACITY = 1 << 25  # and the capacity: half a GiB

Kind = Literal["uncorrelated", "weakly", "strongly"]


class KnapsackMoves(NamedTuple):
    """The state of the knapsack's moves."""

    weight: jax.Array  # int32 [], of the packed items
    change: jax.Array  # int32 [N]


@struct.dataclass
class Knapsack(MoveProblem):
    """Fitness is the packed value, negated; overweight costs more than it can be worth.

    What weighs too much costs its weight at the value per weight of the break item (the first one
    that a packing by value per weight has no room for), and the gap between the bound of the linear
    relaxation (Dantzig 1957) and the greedy packing. Since the bound grows by that rate with the
    capacity, no solution that is too heavy is as good as the optimum; yet it is worse by little, so
    that a search can pass through. The search starts at the greedy packing.

    A solution is int8 ``[N]``, 1 for a packed item. Build one with `Knapsack.of`, `Knapsack.read`
    or `Knapsack.random`.
    """

    space: Space
    values: jax.Array  # int32 [N]
    weights: jax.Array  # int32 [N]
    capacity: jax.Array  # int32 []
    rate: jax.Array  # int32 [], value per weight of the break item, in 1 / 2**shift, rounded up
    gap: jax.Array  # int32 [], what being too heavy costs at all
    shift: int = struct.field(pytree_node=False)
    optimum: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, values: Any, weights: Any, capacity: int, *, solve: bool | None = None) -> Knapsack:
        """From the items' values and weights, integers of at least 0 (weights: 1).

        Args:
          values, weights: ``[N]``.
          capacity: what the packed items may weigh.
          solve: whether to find the optimum by dynamic programming; by default where it takes
            seconds and half a GiB at most.

        Raises:
          QevoError: a value or weight is no integer or out of range, or fitness may leave int32.
        """
        values = integers("values of items", values).reshape(-1)
        weights = integers("weights of items", weights).reshape(-1)
        capacity = integer("the capacity", capacity)
        if values.shape != weights.shape or not values.size:
            raise QevoError(
                f"every item has a value and a weight, got {values.size} and {weights.size}"
            )
        if values.min() < 0 or weights.min() < 1 or capacity < 0:
            raise QevoError(
                "values and the capacity must be at least 0 and weights at least 1, got "
                f"{values.min()}, {capacity} and {weights.min()}"
            )
        packed, (worth, unit), gap = _greedy(values, weights, capacity)
        over = max(int(weights.sum()) - capacity, 1)
        shift = 15
        while shift and over * -(-(worth << shift) // unit) > INT32.max:
            shift -= 1
        rate = -(-(worth << shift) // unit)
        largest = int(values.sum()) + gap + over * rate // (1 << shift) + 1
        if max(largest, int(weights.sum()), capacity, over * rate // 2) > INT32.max // 2:
            raise QevoError(
                f"fitness may reach {largest} and weight {weights.sum()}, they must stay below "
                f"{INT32.max // 2}: divide the values or the weights"
            )
        if solve is None:
            units = min(capacity, int(weights.sum()))
            solve = units <= min(TABLE_CAPACITY, TABLE_STEPS // values.size)
        optimum = -best_value(values, weights, capacity) if solve else None
        space = Space.of(Leaf((values.size,), 0, 1, packed.astype(np.int8)))
        return cls(
            space,
            jnp.asarray(values, jnp.int32),
            jnp.asarray(weights, jnp.int32),
            jnp.asarray(capacity, jnp.int32),
            jnp.asarray(rate, jnp.int32),
            jnp.asarray(gap, jnp.int32),
            shift,
            optimum,
        )

    @classmethod
    def read(cls, path: str | pathlib.Path, *, solve: bool | None = None) -> Knapsack:
        """From a text file: ``items capacity``, then ``value weight`` for each item.

        What follows the items (a solution, in some collections) is not read.

        Raises:
          QevoError: the file is malformed; names the line.
        """
        lines, header, items = Lines(path, ("#", "%")), None, []
        for words in lines:
            if header is None:
                header = lines.integers(words, 2, "the number of items and the capacity")
                if header[0] < 1 or header[1] < 0:
                    lines.fail(f"there is at least 1 item and capacity 0, got {header}")
                continue
            item = lines.integers(words, 2, "an item: its value and its weight")
            if item[0] < 0 or item[1] < 1:
                lines.fail(f"a value is at least 0 and a weight at least 1, got {item}")
            items.append(item)
            if len(items) == header[0]:
                break
        if header is None:
            raise QevoError(f"{path}: expected the number of items and the capacity, got no line")
        lines.ended(len(items), header[0], "items")
        with naming(path):
            table = integers("items", items)
            return cls.of(table[:, 0], table[:, 1], header[1], solve=solve)

    @classmethod
    def random(
        cls, key: jax.Array, items: int, *, kind: Kind = "uncorrelated", largest: int = 1000
    ) -> Knapsack:
        """A random instance that half of all weight fits into, with its optimum where it is
        found fast, see `of`.

        Weights are uniform in 1..largest. Values are too; or differ by at most ``largest // 10``
        from their weight; or exceed it by just that (Pisinger, *Where are the hard knapsack
        problems?*, Comput. Oper. Res. 2005).

        Raises:
          QevoError: there is no such kind, no item, or ``largest`` leaves no weight or int32.
        """
        if kind not in get_args(Kind):
            raise QevoError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        items, largest = integer("items", items), integer("largest", largest)
        if items < 1 or not 1 <= largest < INT32.max:
            raise QevoError(
                f"items must be at least 1 and largest 1 to {INT32.max - 1}, got {items}, {largest}"
            )
        check_bytes(f"{items:,} items", 16 * items)
        key_weights, key_values = jax.random.split(key)

        def draw(key: jax.Array, low: int, high: int) -> np.ndarray:
            return np.asarray(jax.random.randint(key, (items,), low, high + 1, jnp.int32), np.int64)

        weights, spread = draw(key_weights, 1, largest), largest // 10
        if kind == "uncorrelated":
            values = draw(key_values, 1, largest)
        elif kind == "weakly":
            values = np.maximum(weights + draw(key_values, -spread, spread), 1)
        else:
            values = weights + spread
        return cls.of(values, weights, int(weights.sum()) // 2)

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The value, negated, and what overweight costs."""
        packed = solution.astype(jnp.int32)
        value = jnp.sum(packed * self.values, dtype=jnp.int32)
        weight = jnp.sum(packed * self.weights, dtype=jnp.int32)
        return self.cost(weight) - value

    def cost(self, weight: jax.Array) -> jax.Array:
        """What a weight int32 costs: nothing up to the capacity."""
        over = weight - self.capacity
        return jnp.where(over > 0, (over * self.rate >> self.shift) + 1 + self.gap, 0)

    def moves(self, genes: jax.Array) -> KnapsackMoves:
        """An item's value, and what the weight costs with or without it."""
        packed = genes.astype(jnp.int32)
        return self._moves(genes, jnp.sum(packed * self.weights, dtype=jnp.int32))

    def move(
        self, genes: jax.Array, state: KnapsackMoves, position: jax.Array, value: jax.Array
    ) -> KnapsackMoves:
        """All changes anew: each depends on the weight."""
        added = value.astype(jnp.int32) - genes[position]
        here = jnp.arange(genes.shape[0]) == position
        weight = state.weight + added * self.weights[position]
        return self._moves(jnp.where(here, value, genes), weight)

    def _moves(self, genes: jax.Array, weight: jax.Array) -> KnapsackMoves:
        sign = 1 - 2 * genes.astype(jnp.int32)
        change = self.cost(weight + sign * self.weights) - self.cost(weight) - sign * self.values
        return KnapsackMoves(weight, change)


def best_value(values: np.ndarray, weights: np.ndarray, capacity: int) -> int:
    """The largest value that the capacity holds, by dynamic programming over capacities.

    Bellman 1957; time items times capacity, memory sixteen bytes for each unit of capacity.
    """
    capacity = min(capacity, int(weights.sum()))
    best = np.zeros(capacity + 1, np.int64)
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        if weight <= capacity:
            np.maximum(best[weight:], best[: capacity + 1 - weight] + value, out=best[weight:])
    return int(best[-1])


def _greedy(
    values: np.ndarray, weights: np.ndarray, capacity: int
) -> tuple[np.ndarray, tuple[int, int], int]:
    """The greedy packing, the break item's value and weight, and how far the bound lies above.

    The packing takes the items in the order of their value per weight, each that still fits.
    """
    order = np.argsort(-values / weights, kind="stable")
    packed = np.zeros(values.size, bool)
    left, broken = capacity, None
    bound = 0
    for item in order.tolist():
        if weights[item] <= left:
            packed[item] = True
            left -= int(weights[item])
        elif broken is None:
            broken = item
            bound = int(values[packed].sum()) + left * int(values[item]) // int(weights[item])
    if broken is None:
        return packed, (1, 1), 0
    gap = bound - int(values[packed].sum()) + 1  # the bound is rounded down
    return packed, (int(values[broken]), int(weights[broken])), gap
