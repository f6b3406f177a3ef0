"""Shorter constants."""

from __future__ import annotations

import numpy as np
import pytest
from networks import random_images

from qevo.compress import coarsen, compress, open_compressed
from qevo.errors import QevoError
from qevo.nets import QuantizedNetwork


@pytest.mark.parametrize("digits", [1, 4, 7])
def test_how_far_constants_move(mlp: QuantizedNetwork, digits: int) -> None:
    found = coarsen(mlp, digits=digits, tolerance=0.25, last_tolerance=0.125)
    for name, facts in mlp.layers.items():
        old, new = mlp.constants[name], found.constants[name]
        before, after = np.asarray(old["multiplier"]), np.asarray(new["multiplier"])
        assert all(
            len(bin(value).removeprefix("0b").rstrip("0")) <= digits for value in after.tolist()
        )
        short = after < facts.multiplier_limit / 2  # above, there may be no room to round up
        assert (np.abs(after - before)[short] <= before[short] / 2.0**digits).all()
        moved = np.abs(np.asarray(new["bias"]) - np.asarray(old["bias"]))
        if name == "logits":
            assert moved.max() <= 0.125 * 2.0**mlp.fraction_bits
            assert moved.max() > 0.125 * 2.0**mlp.fraction_bits / 16
        else:
            unit = after / 2.0 ** np.asarray(old["shift"])
            assert (moved * unit).max() <= 0.25
            np.testing.assert_array_equal(new["shift"], old["shift"])
        np.testing.assert_array_equal(found.weights[name], mlp.weights[name])


def test_what_it_saves_and_costs(mlp: QuantizedNetwork) -> None:
    short = coarsen(mlp)
    before, after = (len(open_compressed(compress(n)).constants) for n in (mlp, short))
    assert after < 0.85 * before
    images = random_images((6, 7, 1), 50, seed=3)
    old, new = mlp(images) / 2.0**mlp.fraction_bits, short(images) / 2.0**mlp.fraction_bits
    assert np.abs(old - new).max() < 0.15 * np.abs(old).max()


def test_what_makes_no_sense(mlp: QuantizedNetwork) -> None:
    with pytest.raises(QevoError, match="at least one digit"):
        coarsen(mlp, digits=0)
    with pytest.raises(QevoError, match="tolerances above 0"):
        coarsen(mlp, tolerance=0.0)
