"""The integer image rule, against real arithmetic."""

from __future__ import annotations

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.nets.images import RAW_PIXELS, UNIT_RANGE, PixelScaling, image_rule, prepare

NORMALIZED = PixelScaling.normalized((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CENTRED = PixelScaling((1.0,), (-123.7, -116.8, -103.9))  # one scale for all channels
PIXELS = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None, None], 3, axis=-1)


def prepared(scaling: PixelScaling) -> np.ndarray:
    rule = image_rule(scaling)
    constants = {k: jnp.asarray(v) for k, v in rule.constants.items()}
    return np.asarray(prepare(jnp.asarray(PIXELS), constants, low=rule.low, high=rule.high))


@pytest.mark.parametrize("scaling", [UNIT_RANGE, RAW_PIXELS, NORMALIZED, CENTRED])
def test_one_unit_is_the_stated_scale(scaling: PixelScaling) -> None:
    rule = image_rule(scaling)
    real = np.asarray(scaling(jnp.asarray(PIXELS)))
    error = prepared(scaling) * rule.scale - real
    assert np.abs(error).max() <= 0.51 * rule.scale


@pytest.mark.parametrize("scaling", [UNIT_RANGE, NORMALIZED])
def test_rounds_half_to_even(scaling: PixelScaling) -> None:
    c = image_rule(scaling).constants
    multiplier, bias = (np.broadcast_to(c[k], 3).tolist() for k in ("multiplier", "bias"))
    expected = [
        [
            round(Fraction(p * m + b, 2 ** int(c["shift"])))
            for m, b in zip(multiplier, bias, strict=True)
        ]
        for p in range(256)
    ]
    np.testing.assert_array_equal(prepared(scaling)[:, 0, 0], expected)


def test_range_follows_the_sign() -> None:
    assert (image_rule(UNIT_RANGE).low, image_rule(NORMALIZED).low) == (0, -127)
    assert prepared(UNIT_RANGE).min() == 0
    assert prepared(UNIT_RANGE).max() == 127
    assert np.abs(prepared(NORMALIZED).astype(int)).max() == 127


def test_refuses_what_is_no_scaling() -> None:
    with pytest.raises(QevoError, match="positive"):
        image_rule(PixelScaling((0.0,)))
    with pytest.raises(QevoError, match="3 scales but 2 offsets"):
        image_rule(PixelScaling((1.0, 1.0, 1.0), (0.0, 0.0)))
