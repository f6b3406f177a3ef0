"""Networks with some channels of one layer replaced: the bits of whole arrays, for less work."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import FrozenDict
from networks import mixed_paths, quantized, random_images

from qevo.core.sharing import split
from qevo.nets import Float, Integer, QuantizedNetwork
from qevo.nets.edited_numerics import Edited, EditedInteger
from qevo.nets.network import forward
from qevo.nets.numerics import Numerics

KINDS = ("random", "up", "down")
LAYERS = {
    "mlp": ["dense_0", "dense_1", "dense_3", "logits"],
    "lenet": ["conv_0", "conv_1", "dense_0", "logits"],
    "resnet": ["stem", "block_0_0/conv_0", "block_1_0/conv_1", "block_1_0/shortcut", "logits"],
    "signed": ["conv_0", "conv_1", "dense_0", "dense_1"],
    "autoencoder": ["down_1", "code", "up_0", "up_1", "image"],
    "detector": [f"convolutional_{i}" for i in (0, 1, 2, 4, 9, 14)],
}


class Signed(nn.Module):
    """Layers without a ReLU follow each other, so that activations of both signs come in."""

    numerics: Numerics = Float()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), 5, activation=None, batch_norm=False, name="conv_0")
        x = n.conv(x, 4, strides=(2, 2), activation=None, batch_norm=False, name="conv_1")
        x = n.dense(n.flatten(x), 7, activation=None, name="dense_0")
        return n.logits(n.dense(x, 6, activation=None, name="dense_1"), 3, name="logits")


@pytest.fixture(scope="session")
def signed() -> QuantizedNetwork:
    return quantized(Signed(), (6, 5, 2), bits=8)


class Edit(NamedTuple):
    """What stands in one layer, and what replaces some of its channels."""

    kernel: Any
    constants: dict[str, Any]
    kernel_part: Any
    constants_part: dict[str, Any]
    first: Any

    def kernels(self) -> Edited:
        return Edited(self.kernel, self.kernel_part, self.first)

    def all_constants(self) -> dict[str, Edited]:
        return {
            name: Edited(value, self.constants_part[name], self.first)
            for name, value in self.constants.items()
        }


def edit(network: QuantizedNetwork, name: str, kind: str, seed: int) -> Edit:
    """Random levels and constants; or the least ones where the greatest were, or the reverse."""
    facts, draw = network.layers[name], np.random.RandomState(seed)
    shape = network.weights[name].shape
    channels = shape[-1]
    count = (seed % channels) + 1 if seed % 3 else max(channels // 2, 1)
    first = draw.randint(channels - count + 1)
    kernel = draw.randint(facts.weight_low, facts.weight_high + 1, shape)
    constants = {key: np.array(value) for key, value in network.constants[name].items()}
    part = draw.randint(facts.weight_low, facts.weight_high + 1, (*shape[:-1], count))
    near = {key: value[first : first + count] for key, value in constants.items()}
    if kind in ("up", "down"):
        ends = (facts.weight_low, facts.weight_high)[:: 1 if kind == "up" else -1]
        sign = 1 if kind == "up" else -1
        kernel[:], part[:] = ends
        bias = {"bias": np.full(channels, -sign * facts.bias_limit)}
        constants, near = constants | bias, near | {"bias": np.full(count, sign * facts.bias_limit)}
    else:
        most = np.minimum(2 * near["multiplier"], facts.multiplier_limit)
        near["multiplier"] = draw.randint(1, most + 1)
        near["bias"] = draw.randint(-facts.bias_limit, facts.bias_limit + 1, count) // 8
    arrays = {key: np.asarray(value, np.int32) for key, value in constants.items()}
    parts = {key: np.asarray(value, np.int32) for key, value in near.items()}
    return Edit(kernel.astype(np.int8), arrays, part.astype(np.int8), parts, np.int32(first))


def inputs(network: QuantizedNetwork) -> jax.Array:
    shape = (3, *network.image_shape)
    return jnp.asarray(np.random.RandomState(4).randint(0, 128, shape), jnp.int8)


def whole(tree: Any) -> Any:
    """Plain arrays in place of every edit, put together by numpy."""

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, Edited):
            return leaf
        array = np.array(leaf.base)
        array[..., leaf.first : leaf.first + leaf.part.shape[-1]] = leaf.part
        return array

    return jax.tree.map(put, tree, is_leaf=lambda leaf: isinstance(leaf, Edited))


def replaced(network: QuantizedNetwork, name: str, edit: Edit, which: str) -> tuple[Any, Any]:
    """The network's arrays, of one layer as `Edited`: "kernel", "constants", "both" or "none"."""
    kernel = edit.kernels() if which in ("kernel", "both") else edit.kernel
    constants = edit.all_constants() if which in ("constants", "both") else edit.constants
    weights = {**network.weights, name: kernel}
    return weights, {**network.constants, name: constants}


class Whole:
    """Logits of plain arrays, by numerics that know no edits."""

    def __init__(self, network: QuantizedNetwork):
        module = network.module.clone(numerics=Integer(network.layers, network.ranges))
        self.run = jax.jit(functools.partial(forward, module))
        self.images = inputs(network)

    def __call__(self, weights: Any, constants: Any) -> np.ndarray:
        return np.asarray(self.run(*whole((weights, constants)), self.images))


@pytest.fixture(scope="module")
def whole_networks() -> dict[str, Whole]:
    return {}


@pytest.mark.parametrize("arithmetic", ["int", "fast"])
@pytest.mark.parametrize("which", LAYERS)
def test_any_layer_may_be_edited(
    which: str, arithmetic: Any, whole_networks: Any, request: pytest.FixtureRequest
) -> None:
    network: QuantizedNetwork = request.getfixturevalue(which)
    if which not in whole_networks:
        whole_networks[which] = Whole(network)
    logits, images, names = whole_networks[which], inputs(network), LAYERS[which]
    paths = {} if arithmetic == "int" else mixed_paths(network)
    numerics = EditedInteger(network.layers, network.ranges, arithmetic, FrozenDict(paths))
    module = network.module.clone(numerics=numerics)

    def edited(edits: dict[str, Edit]) -> dict[str, jax.Array]:
        def one(name: str, edit: Edit) -> jax.Array:
            return forward(module, *replaced(network, name, edit, "both"), images)

        return {name: jax.lax.map(functools.partial(one, name), edits[name]) for name in names}

    edits = {
        name: [edit(network, name, kind, place) for kind in KINDS]
        for place, name in enumerate(names)
    }
    stacked = {name: jax.tree.map(lambda *a: np.stack(a), *edits[name]) for name in names}
    found = jax.jit(edited)(stacked)
    for name in names:
        for kind, one, mine in zip(KINDS, edits[name], found[name], strict=True):
            expected = logits(*replaced(network, name, one, "both"))
            assert not np.array_equal(expected, logits(*replaced(network, name, one, "none")))
            np.testing.assert_array_equal(mine, expected, err_msg=f"{name} {kind}")


@pytest.mark.parametrize("which", ["lenet", "signed"])
@pytest.mark.parametrize("part", ["kernel", "constants"])
def test_of_a_layer_some_arrays_may_be_edited(
    which: str, part: str, whole_networks: Any, request: pytest.FixtureRequest
) -> None:
    network: QuantizedNetwork = request.getfixturevalue(which)
    if which not in whole_networks:
        whole_networks[which] = Whole(network)
    logits, images = whole_networks[which], inputs(network)
    numerics = EditedInteger(network.layers, network.ranges)
    module = network.module.clone(numerics=numerics)
    edits = {name: edit(network, name, "random", 1) for name in LAYERS[which]}

    def edited(edits: dict[str, Edit]) -> dict[str, jax.Array]:
        return {
            name: forward(module, *replaced(network, name, one, part), images)
            for name, one in edits.items()
        }

    found = jax.jit(edited)(edits)
    for name, one in edits.items():
        expected = logits(*replaced(network, name, one, part))
        assert not np.array_equal(expected, logits(*replaced(network, name, one, "none")))
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize(
    ("which", "name", "after", "least"),
    [
        ("mlp", "dense_0", "dense_1", 0),
        ("signed", "conv_0", "conv_1", -127),
        ("signed", "dense_0", "dense_1", -127),
    ],
)
def test_edits_move_an_activation_over_its_whole_range(
    which: str, name: str, after: str, least: int, request: pytest.FixtureRequest
) -> None:
    """What the tests above take for granted: the next layer's input changes as far as it can."""
    network: QuantizedNetwork = request.getfixturevalue(which)
    assert network.layers[after].input_low == least
    images = random_images(network.image_shape, 2)
    for kind, ends in (("up", (least, 127)), ("down", (127, least))):
        one = edit(network, name, kind, 1)
        for part, end in zip(("none", "both"), ends, strict=True):
            weights, constants = whole(replaced(network, name, one, part))
            there = dataclasses.replace(network, weights=weights, constants=constants)
            count = one.kernel_part.shape[-1]
            seen = there.layer_inputs(images)[after][..., one.first : one.first + count]
            np.testing.assert_array_equal(seen, np.full_like(seen, end))


def test_upsampling_keeps_an_edit(autoencoder: QuantizedNetwork) -> None:
    """So that the layer after it computes the change only."""
    draw = np.random.RandomState(0)
    base, part = (draw.randint(0, 128, (2, 3, 4, c)).astype(np.int8) for c in (6, 2))
    numerics = EditedInteger(autoencoder.layers, autoencoder.ranges)
    found = numerics.upsample(Edited(jnp.asarray(base), jnp.asarray(part), jnp.int32(3)), 2)
    assert isinstance(found, Edited)
    base[..., 3:5] = part
    np.testing.assert_array_equal(found.part, part.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(found.whole, base.repeat(2, 1).repeat(2, 2))


def test_only_the_change_is_computed_for_each_candidate(mlp: QuantizedNetwork) -> None:
    """Products of a candidate: its channels, what they change in the next layer, the rest."""
    widths = [6 * 7, 12, 11, 10, 9, 5]
    module = mlp.module.clone(numerics=EditedInteger(mlp.layers, mlp.ranges))

    def products(name: str) -> list[tuple[int, int]]:
        one = edit(mlp, name, "random", 2)

        def function(varying: Any, fixed: Any) -> jax.Array:
            mine = one._replace(kernel_part=varying[0], constants_part=varying[1])
            return forward(module, *replaced(mlp, name, mine, "both"), fixed)

        varying, images = (one.kernel_part, one.constants_part), inputs(mlp)
        shared, own = split(function, varying, images)
        jaxpr = jax.make_jaxpr(own)(varying, images, jax.eval_shape(shared, images)).jaxpr
        return [
            eqn.invars[1].aval.shape for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"
        ]

    for place, name in enumerate(mlp.layers):
        count = edit(mlp, name, "random", 2).kernel_part.shape[-1]
        layer = list(itertools.pairwise(widths))
        expected = [(widths[place], count), *layer[place + 1 :]]
        if len(expected) > 1:
            expected[1] = (count, expected[1][1])
        assert products(name) == expected
