"""What rounding one layer costs: against the definition, computed layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qevo.quantize import FloatTeacher, float_logits, round_network
from qevo.quantize.convert import divergence
from qevo.quantize.sensitivity import layer_costs

if TYPE_CHECKING:
    Trained = Any


def test_costs_of_each_layer(trained: Trained) -> None:
    images = trained.search.images[:300]
    teacher = FloatTeacher(trained.module, trained.variables, images)
    networks = {
        "8": round_network(teacher, bits=8),
        "nearest": round_network(teacher, bits="ternary"),
        "fit": round_network(teacher, bits="ternary", method="layerwise"),
    }
    costs = layer_costs(teacher, {name: networks[name] for name in ("nearest", "fit")})
    assert list(costs) == ["dense_0", "dense_1", "logits"]
    for cost in costs.values():
        assert 0 < cost["fit"].error < cost["nearest"].error < 1
        assert cost["nearest"].sensitivity > 0
    fine = layer_costs(teacher, {"8": networks["8"]})
    for name, cost in fine.items():
        assert cost["8"].error < 0.01 * costs[name]["fit"].error
        assert cost["8"].sensitivity < 0.05 * costs[name]["nearest"].sensitivity


def test_divergence_is_that_of_the_classes() -> None:
    draw = np.random.RandomState(0)
    expected, found = draw.normal(size=(2, 5, 4))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (expected, found))
    np.testing.assert_allclose(divergence(expected, found), (p * np.log(p / q)).sum(-1).mean())
    assert divergence(expected, expected + 3) < 1e-12


def test_of_the_last_layer_it_is_what_the_network_loses(trained: Trained) -> None:
    """With only the logits rounded, to integers of the float layer's own inputs."""
    images = trained.search.images[:300]
    teacher = FloatTeacher(trained.module, trained.variables, images)
    network = round_network(teacher, bits={"*": 8, "logits": "ternary"})
    cost = layer_costs(teacher, {"mixed": network})["logits"]["mixed"]
    whole = divergence(
        float_logits(trained.module, trained.variables, images),
        network(images) / 2.0**network.fraction_bits,
    )
    np.testing.assert_allclose(cost.sensitivity, whole, rtol=0.1)
