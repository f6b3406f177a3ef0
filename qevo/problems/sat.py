"""Satisfiability and MaxSAT: bits that leave the least weight of clauses unsatisfied."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import FocusedProblem, MoveProblem, any_place, weighted_choice
from qevo.core.space import INT32, Space
from qevo.errors import QevoError
from qevo.problems.clauses import Formula, occurrences, read_formula
from qevo.problems.integers import integer, integers
from qevo.problems.limits import check_bytes
from qevo.problems.text import naming

# Clauses with t true literals come with weight q**t, of which t = 1 is always taken (1/65536).
_HIDDEN = tuple(round(((math.sqrt(5) - 1) / 2) ** t * 65536) for t in range(3))


class SATMoves(NamedTuple):
    """The state of moves that know every change."""

    change: jax.Array  # int32 [N]
    true: jax.Array  # int32 [M], true literals in each clause
    sums: jax.Array  # int32 [M], sums of their variables


class SATFocus(NamedTuple):
    """The state of moves in violated clauses."""

    fitness: jax.Array  # int32 []
    true: jax.Array  # int8 [blocks * size], true literals in each clause; 1 for padding; int32
    # where clauses are long
    violated: jax.Array  # int32 [blocks], violated clauses in each block


@struct.dataclass
class SAT(MoveProblem, FocusedProblem):
    """Fitness is the weight of the unsatisfied clauses; hard clauses weigh the most.

    A hard clause weighs one more than all soft ones together or, where sums of that would leave
    int32, as much as fits; it always outweighs any single soft clause. `violated_hard` says how
    many are violated. Without weights, fitness is the number of unsatisfied clauses.

    A solution is int8 ``[N]`` of bits. Build one with `SAT.of`, `SAT.read` or `SAT.planted`.
    """

    space: Space
    variables: jax.Array  # int32 [M, k], N for padding
    positive: jax.Array  # int8 [M, k], the bit that makes the literal true
    weight: jax.Array  # int32 [M]
    hard: jax.Array  # bool [M]
    occurs: jax.Array  # int32 [N, 2, D], clauses where the bit 0 or 1 makes a literal true; padded
    hard_weight: int | None = struct.field(pytree_node=False, default=None)
    optimum: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(
        cls,
        variables: int,
        clauses: Sequence[Sequence[int]],
        weights: Sequence[int] | None = None,
        hard: Sequence[bool] | None = None,
        *,
        optimum: int | None = None,
    ) -> SAT:
        """From clauses of literals ``v`` or ``-v`` of variables 1..N, as DIMACS has them.

        A literal counts once in a clause; clauses that are always true are left out.

        Args:
          variables: N.
          clauses: lists of literals; an empty one is always violated.
          weights: of the soft clauses, at least 1; 1 by default. Those of hard ones are not read.
          hard: which clauses are hard; none by default.
          optimum: the least possible weight, where it is known.

        Raises:
          QevoError: a literal is out of range, a number is no integer, weights are not as many as
            clauses, or they or lists of occurrences are too large.
        """
        given = [1] * len(clauses) if weights is None else list(weights)
        strict = [False] * len(clauses) if hard is None else [bool(one) for one in hard]
        try:
            lengths = [len(clause) for clause in clauses]
        except TypeError:
            raise QevoError("clauses must be lists of literals, one of them is no list") from None
        flat = iter(integers("literals", list(itertools.chain.from_iterable(clauses))).tolist())
        literals = [list(itertools.islice(flat, length)) for length in lengths]
        size = integer("the number of variables", variables)
        return cls.from_formula(Formula(size, literals, given, strict), optimum)

    @classmethod
    def read(cls, path: str | pathlib.Path) -> SAT:
        """From a DIMACS file: cnf, wcnf with or without a top weight, or wcnf as of 2022.

        Raises:
          QevoError: the file is malformed; names the line.
        """
        formula = read_formula(path)
        with naming(path):
            return cls.from_formula(formula, None)

    @classmethod
    def planted(cls, key: jax.Array, variables: int, clauses: int) -> SAT:
        """Random 3-SAT with a hidden solution that the clauses do not give away.

        Three different variables and their signs are uniform; a clause with t > 0 literals true in
        the hidden solution is taken with weight ``q**t``, q = (sqrt 5 - 1) / 2, so that literals of
        both signs are equally common (Jia, Moore and Strain, *Generating hard satisfiable formulas
        by hiding solutions deceptively*, AAAI 2005).

        Raises:
          QevoError: there are fewer than three variables, or no clauses.
        """
        variables = integer("the number of variables", variables)
        clauses = integer("the number of clauses", clauses)
        if variables < 3 or clauses < 1:
            raise QevoError(
                f"a planted formula has at least 3 variables, all different in a clause, and 1 "
                f"clause, got {variables} and {clauses}"
            )
        check_bytes(f"the occurrences of {variables:,} variables", 16 * variables)
        check_bytes(f"what {clauses:,} clauses are drawn from", 48 * clauses)
        key_hidden, key = jax.random.split(key)
        hidden = np.asarray(jax.random.bits(key_hidden, (variables,), jnp.uint8) & 1)
        taken: list[np.ndarray] = []
        while sum(map(len, taken)) < clauses:
            key, *keys = jax.random.split(key, 4)
            count = 4 * clauses
            drawn = np.asarray(jax.random.randint(keys[0], (count, 3), 0, variables, jnp.int32))
            bits = np.asarray(jax.random.bits(keys[1], (count,), jnp.uint8))
            signs = bits[:, None] >> np.arange(3) & 1
            odds = np.asarray(jax.random.bits(keys[2], (count,), jnp.uint16))
            true = (signs == hidden[drawn]).sum(axis=1)
            accepted = (true > 0) & (odds < np.asarray(_HIDDEN)[np.maximum(true, 1) - 1])
            for one, other in ((0, 1), (0, 2), (1, 2)):
                accepted &= drawn[:, one] != drawn[:, other]
            taken.append(np.where(signs == 1, drawn + 1, -drawn - 1)[accepted])
        literals = np.concatenate(taken)[:clauses].tolist()
        return cls.of(variables, literals, optimum=0)

    @classmethod
    def from_formula(cls, formula: Formula, optimum: int | None) -> SAT:
        """From what `read_formula` gives."""
        size, clauses, weights, hard = formula
        check_bytes(f"the occurrences of {size:,} variables", 16 * size)
        if not len(clauses) == len(weights) == len(hard):
            raise QevoError(
                f"every clause has a weight and is hard or soft: {len(clauses)} clauses, "
                f"{len(weights)} weights and {len(hard)} marks of hard ones"
            )
        rows = []
        for at, clause in enumerate(clauses):
            literals = sorted(set(clause), key=abs)
            if any(not 1 <= abs(literal) <= size for literal in literals):
                raise QevoError(f"clause {at}: literals are 1 to {size} or negative, got {clause}")
            if len({abs(literal) for literal in literals}) == len(literals):
                rows.append((literals, weights[at], hard[at]))
        if size < 1 or not clauses:
            raise QevoError(f"a formula has variables and clauses, got {size} and {len(clauses)}")
        if not rows:
            raise QevoError("all clauses hold a literal and its opposite: any solution will do")
        width = max(1, *(len(literals) for literals, _, _ in rows))
        check_bytes(f"{len(rows):,} clauses of up to {width:,} literals", 24 * len(rows) * width)
        table = np.zeros((len(rows), width), np.int64)
        for row, (literals, _, _) in zip(table, rows, strict=True):
            row[: len(literals)] = literals
        strict = np.asarray([row[2] for row in rows])
        weight, hard_weight = _weights([row[1] for row in rows], strict)
        variables = np.where(table == 0, size, np.abs(table) - 1)
        positive = (table > 0).astype(np.int8)
        occurs = occurrences(size, variables, positive)
        return cls(
            Space.integers(size, 0, 1, dtype=np.int8),
            jnp.asarray(variables, jnp.int32),
            jnp.asarray(positive),
            jnp.asarray(weight, jnp.int32),
            jnp.asarray(strict),
            jnp.asarray(occurs, jnp.int32),
            hard_weight,
            optimum,
        )

    @property
    def block(self) -> int:
        """Clauses in a block: a block is found in the square of their number, a clause in this."""
        clauses = self.weight.shape[0]
        return -(-clauses // max(round(clauses ** (1 / 3)), 1))

    def true_literals(self, solution: jax.Array) -> jax.Array:
        """How many literals are true in each clause, int32 ``[M]``."""
        return jnp.sum(self._true(solution), axis=1, dtype=jnp.int32)

    def violated_hard(self, solution: jax.Array) -> jax.Array:
        """How many hard clauses are violated, int32 ``[]``."""
        return jnp.sum(self.hard & (self.true_literals(solution) == 0), dtype=jnp.int32)

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The weight of the unsatisfied clauses."""
        violated = self.true_literals(solution) == 0
        return jnp.sum(jnp.where(violated, self.weight, 0), dtype=jnp.int32)

    def moves(self, genes: jax.Array) -> SATMoves:
        """A flip makes the violated clauses with the bit, and breaks those that it alone holds."""
        literal = self._true(genes)
        true = jnp.sum(literal, axis=1, dtype=jnp.int32)
        sums = jnp.sum(jnp.where(literal, self.variables, 0), axis=1)
        made = jnp.where(true == 0, self.weight, 0)
        broken = jnp.where(true == 1, self.weight, 0)
        change = jnp.zeros(self.space.size, jnp.int32)
        change = change.at[self.variables].add(-made[:, None], mode="drop")
        return SATMoves(change.at[sums].add(broken, mode="drop"), true, sums)

    def move(
        self, genes: jax.Array, state: SATMoves, position: jax.Array, value: jax.Array
    ) -> SATMoves:
        """Clauses that gain their first or second true literal, or lose one of these."""
        change, true, sums = state
        clauses = self.weight.shape[0]
        level = value.astype(jnp.int32)  # XLA takes all indices of a slice for int8 if one is
        lost, gained = self.occurs[position, 1 - level], self.occurs[position, level]  # [D]
        near = jnp.where(genes[position] == value, clauses, jnp.concatenate([lost, gained]))
        sign = jnp.where(jnp.arange(near.shape[0]) < lost.shape[0], -1, 1)
        before = true.at[near].get(mode="fill", fill_value=9)
        weight = self.weight.at[near].get(mode="fill", fill_value=0) * sign
        # Between no true literal and one, all its bits stop or start to make the clause, and the
        # moved one alone holds it; between one and two, the other one stops or starts to hold it.
        edge = before + (sign < 0) * -1
        whole = jnp.where(edge == 0, weight, 0)
        other = sums.at[near].get(mode="fill", fill_value=0) - jnp.where(sign < 0, position, 0)
        holder = jnp.where(edge == 0, position, other)
        held = jnp.where(edge == 0, weight, jnp.where(edge == 1, -weight, 0))
        members = self.variables.at[near].get(mode="fill", fill_value=self.space.size)
        change = change.at[members].add(whole[:, None], mode="drop")
        change = change.at[holder].add(held, mode="drop")
        true = true.at[near].add(sign, mode="drop")
        return SATMoves(change, true, sums.at[near].add(sign * position, mode="drop"))

    def focused(self, genes: jax.Array) -> SATFocus:
        """True literals of all clauses, and violated clauses by blocks; empty ones, which no flip
        mends, pass for satisfied."""
        true = self.true_literals(genes).astype(self._count)
        fitness = jnp.sum(jnp.where(true == 0, self.weight, 0), dtype=jnp.int32)
        true = jnp.where(self.variables[:, 0] < self.space.size, true, 1)
        blocks = -(-true.shape[0] // self.block)
        true = jnp.pad(true, (0, blocks * self.block - true.shape[0]), constant_values=1)
        violated = jnp.sum((true == 0).reshape(blocks, -1), axis=1, dtype=jnp.int32)
        return SATFocus(fitness, true, violated)

    def focus(
        self, genes: jax.Array, state: SATFocus, draw: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """A violated clause of a block that is drawn by the number of them in it; without any, it
        may be an empty one."""
        block, _ = weighted_choice(state.violated, draw)
        inside = jax.lax.dynamic_slice(state.true, (block * self.block,), (self.block,)) == 0
        clause = block * self.block + any_place(inside, draw * np.uint32(2654435769))
        positions = self.variables[jnp.minimum(clause, self.weight.shape[0] - 1)]
        now = genes.at[positions].get(mode="clip").astype(jnp.int32)
        near = self.occurs.at[positions, now].get(mode="clip")  # [k, D], where they are true
        alone = state.true.at[near].get(mode="fill", fill_value=0) == 1
        alone &= near < self.weight.shape[0]
        return positions, jnp.sum(alone, axis=1, dtype=jnp.int32)

    def flip(self, genes: jax.Array, state: SATFocus, position: jax.Array) -> SATFocus:
        """Clauses with the bit lose or gain a true literal."""
        now = genes[position].astype(jnp.int32)
        near = jnp.stack([self.occurs[position, now], self.occurs[position, 1 - now]])  # [2, D]
        real = (near < self.weight.shape[0]) & (position < self.space.size)
        near = jnp.where(real, near, state.true.shape[0])
        sign = jnp.asarray([[-1], [1]], jnp.int32)
        before = state.true.at[near].get(mode="fill", fill_value=9)
        changed = jnp.where(before == (sign < 0), -sign, 0)  # 1 broken, -1 made
        weight = self.weight.at[near].get(mode="fill", fill_value=0)
        return SATFocus(
            state.fitness + jnp.sum(changed * weight, dtype=jnp.int32),
            state.true.at[near].add(sign.astype(self._count), mode="drop"),
            state.violated.at[near // self.block].add(changed, mode="drop"),
        )

    @property
    def _count(self) -> Any:
        """What counts literals of a clause: the less memory moves with each flip, the faster."""
        return jnp.int8 if self.variables.shape[1] < 127 else jnp.int32

    def _true(self, solution: jax.Array) -> jax.Array:
        """Which literals are true, bool ``[M, k]``."""
        bits = jnp.asarray(solution).at[self.variables].get(mode="fill", fill_value=2)
        return bits == self.positive


def _weights(weights: Sequence[int], hard: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Weights with those of hard clauses filled in, and what these are."""
    given = [0 if h else w for w, h in zip(weights, hard, strict=True)]
    weight = integers("weights of clauses", given)
    soft, limit = int(weight.sum()), INT32.max // 2
    if (weight[~hard] < 1).any() or soft > limit:
        raise QevoError(
            f"weights of soft clauses must be at least 1 and sum to at most {limit}, they sum to "
            f"{soft}: divide them"
        )
    if not hard.any():
        return weight, None
    most = int(weight.max())
    hard_weight = min(soft + 1, (limit - soft) // int(hard.sum()))
    if hard_weight <= most:
        raise QevoError(
            f"{int(hard.sum())} hard clauses have no room in int32 above soft weights of up to "
            f"{most}, {soft} in all: divide the weights"
        )
    weight[hard] = hard_weight
    return weight, hard_weight
