"""Directed evolution: zero the sets of weights that a network misses least.

After Franca-Neto, *Directed-Evolution method for sparsification and compression of neural
networks*, arXiv 2206.05859: candidates tentatively zero sets of surviving weights, those whose
student stays nearest to the teacher are committed, in cycles to a target for each layer. The
teacher is in the fitness: soft labels of the float network, say. How sets are drawn, how many are
committed at once, what is given back and repaired, and all constants are ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.algorithms.zero_patterns import Pattern, zeroed_together
from qevo.core.algorithm import Algorithm
from qevo.core.mutation import level_shifts
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.core.random import bits16, weighted_positions
from qevo.core.settings import Settings
from qevo.core.space import Space
from qevo.errors import QevoError

IMPORTANCE_LIMIT = 1 << 16  # so that times a squared gene, at most 2**14, it fits int32
_SHARE = 1 << 12  # shares of the settings in fixed point
_HARM = 1 << 22  # a rise of the fitness beyond this is as bad as this
_EACH = 1 << 8  # units of a weight's part in it
_NONE = 2**31 - 1  # harm of a set without a weight
_PARTS = 64  # of the way to a target; layers take turns as these are reached
_FEW = 1 << 20  # times that, an int32 still holds
_ZERO, _RESTORE, _REPAIR = range(3)


@dataclasses.dataclass(frozen=True)
class DirectedConfig(Settings):
    """Settings of directed evolution; the defaults are ours, and not tuned."""

    zeros: tuple[tuple[str, float], ...] = ()
    """Leaves of the space and the share of their genes that is to be zero, such as
    ``(("weights/dense_0", 0.95), ("weights/dense_1", 0.9))``, in the order of search."""
    pattern: Pattern = "free"
    """What is zeroed together: any weights; ``(n, m)``, all but at most n in each run of m rows of
    a column, whatever the shares of ``zeros`` say; or "filters", whole output channels, of which
    ``zeros`` are the shares, and one stays in each leaf. The metric *missing* counts weights or
    filters."""
    population: int = 32
    """Candidates per generation (P): the network as it is, and P - 1 disjoint sets."""
    slots: int = 512
    """The most weights of a set (G). Of filters as many as would fit if all were as large as the
    largest, and one at least."""
    step: float = 0.05
    """Share of a layer's surviving weights that a generation zeroes, as far as the slots go."""
    committed: int = 8
    """Sets that are committed together, at most: as many as keep to the step."""
    narrow: float = 1.0
    """Share of the committed sets' weights that is zeroed: those of least importance times square,
    or the filters of the best sets. The nesting of one measure in another; 1 zeroes all."""
    focus: int = 2
    """How sets are drawn: for each octave of importance times square above the least a weight is
    2**-focus times as likely; 0 draws all alike."""
    lockstep: bool = True
    """Whether all layers approach their targets together; one after the other if not."""
    zeroing: int = 3
    """Generations of a cycle that zero sets."""
    restoring: int = 1
    """Generations that, once all targets are reached, tentatively give sets of zeroed weights their
    first values back and commit what helps; others are zeroed for them in the next cycle."""
    repairing: int = 2
    """Generations that shift the survivors, and all other genes, by a level, and commit what helps;
    the zeroing ones too, once all targets are reached."""
    shifted: int = 8
    """Genes that a candidate shifts in those."""


@struct.dataclass
class DirectedState:
    """Integer state."""

    genes: jax.Array  # int8 [N]
    start: jax.Array  # int8 [N]
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    importance: jax.Array  # int32 [N]
    generation: jax.Array  # int32 []


class Directed(Algorithm):
    """Tentative zeroing of disjoint sets, with steps that give weights back and repair the rest.

    Every zeroing generation works within one leaf. The fitness that a set costs, divided by its
    weights, decides; several of the best sets are committed at once, which is the size of the step.
    Gene 0 must mean the number 0 in the leaves with a target, as in the weights of a network.

    The answer always has its zeros: `solution` is the context with what is missing to the targets
    zeroed by importance times square. So the first solution that a run accepts on validation data
    is the plain pruning by that measure, and later ones are better. Without validation data a run
    accepts by fitness alone, which favours the dense start: take ``solution(result.carry.state)``.

    Args:
      space: the genes of a network.
      config: settings, the targets among them.
      importance: int32 ``[N]``, 1 to `IMPORTANCE_LIMIT`: what the square of a gene's level costs,
        up to a factor for each leaf (`integer_importance`). All alike by default, so that magnitude
        in levels counts.

    Raises:
      QevoError: targets without a leaf, settings out of range, or other importances.
    """

    def __init__(
        self,
        space: Space,
        config: DirectedConfig,
        importance: np.ndarray | jax.Array | None = None,
    ):
        super().__init__(space, config.population)
        self.config = config
        self.leaves = self._check()
        self.pattern = zeroed_together(config.pattern, space, self.leaves)
        # A set has so many units of the pattern at most, and so many genes.
        self.units = max(min(config.slots, space.size) // self.pattern.per_unit, 1)
        self.slots = max(self.units * self.pattern.per_unit, config.shifted)
        # No sum of all draw weights passes 2**31.
        self.top_bits = max(min(12, 30 - space.size.bit_length()), 0)
        self.goals = np.array(
            [
                self.pattern.goal(self.space.layout[leaf], share)
                for leaf, (_, share) in zip(self.leaves, config.zeros, strict=True)
            ],
            np.int32,
        )
        if importance is None:
            importance = np.ones(space.size, np.int32)
        found = np.asarray(importance)
        if (
            found.dtype.kind not in "iu"
            or found.shape != (space.size,)
            or found.min() < 1
            or found.max() > IMPORTANCE_LIMIT
        ):
            raise QevoError(
                f"importance must be integers [{space.size}] of 1 to {IMPORTANCE_LIMIT}, not "
                f"{found.dtype} {list(found.shape)}"
            )
        self.importance = jnp.asarray(found, jnp.int32)

    def _check(self) -> list[int]:
        c = self.config
        names = [leaf.name for leaf in self.space.layout]
        odd = [name for name, _ in c.zeros if name not in names]
        if odd or not c.zeros or len({name for name, _ in c.zeros}) < len(c.zeros):
            raise QevoError(
                f"zeros must name leaves of the space once each, got {[n for n, _ in c.zeros]}; "
                f"there are {', '.join(names)}"
            )
        for name, share in c.zeros:
            index = names.index(name)
            if not 0 <= share < 1 or self.space.bases[index] is not None:
                raise QevoError(
                    f"{name}: a share of zeros of 0 to 1, below 1, of genes that decode as "
                    f"themselves, got {share}"
                )
            leaf = self.space.layout[index]
            part = slice(leaf.offset, leaf.offset + leaf.size)
            if jnp.any((self.space.low[part] > 0) | (self.space.high[part] < 0)):
                raise QevoError(f"{name}: the bounds of every gene must hold 0")
        if c.population < 3 or not 1 <= c.committed <= c.population - 1:
            raise QevoError(
                "population must be at least 3 and commit 1 to population - 1 sets, got "
                f"{c.population} and {c.committed}"
            )
        if (
            not 1 <= c.shifted <= min(c.slots, self.space.size)
            or not 0 < c.step <= 1
            or not 0 < c.narrow <= 1
        ):
            raise QevoError(
                "shifted must be 1 to slots and at most all genes, step and narrow above 0 and at "
                f"most 1, got {c.shifted} of {c.slots}, {c.step} and {c.narrow}"
            )
        if c.zeroing < 1 or min(c.restoring, c.repairing, c.focus) < 0 or c.focus > 4:
            raise QevoError(
                "zeroing must be at least 1, restoring and repairing at least 0 and focus 0 to 4, "
                f"got {c.zeroing}, {c.restoring}, {c.repairing} and {c.focus}"
            )
        return [names.index(name) for name, _ in c.zeros]

    def describe(self) -> dict[str, Any]:
        """All settings, and a digest of the importances."""
        digest = hashlib.sha256(np.asarray(self.importance).tobytes()).hexdigest()
        return super().describe() | {"importance_sha256": digest}

    def start(self, key: jax.Array) -> DirectedState:
        """The space's start, of which nothing is zeroed yet."""
        space = self.space
        return DirectedState(
            genes=space.start,
            start=space.start,
            low=space.low,
            high=space.high,
            importance=jnp.asarray(self.importance),
            generation=jnp.int32(0),
        )

    def context(self, state: DirectedState) -> jax.Array:
        """The genes so far, int8 ``[N]``."""
        return state.genes

    def solution(self, state: DirectedState) -> jax.Array:
        """The genes with all targets reached: what is missing goes by importance times square."""
        missing, genes = self._missing(state.genes), state.genes
        saliency = _saliency(state, genes)
        for place, index in enumerate(self.leaves):
            leaf = self.space.layout[index]
            part = slice(leaf.offset, leaf.offset + leaf.size)
            short = jnp.maximum(missing[place], 0)
            gone = self.pattern.least(leaf, genes[part] != 0, saliency[part], short)
            genes = genes.at[part].set(jnp.where(gone, jnp.int8(0), genes[part]))
        return genes

    def propose(self, key: jax.Array, state: DirectedState) -> tuple[Proposal, DirectedState]:
        """The network as it is, and sets to zero, to give back or to shift."""
        draws = [self._zeroing, self._restoring, self._shifting]
        positions, values = jax.lax.switch(self._phase(state), draws, key, state)
        unchanged = jnp.full((1, self.slots), self.space.size, jnp.int32)
        positions = jnp.concatenate([unchanged, positions])
        values = jnp.concatenate([jnp.zeros((1, self.slots), jnp.int8), values])
        return Proposal(positions, values), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: DirectedState
    ) -> tuple[DirectedState, Metrics]:
        """Commit the sets that cost least for each weight, or those that help."""
        size, phase = self.space.size, self._phase(state)
        counts = jnp.sum(proposal.positions < size, axis=1, dtype=jnp.int32)
        half = fitness // 2 - fitness[0] // 2  # within int32, which the difference may leave
        rise = jnp.where(jnp.abs(half) < _HARM, fitness - fitness[0], half)
        rise = jnp.clip(rise, -_HARM, _HARM) * _EACH
        harm = jnp.where(counts > 0, rise // jnp.maximum(counts, 1), _NONE)[1:]
        best = jnp.argsort(harm, stable=True)[: self.config.committed] + 1
        taken = (phase == _ZERO) | (harm[best - 1] < 0)
        # Where a set is more than the step's share already, fewer are committed.
        most = jnp.where(phase == _ZERO, self._share(self._open(state)), self._returning(state))
        taken &= (phase == _REPAIR) | (jnp.arange(best.shape[0]) < most)
        positions = jnp.where(taken[:, None], proposal.positions[best], size)
        # Zeros of the least importance, and no more than are missing.
        kept = _part(self.pattern.count(positions), self.config.narrow)
        kept = jnp.minimum(jnp.maximum(kept, 1), self._missing(state.genes)[self._turn(state)])
        saliency = _saliency(state, state.genes)
        zeroed = self.pattern.committed(positions, state.genes != 0, saliency, kept)
        positions = jnp.where(phase == _ZERO, zeroed, positions).reshape(-1)
        values = proposal.values[best].reshape(-1)
        genes = state.genes.at[positions].set(values, mode="drop")
        moved = jnp.sum(genes != state.genes, dtype=jnp.int32)
        state = dataclasses.replace(state, genes=genes, generation=state.generation + 1)
        return state, {
            "zeros": self._zeros(genes),
            "missing": jnp.sum(jnp.maximum(self._missing(state.genes), 0), dtype=jnp.int32),
            "phase": phase,
            "moved": moved,
        }

    def _parts(self, genes: jax.Array) -> list[jax.Array]:
        layout = [self.space.layout[index] for index in self.leaves]
        return [genes[leaf.offset : leaf.offset + leaf.size] for leaf in layout]

    def _zeros(self, genes: jax.Array) -> jax.Array:
        """In the leaves with a target, int32 ``[]``."""
        counts = [jnp.sum(part == 0, dtype=jnp.int32) for part in self._parts(genes)]
        return jnp.sum(jnp.stack(counts), dtype=jnp.int32)

    def _missing(self, genes: jax.Array) -> jax.Array:
        """Units that each leaf must lose yet, int32 ``[leaves]``; negative where there are more."""
        layout = [self.space.layout[index] for index in self.leaves]
        parts = zip(layout, self._parts(genes), self.goals.tolist(), strict=True)
        return jnp.stack(
            [self.pattern.missing(leaf, part != 0, goal) for leaf, part, goal in parts]
        )

    def _turn(self, state: DirectedState) -> jax.Array:
        """Whose turn it is, int32 ``[]`` in the order of the targets."""
        missing = self._missing(state.genes)
        if not self.config.lockstep:
            return jnp.argmax(missing > 0).astype(jnp.int32)
        way = jnp.maximum(self._missing(state.start), 1)
        few = jnp.minimum(missing, _FEW) * _PARTS // way  # where a product fits
        left = jnp.where(way < _FEW, few, missing // jnp.maximum(way // _PARTS, 1))
        left = jnp.where(missing > 0, left + 1, 0)
        return jnp.argmax(left).astype(jnp.int32)

    def _phase(self, state: DirectedState) -> jax.Array:
        c = self.config
        place = state.generation % (c.zeroing + c.restoring + c.repairing)
        later = jnp.where(place < c.zeroing + c.restoring, _RESTORE, _REPAIR)
        phase = jnp.where(place < c.zeroing, _ZERO, later)
        short = jnp.any(self._missing(state.genes) > 0)
        # Nothing is given back before the targets are reached, nor zeroed after that.
        phase = jnp.where(short & (phase == _RESTORE), _ZERO, phase)
        idle = (phase == _ZERO) & ~short
        if self.pattern.gives_back:
            idle |= (phase == _RESTORE) & (self._zeros(state.genes) <= self._zeros(state.start))
        else:
            idle |= phase == _RESTORE
        return jnp.where(idle, _REPAIR, phase).astype(jnp.int32)

    def _members(self, turn: jax.Array | None) -> jax.Array:
        """Genes of the leaf in turn, or of all leaves with targets, bool ``[N]``."""
        found = jnp.zeros(self.space.size, bool)
        for place, index in enumerate(self.leaves):
            leaf = self.space.layout[index]
            here = True if turn is None else turn == place
            found = found.at[leaf.offset : leaf.offset + leaf.size].set(here)
        return found

    def _zeroing(self, key: jax.Array, state: DirectedState) -> tuple[jax.Array, jax.Array]:
        there = self._open(state)
        saliency = _saliency(state, state.genes)
        step = jnp.clip(self._share(there) // self.config.committed, 1, self.units)
        positions = self._sets(key, there, saliency, step)
        return positions, jnp.zeros(positions.shape, jnp.int8)

    def _restoring(self, key: jax.Array, state: DirectedState) -> tuple[jax.Array, jax.Array]:
        weights = self._members(None)
        step = jnp.clip(self._returning(state) // self.config.committed, 1, self.units)
        gone = weights & (state.genes == 0) & (state.start != 0)
        # The most important ones first.
        saliency = _saliency(state, state.start)
        positions = self._sets(key, gone, saliency, step, most=True)
        return positions, state.start.at[positions].get(mode="clip")

    def _open(self, state: DirectedState) -> jax.Array:
        """Survivors of the leaf in turn that may go, bool ``[N]``."""
        return self._members(self._turn(state)) & self.pattern.open(state.genes != 0)

    def _share(self, there: jax.Array) -> jax.Array:
        """The step's share of the units of these survivors, at least one."""
        units = self.pattern.units(there, jnp.zeros(there.shape, jnp.int32))[0]
        return jnp.maximum(_part(jnp.sum(units, dtype=jnp.int32), self.config.step), 1)

    def _returning(self, state: DirectedState) -> jax.Array:
        """Half the step's share of all survivors, at least one."""
        return jnp.maximum(self._share(self._members(None) & (state.genes != 0)) // 2, 1)

    def _sets(
        self,
        key: jax.Array,
        genes: jax.Array,
        saliency: jax.Array,
        used: jax.Array,
        *,
        most: bool = False,
    ) -> jax.Array:
        """Disjoint sets of such genes, int32 ``[P - 1, G]``, the least salient units likelier.

        Or the ``most`` salient ones.
        """
        there, saliency = self.pattern.units(genes, saliency)
        if most:
            saliency = (1 << 30) // (1 + saliency)
        sets, count = self.population_size - 1, jnp.sum(there, dtype=jnp.int32)
        octave = 32 - jax.lax.clz(saliency)
        octaves = jnp.arange(32)[:, None]
        within = jnp.sum(there & (octave <= octaves), axis=1, dtype=jnp.int32)  # [32]
        # Twice as many as all sets take, or most would be drawn more than once.
        first = jnp.argmax(within >= jnp.minimum(2 * used * sets, count))
        fall = jnp.minimum(self.config.focus * jnp.maximum(octave - first, 0), self.top_bits)
        weights = jnp.where(there, (1 << self.top_bits) >> fall, 0)
        units = weighted_positions(key, weights, sets, self.units, used=used)
        positions = self.pattern.genes(units, genes)
        rest = self.slots - positions.shape[1]
        return jnp.pad(positions, ((0, 0), (0, rest)), constant_values=self.space.size)

    def _shifting(self, key: jax.Array, state: DirectedState) -> tuple[jax.Array, jax.Array]:
        key_positions, key_shift = jax.random.split(key)
        weights = self._members(None)
        movable = (state.low < state.high) & ~(weights & (state.genes == 0))
        sets = self.population_size - 1
        positions = weighted_positions(
            key_positions, movable.astype(jnp.int32), sets, self.config.shifted
        )
        parts = (state.genes, state.low, state.high, weights)
        old, low, high, weight = (part.at[positions].get(mode="clip") for part in parts)
        new = level_shifts(bits16(key_shift, old.shape), old, low, high, 1)
        # A survivor stays one: it moves away from zero, or not at all.
        outward = jnp.clip(2 * old.astype(jnp.int32), low, high).astype(jnp.int8)
        new = jnp.where(weight & (new == 0), outward, new)
        rest = self.slots - self.config.shifted
        positions = jnp.pad(positions, ((0, 0), (0, rest)), constant_values=self.space.size)
        return positions, jnp.pad(new, ((0, 0), (0, rest)))


def integer_importance(space: Space, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Importances for `Directed`, int32 ``[N]``, from real ones.

    Args:
      space: the genes.
      values: non-negative, for leaves by name, broadcast to their shape, such as
        `qevo.quantize.removal_costs` of a layer's weights. The largest
        of a leaf becomes `IMPORTANCE_LIMIT`; leaves that are not named have 1.
    """
    found = np.ones(space.size, np.int32)
    for leaf in space.layout:
        if leaf.name in values:
            real = np.broadcast_to(np.asarray(values[leaf.name], np.float64), leaf.shape)
            if not (np.isfinite(real).all() and (real >= 0).all()):
                raise QevoError(f"{leaf.name}: importances must be finite and not negative")
            whole = np.rint(real * (IMPORTANCE_LIMIT / max(real.max(), 1e-300)))
            found[leaf.offset : leaf.offset + leaf.size] = np.maximum(whole, 1).reshape(-1)
    return found


def _saliency(state: DirectedState, genes: jax.Array) -> jax.Array:
    """Importance times square, int32 ``[N]``, at most 2**30."""
    wide = genes.astype(jnp.int32)
    return state.importance * wide * wide


def _part(count: jax.Array, share: float) -> jax.Array:
    """A share of a count below 2**31, in 1/4096, without overflow."""
    part = max(round(share * _SHARE), 1)
    return count // _SHARE * part + count % _SHARE * part // _SHARE
