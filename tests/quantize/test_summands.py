"""Layers whose outputs are added: the one rounded last makes up for the other's error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from flax import linen as nn
from networks import random_images, random_variables

from qevo.nets import Float, Numerics, QuantizedNetwork
from qevo.quantize import FloatTeacher, LayerwiseFit
from qevo.quantize.rounding import FloatLayer, Rounded, round_max_abs


class Block(nn.Module):
    """A long and a short way, in whichever order, and one that leads nowhere."""

    numerics: Numerics = Float()
    short_first: bool = False

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), 8, name="stem")

        def short() -> Any:
            return n.conv(x, 6, (1, 1), activation=None, name="short")

        early = short() if self.short_first else None
        long = n.conv(n.conv(x, 8, name="long_0"), 6, activation=None, name="long_1")
        way = short() if early is None else early
        n.conv(x, 2, activation=None, name="nowhere")
        total = n.add(way, long, activation=None, name="add")
        return n.logits(n.flatten(total), 3, name="logits")


class Found(NamedTuple):
    network: QuantizedNetwork
    order: list[str]  # of rounding
    wanted: dict[str, np.ndarray]  # of each layer


def converted(teacher: FloatTeacher, *, coarse: str = "", **options: Any) -> Found:
    """Fitted at 8 bits, but for one layer whose weights are all 0."""
    order: list[str] = []
    wanted: dict[str, np.ndarray] = {}
    fit = LayerwiseFit()

    def rounding(layer: FloatLayer) -> Rounded:
        order.append(layer.name)
        wanted[layer.name] = layer.outputs
        found = round_max_abs(layer) if layer.name == "logits" else fit(layer)
        return found._replace(levels=0 * found.levels) if layer.name == coarse else found

    return Found(teacher.convert(bits=8, rounding=rounding, **options), order, wanted)


@pytest.fixture(params=[False, True], ids=["short_last", "short_first"])
def teacher(request: pytest.FixtureRequest) -> FloatTeacher:
    module = Block(short_first=request.param)
    shape = (12, 12, 3)
    return FloatTeacher(module, random_variables(module, shape), random_images(shape, 40))


def sums(found: Found, images: np.ndarray) -> np.ndarray:
    """Real values of the sum that the last layer sees."""
    inputs = np.asarray(found.network.layer_inputs(images)["logits"], np.float64)
    return inputs * found.network.scales["add"]


def test_the_layer_with_more_inputs_makes_up_for_the_other(teacher: FloatTeacher) -> None:
    plain = converted(teacher, coarse="short", make_up=False)
    made_up = converted(teacher, coarse="short")
    layers = teacher.layer_names
    assert [*plain.network.layers] == plain.order
    assert sorted(made_up.order) == sorted(layers)
    assert made_up.order.index("short") < made_up.order.index("long_1")
    assert [*made_up.network.layers] == [*plain.network.layers] == [*made_up.network.weights]
    for name in ("stem", "long_0", "short", "nowhere"):
        np.testing.assert_array_equal(made_up.wanted[name], plain.wanted[name])

    # A layer of zeros has the float layer's mean for its output.
    short = plain.wanted["short"]
    lacking = short - short.mean((0, 1, 2), dtype=np.float64)
    step = made_up.network.scales["short"]
    np.testing.assert_allclose(
        made_up.wanted["long_1"], plain.wanted["long_1"] + lacking, atol=0.6 * step
    )
    exact = (plain.wanted["long_1"] + short).reshape(len(teacher.images), -1)
    errors = [np.square(sums(one, teacher.images) - exact).mean() for one in (plain, made_up)]
    assert errors[1] < 0.9 * errors[0]


def test_nothing_is_lacking_of_exact_summands(teacher: FloatTeacher) -> None:
    plain, made_up = converted(teacher, make_up=False), converted(teacher)
    step = plain.network.scales["short"]
    off = made_up.wanted["long_1"] - plain.wanted["long_1"]
    assert 0 < np.quantile(np.abs(off), 0.95) < step  # the largest values saturate
    exact = (plain.wanted["long_1"] + plain.wanted["short"]).reshape(len(teacher.images), -1)
    errors = [np.square(sums(one, teacher.images) - exact).mean() for one in (plain, made_up)]
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
    shape = (6, 6, 1)
    module = Twice()
    teacher = FloatTeacher(module, random_variables(module, shape), random_images(shape))
    assert converted(teacher).network == converted(teacher, make_up=False).network
