"""Edits: what a proposal stands for, against numpy loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from qevo.core import Proposal
from qevo.core.proposal import edit


def test_positions_outside_the_genes_are_padding() -> None:
    context = jnp.arange(5, dtype=jnp.int8)
    positions = jnp.array([5, 1, 5, 4, -1, 99, -5], jnp.int32)
    values = jnp.array([70, 71, 72, 73, 74, 75, 76], jnp.int8)
    edited = edit(context, positions, values)
    assert edited.dtype == jnp.int8
    np.testing.assert_array_equal(edited, [0, 71, 2, 3, 73])


@pytest.mark.parametrize("subgroups", [1, 2, 3, 6])
def test_candidates_edit_the_row_of_their_subgroup(subgroups: int) -> None:
    population, size, genes = 6, 3, 8
    draw = np.random.RandomState(subgroups)
    context = draw.randint(-9, 9, genes).astype(np.int8)
    positions = np.stack([draw.permutation(genes + 1)[:size] for _ in range(subgroups)])
    values = draw.randint(-9, 9, (population, size)).astype(np.int8)
    proposal = Proposal(jnp.asarray(positions, jnp.int32), jnp.asarray(values))

    rows = np.repeat(np.arange(subgroups), population // subgroups)
    np.testing.assert_array_equal(proposal.rows, rows)
    expected = np.tile(np.append(context, 0), (population, 1))  # column N takes the padding
    for candidate, row in enumerate(rows):
        expected[candidate, positions[row]] = values[candidate]
    np.testing.assert_array_equal(proposal.apply(jnp.asarray(context)), expected[:, :genes])


def test_whole_candidates_keep_nothing_of_the_context() -> None:
    candidates = jnp.arange(12, dtype=jnp.int8).reshape(4, 3)
    proposal = Proposal.whole(candidates)
    np.testing.assert_array_equal(proposal.apply(jnp.full(3, 99, jnp.int8)), candidates)
    np.testing.assert_array_equal(proposal.rows, [0, 0, 0, 0])
