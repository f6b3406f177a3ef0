"""Which option each layer takes under one budget for all: exact, or with a proved bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from qevo.errors import QevoError

MAX_STATES = 1 << 17  # partial choices kept for a layer


class Allocation(NamedTuple):
    """A choice for every layer.

    Attributes:
      choice: the option of each layer.
      cost: their sum, within the budget.
      loss: their sum.
      bound: no choice within the budget loses less; equal to ``loss`` where it is proved optimal.
    """

    choice: tuple[int, ...]
    cost: float
    loss: float
    bound: float


def allocate(
    costs: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    budget: float,
    *,
    max_states: int = MAX_STATES,
) -> Allocation:
    """The least total loss with a total cost within ``budget``: one option for each layer.

    For the fewest bytes within a loss, pass the losses as costs and the bytes as losses.

    Partial choices are extended layer by layer; one that costs and loses no less than another is
    dropped (Nemhauser and Ullmann 1969), and so is one that cannot beat the best known choice. What
    the layers to come must lose is bounded by Lagrange's relaxation: for any price p >= 0,

        min { loss : cost <= B }  >=  sum over layers of min(loss + p cost)  -  p B,

    and the price that makes the right side largest also gives the first known choice (Everett 1963;
    Shoham and Gersho 1988). The result is optimal unless more than ``max_states`` partial choices
    are left at some layer; then the most promising go on, and ``bound`` is the relaxation's.

    Args:
      costs, losses: for each layer, of its options: coded bytes and divergence, say.
      budget: of the sum of costs.
      max_states: bounds memory and time.

    Raises:
      QevoError: tables of different shapes or with numbers that are not finite, or a budget below
        the cheapest choice.
    """
    cost = [np.asarray(row, np.float64) for row in costs]
    loss = [np.asarray(row, np.float64) for row in losses]
    if [len(row) for row in cost] != [len(row) for row in loss] or not all(map(len, cost)):
        raise QevoError("costs and losses need the same options, at least one for each layer")
    if not all(np.isfinite(row).all() for row in (*cost, *loss)):
        raise QevoError("costs and losses must be finite")
    least = sum(float(row.min()) for row in cost)
    if least > budget:
        raise QevoError(f"the cheapest choice costs {least:.6g}, above the budget of {budget:.6g}")
    price, known = _relax(cost, loss, budget)
    rest = [float((b + price * a).min()) for a, b in zip(cost, loss, strict=True)]
    relaxed = sum(rest) - price * budget
    cheapest = [float(row.min()) for row in cost]

    states = np.zeros((1, 2))  # cost and loss of the partial choices
    origins: list[tuple[np.ndarray, np.ndarray]] = []
    complete = True
    limit = _total(loss, known)
    slack = 1e-9 * max(abs(limit), abs(relaxed), 1e-300)
    for layer, (a, b) in enumerate(zip(cost, loss, strict=True)):
        total = (states[:, None, :] + np.stack([a, b], -1)).reshape(-1, 2)
        room = budget - total[:, 0]
        later = sum(rest[layer + 1 :]) - price * room
        keep = (room >= sum(cheapest[layer + 1 :]) - 1e-9 * abs(budget)) & (
            total[:, 1] + later <= limit + slack
        )
        (places,) = keep.nonzero()
        total, promise = total[keep], (total[:, 1] + later)[keep]
        order = np.lexsort((total[:, 1], total[:, 0]))
        before = np.minimum.accumulate(np.append(np.inf, total[order, 1]))[:-1]
        order = order[total[order, 1] < before]  # cheaper ones lose more
        if len(order) > max_states:
            complete = False
            order = order[np.sort(np.argpartition(promise[order], max_states)[:max_states])]
        states, places = total[order], places[order]
        origins.append((places // len(a), places % len(a)))
    found = known
    within = states[:, 0] <= budget
    if within.any() and states[within, 1].min() <= limit:
        place = int(np.where(within, states[:, 1], np.inf).argmin())
        found = []
        for before, option in reversed(origins):
            found.append(int(option[place]))
            place = int(before[place])
        found.reverse()
    value = _total(loss, found)
    bound = value if complete else min(relaxed, value)
    return Allocation(tuple(found), _total(cost, found), value, bound)


def reallocate(
    costs: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    budget: float,
    choice: tuple[int, ...],
    measure: Callable[[tuple[int, ...]], float],
    *,
    tries: int,
) -> tuple[int, ...]:
    """A choice of `allocate`, improved by local search where losses of layers do not add up.

    One layer takes its next costlier option, and where the budget asks for it another the first
    cheaper one that keeps to it. Of these changes the one of the least sum of losses is measured
    first, and kept if it helps; the search ends where none does.

    Args:
      costs, losses, budget: as in `allocate`.
      choice: where to start, within the budget.
      measure: the loss of a whole choice.
      tries: choices that are measured, at most; the first is the start.
    """
    cost, loss = ([np.asarray(row, np.float64) for row in table] for table in (costs, losses))
    ranked = [np.lexsort((b, a)).tolist() for a, b in zip(cost, loss, strict=True)]

    def changed(choice: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        ranks = [order.index(option) for order, option in zip(ranked, choice, strict=True)]
        for more, order in enumerate(ranked):
            if ranks[more] + 1 == len(order):
                continue
            raised = list(choice)
            raised[more] = order[ranks[more] + 1]
            if _total(cost, raised) <= budget:
                yield tuple(raised)
                continue
            for less in {*range(len(choice))} - {more}:
                new = list(raised)
                for rank in range(ranks[less] - 1, -1, -1):
                    new[less] = ranked[less][rank]
                    if _total(cost, new) <= budget:
                        yield tuple(new)
                        break

    best = choice
    found = {best: measure(best)} if tries else {}
    while len(found) < tries:
        untried = [new for new in changed(best) if new not in found]
        if not untried:
            break
        new = min(untried, key=lambda options: _total(loss, list(options)))
        found[new] = measure(new)
        best = min(best, new, key=found.__getitem__)
    return best


def _relax(
    cost: list[np.ndarray], loss: list[np.ndarray], budget: float
) -> tuple[float, list[int]]:
    """The price that bounds best, and the best choice within the budget that a price gives."""

    def choose(price: float) -> list[int]:
        return [int(np.lexsort((a, b + price * a))[0]) for a, b in zip(cost, loss, strict=True)]

    free = choose(0.0)
    if _total(cost, free) <= budget:
        return 0.0, free
    # The line through two choices' totals crosses each breakpoint of the dual once.
    over, under = free, [int(np.lexsort((b, a))[0]) for a, b in zip(cost, loss, strict=True)]
    while True:
        saved = _total(cost, over) - _total(cost, under)
        price = (_total(loss, under) - _total(loss, over)) / saved
        middle = choose(price)
        value = _total(loss, middle) + price * _total(cost, middle)
        chord = _total(loss, over) + price * _total(cost, over)
        if value >= chord - 1e-12 * max(abs(chord), abs(value)):
            return price, under
        if _total(cost, middle) > budget:
            over = middle
        else:
            under = middle


def _total(table: list[np.ndarray], choice: list[int]) -> float:
    return float(sum(row[option] for row, option in zip(table, choice, strict=True)))
