"""What rounding one layer costs: against the definition, computed layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.stats

from qevo.quantize import FloatTeacher, LayerwiseFit, float_logits, round_network
from qevo.quantize.outputs import divergence
from qevo.quantize.rounding import round_squared_error
from qevo.quantize.sensitivity import bits_costs, entropy_bytes, layer_costs, packed_bytes

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


def test_costs_at_some_bits_are_those_of_networks_with_these_bits(trained: Trained) -> None:
    """But for the scales, which no integer layer makes coarse."""
    teacher = FloatTeacher(trained.module, trained.variables, trained.search.images[:300])
    costs = bits_costs(teacher, (4, "ternary"))
    networks = {b: teacher.convert(bits=b, rounding=round_squared_error) for b in (8, 4, "ternary")}
    known = layer_costs(teacher, {str(bits): network for bits, network in networks.items()})
    assert list(costs) == list(known)
    for name, row in costs.items():
        for bits, cost in row.items():
            expected = known[name][str(bits)].sensitivity
            np.testing.assert_allclose(cost.sensitivity, expected, rtol=0.15)
            weights = np.asarray(networks[bits].weights[name])
            np.testing.assert_allclose(cost.coded, entropy_bytes(weights), rtol=0.01)
            assert cost.packed == packed_bytes(weights.size, bits)


def test_a_layer_makes_up_for_no_other(trained: Trained) -> None:
    """Fitted to the inputs of ternary layers it would."""
    teacher = FloatTeacher(trained.module, trained.variables, trained.search.images[:300])
    fit = LayerwiseFit()
    alone = bits_costs(teacher, ("ternary",), rounding=fit)["dense_1"]["ternary"]
    network = teacher.convert(bits="ternary", rounding=fit)
    assert alone.sensitivity < layer_costs(teacher, {"": network})["dense_1"][""].sensitivity


def test_progress_of_every_rounding(trained: Trained) -> None:
    teacher = FloatTeacher(trained.module, trained.variables, trained.search.images[:50])
    seen: list[tuple[int, str]] = []
    bits_costs(teacher, (3, 2), progress=lambda done, name: seen.append((done, name)))
    names = [name for name in ("dense_0", "dense_1", "logits") for _ in range(2)]
    assert seen == list(enumerate(names, 1))


def test_bytes_of_weights() -> None:
    weights = np.random.RandomState(0).binomial(6, 0.4, (50, 40)).astype(np.int8) - 3
    bits = scipy.stats.entropy(np.unique(weights, return_counts=True)[1], base=2)
    assert entropy_bytes(weights) == pytest.approx(2000 * bits / 8)
    assert entropy_bytes(np.zeros((5, 5), np.int8)) == 0
    assert [packed_bytes(11, b) for b in (8, 3, 2, "ternary", 3.5)] == [11, 5, 3, 3, 5]
