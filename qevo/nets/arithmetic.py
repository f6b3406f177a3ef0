"""Ranges of weights and activations, and the bounds that make a layer's arithmetic exact."""

from __future__ import annotations

import dataclasses

from qevo.errors import QevoError

LEVELS: dict[str | int, tuple[int, int]] = {
    "ternary": (-1, 1),
    **{bits: (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in range(2, 8)},
    8: (-127, 127),
}
ACTIVATIONS: dict[int, int] = {8: 127, 4: 15}  # highest value after a ReLU
SIGNED_ACTIVATIONS: dict[int, int] = {8: 127, 4: 7}  # highest magnitude otherwise

MAX_SHIFT = 17  # up to here half-even rounding is onnxruntime's
WIDE_MAX_SHIFT = 16
WIDE_MULTIPLIER = (1 << 15) - 1
MIN_MULTIPLIER_LIMIT = 64  # 5 bits for the first multiplier and one for genes above it
OUTPUT_LIMIT = (1 << 30) - 1  # of the last layer; differences of two outputs fit int32
MAX_FRACTION_BITS = 20
BIAS_ROOM = 64  # nats, or levels of an image
_INT32 = (1 << 31) - 1


@dataclasses.dataclass(frozen=True)
class LayerArithmetic:
    """Static facts of one integer layer; hashable.

    For every weight, bias and multiplier within these limits, and every input within its range, no
    int32 intermediate overflows: `prove` checks exactly that.
    """

    weight_low: int
    weight_high: int
    input_low: int
    input_high: int
    output_low: int  # last layer: the proved int32 range
    output_high: int
    multiplier_limit: int  # 1 <= multiplier <= multiplier_limit
    bias_limit: int  # |bias| <= bias_limit
    accumulator_bound: int  # max |sum w x|
    wide: bool  # the product with the multiplier needs two limbs

    def prove(self, name: str, fan_in: int, *, last: bool) -> None:
        """Check that no int32 overflows for K = ``fan_in``.

        Raises:
          QevoError: naming the layer and the numbers that do not fit.
        """
        weight = max(abs(self.weight_low), abs(self.weight_high))
        value = max(abs(self.input_low), abs(self.input_high))
        if fan_in * weight * value > self.accumulator_bound:
            raise QevoError(
                f"{name}: an accumulator of {fan_in} products of at most {weight} * {value} can"
                f" reach {fan_in * weight * value}, above the stated {self.accumulator_bound}"
            )
        total = self.accumulator_bound + self.bias_limit
        if last:
            reach = self.accumulator_bound * self.multiplier_limit + self.bias_limit
            if not -OUTPUT_LIMIT <= self.output_low <= -reach <= reach <= self.output_high:
                raise QevoError(
                    f"{name}: outputs can reach {reach}, outside the stated"
                    f" {self.output_low}..{self.output_high}"
                )
            if self.output_high > OUTPUT_LIMIT:
                raise QevoError(f"{name}: outputs up to {self.output_high} exceed {OUTPUT_LIMIT}")
        elif self.wide:
            if total > _INT32 or self.multiplier_limit > WIDE_MULTIPLIER:
                raise QevoError(
                    f"{name}: accumulator and bias can reach {total} (limit {_INT32}) and the"
                    f" multiplier {self.multiplier_limit} (limit {WIDE_MULTIPLIER})"
                )
        elif total * self.multiplier_limit > _single_limb():
            raise QevoError(
                f"{name}: accumulator and bias up to {total} times a multiplier up to"
                f" {self.multiplier_limit} exceed {_single_limb()}"
            )


def _single_limb() -> int:
    return _INT32 - (1 << (MAX_SHIFT - 1))


def levels(bits: str | int, layer: str = "bits") -> tuple[int, int]:
    """Lowest and highest weight for ``bits``: "ternary" or 2 to 8.

    Raises:
      QevoError: for any other value, naming ``layer``.
    """
    if isinstance(bits, bool) or bits not in LEVELS:
        raise QevoError(f"{layer}: bits must be 'ternary' or 2 to 8, not {bits!r}")
    return LEVELS[bits]


def activation_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Lowest and highest activation of 8 or 4 bits: -127..127, 0..127, -7..7 or 0..15.

    Raises:
      QevoError: for another number of bits.
    """
    if isinstance(bits, bool) or bits not in ACTIVATIONS:
        raise QevoError(f"activation bits must be 4 or 8, not {bits!r}")
    if signed:
        return -SIGNED_ACTIVATIONS[bits], SIGNED_ACTIVATIONS[bits]
    return 0, ACTIVATIONS[bits]


def accumulator_bound(
    name: str, fan_in: int, weights: tuple[int, int], inputs: tuple[int, int]
) -> int:
    """The largest ``|sum w x|`` over K = ``fan_in`` products.

    Raises:
      QevoError: if it leaves int32, naming the layer and the numbers.
    """
    weight, value = max(map(abs, weights)), max(map(abs, inputs))
    bound = fan_in * weight * value
    if bound > _INT32 // 2:
        raise QevoError(
            f"{name}: the accumulator bound cannot be proved: {fan_in} products of {weight} *"
            f" {value} reach {bound}, and a bias needs room below 2**31; use fewer bits for the"
            " weights or the activations of this layer, or a smaller layer"
        )
    return bound


def layer_arithmetic(
    name: str,
    fan_in: int,
    *,
    weights: tuple[int, int],
    inputs: tuple[int, int],
    outputs: tuple[int, int],
) -> LayerArithmetic:
    """Limits for a layer that requantizes to int8, generous for genes and proved.

    A bias may reach half the accumulator bound (at least 2**14); what is left of 31 bits goes to
    the multiplier. Where that is less than `MIN_MULTIPLIER_LIMIT`, the product takes two limbs.

    Raises:
      QevoError: if the accumulator bound cannot be proved.
    """
    bound = accumulator_bound(name, fan_in, weights, inputs)
    bias_limit = max(bound // 2, 1 << 14)
    limit = min(_single_limb() // (bound + bias_limit), WIDE_MULTIPLIER)
    wide = limit < MIN_MULTIPLIER_LIMIT
    if wide:
        limit = WIDE_MULTIPLIER
    return LayerArithmetic(*weights, *inputs, *outputs, limit, bias_limit, bound, wide)


def last_arithmetic(
    name: str,
    fan_in: int,
    *,
    weights: tuple[int, int],
    inputs: tuple[int, int],
    multiplier: float,
    bias: float,
    fraction_bits: int | None = None,
) -> tuple[LayerArithmetic, int]:
    """Limits for the last layer, and the fraction bits of its int32 output.

    Takes the most fraction bits, up to `MAX_FRACTION_BITS`, that leave twice the given numbers as
    room for genes.

    Args:
      name: of the layer, for errors.
      fan_in: K.
      weights, inputs: their ranges.
      multiplier: largest real multiplier of a channel: nats (of an image: levels of the input) per
        unit of the accumulator.
      bias: largest real bias of a channel, nats or levels; `BIAS_ROOM` comes on top.
      fraction_bits: F, where it is given, as it is to layers that share an output.

    Returns:
      The layer's facts and F: an output of 2**F is one nat or level.

    Raises:
      QevoError: if no fixed point leaves room.
    """
    bound = accumulator_bound(name, fan_in, weights, inputs)
    for bits in [fraction_bits] if fraction_bits else range(MAX_FRACTION_BITS, 0, -1):
        bias_limit = int((2 * bias + BIAS_ROOM) * 2**bits) + 1
        limit = (OUTPUT_LIMIT - bias_limit) // bound
        if bias_limit < OUTPUT_LIMIT and limit >= max(2 * multiplier * 2**bits, 2):
            reach = bound * limit + bias_limit
            facts = LayerArithmetic(
                *weights, *inputs, -reach, reach, limit, bias_limit, bound, False
            )
            return facts, bits
    raise QevoError(
        f"{name}: outputs cannot be proved to fit int32: accumulator bound {bound}, multiplier"
        f" {multiplier:.3g} per unit, bias {bias:.3g}; use fewer bits for this layer"
    )
