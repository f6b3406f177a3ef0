"""Conversion: quality of the methods on a small real problem, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets import Float, Integer, LeNet300, Numerics, PixelScaling
from qevo.nets.arithmetic import LEVELS
from qevo.nets.images import RAW_PIXELS
from qevo.quantize import (
    FloatTeacher,
    LayerwiseFit,
    best_of_n,
    bits_per_layer,
    float_logits,
    fold_batch_norm,
    quantize_network,
)
from qevo.quantize.rounding import FloatLayer, Rounded, round_max_abs

if TYPE_CHECKING:
    Trained = Any


def test_quality_of_the_methods(trained: Trained) -> None:
    real = trained.accuracy(
        float_logits(trained.module, trained.variables, trained.validation.images)
    )
    assert real > 0.8

    def accuracy(bits: Any, method: Any) -> float:
        network = trained.quantized(bits=bits, method=method)
        return trained.accuracy(network(trained.validation.images))

    assert accuracy(8, "nearest") > real - 0.01
    assert accuracy(4, "layerwise") > real - 0.01
    nearest, layerwise = (accuracy("ternary", m) for m in ("nearest", "layerwise"))
    assert nearest + 0.02 < layerwise
    assert layerwise > real - 0.04


def test_nearest_is_the_candidate_next_to_the_teacher(trained: Trained) -> None:
    teacher = FloatTeacher(trained.module, trained.variables, trained.search.images)
    network = trained.quantized(bits=2)
    unfitted = teacher.convert(bits=2, rounding=round_max_abs, fit_bias=False)
    fitted = teacher.convert(bits=2, rounding=round_max_abs)
    distance = teacher.divergence(network)
    assert 0 < distance <= min(teacher.divergence(unfitted), teacher.divergence(fitted))


def test_best_of_n(trained: Trained) -> None:
    images, labels = trained.search.images[:500], trained.search.labels[:500]

    teacher = FloatTeacher(trained.module, trained.variables, images)

    def draw(**options: Any) -> Any:
        return best_of_n(teacher, bits=3, draws=6, **options)

    by_labels, by_teacher = draw(labels=labels), draw()
    assert by_labels.scores.shape == (6,)
    assert len(set(by_labels.scores)) == 6
    assert not np.array_equal(by_labels.scores, by_teacher.scores)
    np.testing.assert_array_equal(draw(labels=labels).scores, by_labels.scores)
    assert teacher.divergence(by_teacher.network) == by_teacher.scores.min()
    nearest = quantize_network(trained.module, trained.variables, images, bits=3)
    moved = {
        name: np.abs(np.asarray(w, int) - np.asarray(nearest.weights[name], int))
        for name, w in by_teacher.network.weights.items()
    }
    assert all(m.max() == 1 for m in moved.values())
    with pytest.raises(QevoError, match="at least one draw"):
        best_of_n(teacher, bits=3, draws=0)
    with pytest.raises(QevoError, match="500 images but 7 labels"):
        draw(labels=labels[:7])


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("activation_bits", [4, 8])
def test_all_bits(trained: Trained, bits: Any, activation_bits: int) -> None:
    network = trained.quantized(bits=bits, activation_bits=activation_bits, method=round_max_abs)
    for name, facts in network.layers.items():
        assert (facts.weight_low, facts.weight_high) == LEVELS[bits]
        kernel = np.asarray(network.weights[name])
        # At max-abs scales each channel comes near an outermost level, as far as the scale's own
        # rounding allows: multipliers are small where 8-bit weights meet 4-bit activations.
        used = np.maximum(kernel.max(0) / facts.weight_high, kernel.min(0) / facts.weight_low)
        assert used.min() > 0.45
        c = network.constants[name]
        assert np.asarray(c["multiplier"]).max() <= facts.multiplier_limit // 2
        assert np.abs(c["bias"]).max() <= facts.bias_limit // 2
    assert network.layers["dense_1"].input_high == (127 if activation_bits == 8 else 15)
    assert network.activation_bits == activation_bits
    assert set(network.bits.values()) == {bits}


def test_stated_scales_are_those_of_the_integers(trained: Trained) -> None:
    """A layer's integers times its scales reproduce the float layer, with no other factor."""
    images = trained.validation.images[:200]
    network = trained.quantized(bits=8, method=round_max_abs)
    folded = fold_batch_norm(trained.variables)
    inputs = network.layer_inputs(images)
    scales = list(network.scales.values())
    for i, name in enumerate(["dense_0", "dense_1"]):
        c = {k: np.asarray(v) for k, v in network.constants[name].items()}
        weight_scale = c["multiplier"] / 2.0 ** c["shift"] * scales[i + 1] / scales[i]
        kernel = np.asarray(network.weights[name]) * weight_scale
        assert np.abs(kernel - folded[name]["kernel"]).max() <= 0.51 * weight_scale.max()
        real = np.asarray(inputs[name]) * scales[i] @ kernel + c["bias"] * weight_scale * scales[i]
        following = np.asarray(inputs["dense_1" if i == 0 else "logits"])
        error = np.clip(np.maximum(real, 0) / scales[i + 1], 0, 127) - following
        assert np.abs(error).max() <= 0.501


def test_channels_without_weights(trained: Trained) -> None:
    """A dead channel keeps its bias, whatever the scale."""
    variables = {"params": {k: dict(v) for k, v in trained.variables["params"].items()}}
    kernel = np.array(variables["params"]["dense_0"]["kernel"])
    kernel[:, :2] = 0
    variables["params"]["dense_0"]["kernel"] = kernel
    variables["params"]["dense_0"]["bias"] = np.full(48, 0.5, np.float32)
    for method in ("nearest", "layerwise"):
        network = quantize_network(
            trained.module, variables, trained.search.images, bits="ternary", method=method
        )
        out = np.asarray(network.layer_inputs(trained.search.images)["dense_1"])[:, :2]
        assert np.abs(out * network.scales["dense_0"] - 0.5).max() < network.scales["dense_0"]


def test_a_method_of_ones_own(trained: Trained) -> None:
    names = []

    def zeros(layer: FloatLayer) -> Rounded:
        names.append(layer.name)
        assert layer.moments().gram.shape == (len(layer.kernel),) * 2
        scale = layer.grid.nearest(np.ones(layer.kernel.shape[1]))
        return Rounded(np.zeros(layer.kernel.shape, np.int8), scale)

    network = trained.quantized(bits=4, method=zeros)
    assert names == ["dense_0", "dense_1", "logits"]
    assert len(np.unique(network(trained.search.images[:50]), axis=0)) == 1


def test_offsets_of_the_pixels(trained: Trained) -> None:
    """A network for normalised pixels, made from the trained one, converts as well."""
    scaling = PixelScaling.normalized((0.3,), (0.4,))
    variables = {"params": {k: dict(v) for k, v in trained.variables["params"].items()}}
    first = variables["params"]["dense_0"]
    kernel = np.asarray(first["kernel"])
    first["bias"] = np.asarray(first["bias"]) + 0.3 * kernel.sum(0)
    first["kernel"] = 0.4 * kernel
    module = trained.module.clone(
        numerics=dataclasses.replace(trained.module.numerics, scaling=scaling)
    )
    images = trained.validation.images
    real = float_logits(trained.module, trained.variables, images)
    np.testing.assert_allclose(float_logits(module, variables, images), real, atol=1e-3)
    network = quantize_network(module, variables, trained.search.images, bits=8)
    assert network.layers["dense_0"].input_low == -127
    assert trained.accuracy(network(images)) > trained.accuracy(real) - 0.01


def test_a_bias_far_beyond_the_outputs() -> None:
    """Raw pixels, whose mean the last layer takes off again."""
    draw = np.random.RandomState(0)
    images = draw.randint(100, 140, (200, 4, 4, 1)).astype(np.uint8)
    kernel = draw.normal(1, 0.05, (16, 3)).astype(np.float32)
    bias = -kernel.sum(0) * 120
    module = LeNet300(Float(scaling=RAW_PIXELS), hidden=(), classes=3)
    variables = {"params": {"logits": {"kernel": kernel, "bias": bias}}}
    real = float_logits(module, variables, images)
    assert np.abs(bias).min() > 5 * np.abs(real).max()
    network = quantize_network(module, variables, images, bits=8)
    error = network(images) * network.output_scale - real
    assert np.abs(error).max() < 0.1 * np.abs(real).max()


def test_a_sum_with_the_images_themselves() -> None:
    class Adding(nn.Module):
        numerics: Numerics = Float()

        @nn.compact
        def __call__(self, images: Any) -> Any:
            n = self.numerics
            x = n.input(images)
            y = n.conv(x, 1, (3, 3), activation=None, batch_norm=False, name="conv")
            return n.logits(n.flatten(n.add(x, y, name="sum")), 2, name="logits")

    images = np.zeros((2, 4, 4, 1), np.uint8)
    variables = Adding().init(jax.random.key(0), images)
    with pytest.raises(QevoError, match="sum: the images themselves cannot be added"):
        quantize_network(Adding(), variables, images, bits=8)


def test_refuses(trained: Trained) -> None:
    images = trained.search.images
    with pytest.raises(QevoError, match=r"uint8 \[n, H, W, C\].*float64"):
        quantize_network(trained.module, trained.variables, images / 255, bits=8)
    with pytest.raises(QevoError, match=r"n at least 1"):
        quantize_network(trained.module, trained.variables, images[:0], bits=8)
    module = LeNet300(Integer({}, {}))
    with pytest.raises(QevoError, match=r"LeNet300 must have a field numerics with Float"):
        quantize_network(module, trained.variables, images, bits=8)
    with pytest.raises(
        QevoError,
        match="'layerwise', 'evolutionary' or a function, not 'best'",
    ):
        trained.quantized(bits=8, method="best")
    with pytest.raises(QevoError, match="activation bits must be 4 or 8, not 3"):
        trained.quantized(bits=8, activation_bits=3)
    with pytest.raises(QevoError, match="2 to 8, not 9"):
        trained.quantized(bits=9)


def test_refuses_variables_of_another_network(trained: Trained) -> None:
    images = trained.search.images
    with pytest.raises(QevoError, match=r"params/dense_0/bias should be \(9,\), not \(48,\)"):
        quantize_network(LeNet300(hidden=(9,)), trained.variables, images, bits=8)
    fewer = {"params": {k: v for k, v in trained.variables["params"].items() if k != "logits"}}
    with pytest.raises(QevoError, match=r"params/logits/bias should be \(10,\), not absent"):
        quantize_network(trained.module, fewer, images, bits=8)


LAYERS = ("stem", "block_0/conv_0", "block_0/conv_1", "logits")


def test_bits_by_pattern() -> None:
    assert set(bits_per_layer("ternary", LAYERS).values()) == {"ternary"}
    found = bits_per_layer({"*": "ternary", "block_0/*": 4, "block_0/conv_1": 2, "stem": 8}, LAYERS)
    assert found == {"stem": 8, "block_0/conv_0": 4, "block_0/conv_1": 2, "logits": "ternary"}
    # The last match counts, however specific.
    assert bits_per_layer({"stem": 8, "*": 3}, LAYERS)["stem"] == 3
    assert type(bits_per_layer(np.int64(4), LAYERS)["stem"]) is int  # as a file can hold it


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (9, "must be 'ternary' or 2 to 8, not 9"),
        ({"*": 4, "logits": "8"}, "logits: bits must be"),
        ({"*": 4, "dense_*": 8}, r"'dense_\*' matches no layer; there are stem, block_0/conv_0"),
        ({"block_*": 4}, "no pattern matches layer stem"),
        ({}, "no pattern matches layer stem"),
    ],
)
def test_bits_by_pattern_refuse(bits: Any, message: str) -> None:
    with pytest.raises(QevoError, match=message):
        bits_per_layer(bits, LAYERS)


def test_layerwise_options(trained: Trained) -> None:
    """More starts never make a layer's own error larger."""
    errors: dict[str, list[float]] = {}

    def measuring(fit: LayerwiseFit) -> Any:
        def rounding(layer: FloatLayer) -> Rounded:
            rounded = fit(layer)
            moments = layer.moments()
            kernel = rounded.levels * rounded.scale
            error = (kernel * (moments.gram @ kernel - 2 * moments.cross)).sum()
            errors.setdefault(layer.name, []).append(float(error))
            return rounded

        return rounding

    for starts in ((1.0,), (0.8, 1.0, 1.25)):
        fit = LayerwiseFit(starts=starts, ridge=1e-9)
        trained.quantized(bits="ternary", method=measuring(fit))
    assert errors["dense_0"][1] < errors["dense_0"][0] < 0
