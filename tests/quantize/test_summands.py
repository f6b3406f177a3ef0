"""Layers whose outputs are added: the one rounded last makes up for the other's error."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from flax import linen as nn
from networks import random_images, random_variables

from qevo.nets import Float, Numerics, QuantizedNetwork
from qevo.quantize import FloatTeacher, LayerwiseFit
from qevo.quantize.rounding import FloatLayer, Rounded, round_max_abs

SHAPE = (12, 12, 3)
Way = Literal["layer", "earlier layer", "identity", "chain"]


class Block(nn.Module):
    """A sum of a long way and another, in either order, and a layer that leads nowhere.

    The other way is a layer called after or before those of the long one, what both begin with, or
    in a chain a layer that goes on from the long way's end.
    """

    numerics: Numerics = Float()
    way: Way = "layer"
    long_first: bool = False

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), 6, name="stem")

        def short(x: Any) -> Any:
            return n.conv(x, 6, (1, 1), activation=None, name="short")

        early = short(x) if self.way == "earlier layer" else x
        long = n.conv(n.conv(x, 8, name="long_0"), 6, activation=None, name="long_1")
        other = {"layer": lambda: short(x), "chain": lambda: short(long)}
        way = other.get(self.way, lambda: early)()
        n.conv(x, 2, activation=None, name="nowhere")
        total = n.add(*((long, way) if self.long_first else (way, long)), name="add")
        return n.logits(n.flatten(total), 3, name="logits")


class Found(NamedTuple):
    network: QuantizedNetwork
    order: list[str]  # of rounding
    wanted: dict[str, np.ndarray]  # of each layer


def converted(teacher: FloatTeacher, *, without: str = "", **options: Any) -> Found:
    """Fitted at 8 bits, but for one layer whose weights are all 0."""
    order: list[str] = []
    wanted: dict[str, np.ndarray] = {}
    fit = LayerwiseFit()

    def rounding(layer: FloatLayer) -> Rounded:
        order.append(layer.name)
        wanted[layer.name] = layer.outputs
        found = round_max_abs(layer) if layer.name == "logits" else fit(layer)
        return found._replace(levels=0 * found.levels) if layer.name == without else found

    return Found(teacher.convert(bits=8, rounding=rounding, **options), order, wanted)


def teacher_of(module: nn.Module) -> FloatTeacher:
    return FloatTeacher(module, random_variables(module, SHAPE), random_images(SHAPE, 40))


def error_of_the_sum(found: Found, teacher: FloatTeacher, exact: np.ndarray) -> float:
    """Mean square, of what the last layer sees."""
    inputs = np.asarray(found.network.layer_inputs(teacher.images)["logits"], np.float64)
    exact = np.maximum(exact, 0).reshape(len(inputs), -1)
    return float(np.square(inputs * found.network.scales["add"] - exact).mean())


@pytest.mark.parametrize("long_first", [False, True])
@pytest.mark.parametrize(
    ("way", "without", "last"),
    [
        ("layer", "short", "long_1"),
        ("earlier layer", "short", "long_1"),
        ("chain", "long_1", "short"),
    ],
)
def test_one_layer_makes_up_for_another(
    way: Way, without: str, last: str, *, long_first: bool
) -> None:
    teacher = teacher_of(Block(way=way, long_first=long_first))
    plain = converted(teacher, without=without, make_up=False)
    made_up = converted(teacher, without=without)
    layers = [*plain.network.layers]
    assert plain.order == layers
    assert sorted(made_up.order) == sorted(layers)
    assert made_up.order.index(without) < made_up.order.index(last)
    assert [*made_up.network.weights] == layers
    np.testing.assert_array_equal(made_up.wanted[without], plain.wanted[without])

    # A layer of zeros gives the mean of the float layer's outputs, in steps.
    other = plain.wanted[without]
    lacking = other - other.mean((0, 1, 2), dtype=np.float64)
    step = plain.network.scales[without]
    np.testing.assert_allclose(made_up.wanted[last], plain.wanted[last] + lacking, atol=0.6 * step)
    if way != "chain":  # where the layer of zeros leaves nothing to make up with
        exact = plain.wanted[last] + other
        errors = [error_of_the_sum(one, teacher, exact) for one in (plain, made_up)]
        assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("long_first", [False, True])
def test_a_layer_makes_up_for_an_activation(*, long_first: bool) -> None:
    teacher = teacher_of(Block(way="identity", long_first=long_first))
    plain = converted(teacher, without="stem", make_up=False)
    made_up = converted(teacher, without="stem")
    stem = np.maximum(plain.wanted["stem"], 0)
    shown = np.asarray(made_up.network.layer_inputs(teacher.images)["long_0"], np.float64)
    lacking = stem - shown * made_up.network.scales["stem"]
    np.testing.assert_allclose(
        made_up.wanted["long_1"] - plain.wanted["long_1"], lacking, atol=1e-4
    )
    assert np.abs(lacking).max() > 0.1


def test_at_8_bits_little_is_lacking() -> None:
    teacher = teacher_of(Block())
    plain, made_up = converted(teacher, make_up=False), converted(teacher)
    off = np.abs(made_up.wanted["long_1"] - plain.wanted["long_1"])
    assert 0 < np.quantile(off, 0.95) < plain.network.scales["short"]  # the largest are cut off
    exact = plain.wanted["long_1"] + plain.wanted["short"]
    errors = [error_of_the_sum(one, teacher, exact) for one in (plain, made_up)]
    assert errors[1] < errors[0]


class Twice(nn.Module):
    """One activation added to itself."""

    numerics: Numerics = Float()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), 4, activation=None, name="stem")
        return n.logits(n.flatten(n.add(x, x, name="add")), 3, name="logits")


def test_a_summand_added_to_itself_lacks_nothing() -> None:
    teacher = teacher_of(Twice())
    assert converted(teacher).network == converted(teacher, make_up=False).network
