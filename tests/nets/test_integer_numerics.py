"""Integer networks: against slow independent arithmetic, and as pure functions."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from networks import mixed_paths, random_images

from qevo.integer import audit
from qevo.integer.products import FLOAT_LIMIT
from qevo.nets import Integer, QuantizedNetwork
from qevo.nets.network import forward


def half_even(x: np.ndarray, shift: Any) -> np.ndarray:
    """``round_half_even(x / 2**shift)`` by comparing remainders, int64."""
    whole = x // 2**shift
    twice_rest = 2 * (x - whole * 2**shift)
    up = (twice_rest > 2**shift) | ((twice_rest == 2**shift) & (whole % 2 == 1))
    return whole + up


class Slow:
    """The networks written out in numpy int64, layer by layer, without any of qevo's operations."""

    def __init__(self, network: QuantizedNetwork) -> None:
        self.network = network
        self.constants = {
            name: {key: np.asarray(value, np.int64) for key, value in part.items()}
            for name, part in network.constants.items()
        }

    def input(self, images: np.ndarray) -> np.ndarray:
        c = self.constants["input"]
        value = half_even(images.astype(np.int64) * c["multiplier"] + c["bias"], c["shift"])
        return np.clip(value, *self.network.ranges["input"])

    def finish(self, name: str, acc: np.ndarray, *, leaky: bool = False) -> np.ndarray:
        facts, c = self.network.layers[name], self.constants[name]
        assert np.abs(acc).max() <= facts.accumulator_bound
        if "shift" not in c:  # the last layer
            return acc * c["multiplier"] + c["bias"]
        acc = acc + c["bias"]
        value = half_even(acc * c["multiplier"], c["shift"])
        if leaky:
            tenth = np.floor(c["multiplier"] * 0.8 + 0.5).astype(np.int64)
            value = np.where(acc < 0, half_even(acc * tenth, c["shift"] + 3), value)
        return np.clip(value, facts.output_low, facts.output_high)

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.finish(name, x @ np.asarray(self.network.weights[name], np.int64))

    def conv(
        self, name: str, x: np.ndarray, stride: int, padding: str | int, *, leaky: bool = False
    ) -> np.ndarray:
        kernel = np.asarray(self.network.weights[name], np.int64)
        height, width = kernel.shape[:2]
        if isinstance(padding, int):
            x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        elif padding == "SAME":
            pads = []
            for size, k in zip(x.shape[1:3], (height, width), strict=True):
                total = max((-(-size // stride) - 1) * stride + k - size, 0)
                pads.append((total // 2, total - total // 2))
            x = np.pad(x, ((0, 0), *pads, (0, 0)))
        rows = (x.shape[1] - height) // stride + 1
        columns = (x.shape[2] - width) // stride + 1
        acc = np.zeros((len(x), rows, columns, kernel.shape[-1]), np.int64)
        for i in range(rows):
            for j in range(columns):
                top, left = i * stride, j * stride
                window = x[:, top : top + height, left : left + width]
                if kernel.shape[2] < window.shape[3]:  # a filter for each channel
                    acc[:, i, j] = (window * kernel[:, :, 0]).sum((1, 2))
                else:
                    acc[:, i, j] = np.tensordot(window, kernel, 3)
        return self.finish(name, acc, leaky=leaky)

    def max_pool(self, x: np.ndarray) -> np.ndarray:
        count, height, width, channels = x.shape
        return x.reshape(count, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def add(self, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        c = self.constants[name]
        total = x * 2 ** c["left"][0] + y * 2 ** c["left"][1]
        return np.clip(half_even(total, c["right"]), *self.network.ranges[name])

    def average(self, name: str, x: np.ndarray) -> np.ndarray:
        c = self.constants[name]
        value = half_even(x.sum((1, 2)) * c["multiplier"], c["shift"])
        return np.clip(value, *self.network.ranges[name])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        x = self.input(images)
        kind = type(self.network.module).__name__
        if kind == "LeNet300":
            x = x.reshape(len(x), -1)
            for i in range(len(self.network.layers) - 1):
                x = self.dense(f"dense_{i}", x)
        elif kind == "Autoencoder":
            for i in range(2):
                x = self.conv(f"down_{i}", x, 2, "SAME")
            x = self.conv("up_0", self.conv("code", x, 1, "VALID"), 1, 3)
            for name in ("up_1", "image"):
                x = self.conv(name, np.kron(x, np.ones((1, 2, 2, 1), np.int64)), 1, "SAME")
            return x
        elif kind == "Traced":  # tests/detectors.py, section by section
            conv = [f"convolutional_{i}" for i in range(15)]
            first = self.conv(conv[0], x, 2, 1, leaky=True)
            x = self.conv(conv[2], self.conv(conv[1], first, 1, 1, leaky=True), 1, 0)
            summed = self.add("shortcut_3", x, first)
            x = self.conv(conv[4], summed, 1, 2)
            edges = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-128)
            shifted = [edges[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
            pooled = self.max_pool(np.concatenate([np.max(shifted, 0), x, summed], axis=3))
            fine = np.kron(pooled, np.ones((1, 2, 2, 1), np.int64))
            maps = (
                self.conv(conv[9], pooled, 1, 0),
                self.conv(conv[14], np.concatenate([fine, x], axis=3), 1, 0),
            )
            return np.concatenate([one.reshape(len(one), -1) for one in maps], axis=1)
        elif kind == "LeNet5":
            x = self.max_pool(self.conv("conv_0", x, 1, "SAME"))
            x = self.max_pool(self.conv("conv_1", x, 1, "VALID"))
            x = self.dense("dense_0", x.reshape(len(x), -1))
        else:
            padding = 1 if self.network.module.shortcut == "A" else "SAME"
            x = self.conv("stem", x, 1, padding)
            for block, stride in (
                ("block_0_0", 1),
                ("block_0_1", 1),
                ("block_1_0", 2),
                ("block_1_1", 1),
            ):
                y = self.conv(f"{block}/conv_0", x, stride, padding)
                y = self.conv(f"{block}/conv_1", y, 1, padding)
                if stride == 2 and padding == 1:
                    x = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (1, 2)))
                elif stride == 2:
                    x = self.conv(f"{block}/shortcut", x, stride, "SAME")
                x = self.add(f"{block}/add", x, y)
            x = self.average("pool", x)
        return self.dense("logits", x)


def test_equals_slow_arithmetic(network: QuantizedNetwork, images: np.ndarray) -> None:
    expected = Slow(network)(images)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(network(images, arithmetic="int"), expected)


def test_two_limbs_are_covered(wide: QuantizedNetwork) -> None:
    assert wide.layers["dense_0"].wide


def test_products_in_floats_give_the_same_bits(
    network: QuantizedNetwork, images: np.ndarray
) -> None:
    bounds = {name: facts.accumulator_bound for name, facts in network.layers.items()}
    paths = {n: path for n, path in mixed_paths(network).items() if bounds[n] < FLOAT_LIMIT}
    assert any(path.startswith("float32") for path in paths.values())
    module = network.integer_module("fast", paths)
    pixels = network.prepare(jnp.asarray(images))
    found = forward(module, network.weights, network.constants, pixels)
    np.testing.assert_array_equal(found, network(images, arithmetic="int"))


def test_equals_slow_arithmetic_at_the_limits_of_genes(
    network: QuantizedNetwork, images: np.ndarray
) -> None:
    """Weights, multipliers and biases at random within all that the proof allows."""
    draw = np.random.RandomState(2)
    weights, constants = {}, dict(network.constants)
    for name, facts in network.layers.items():
        shape = network.weights[name].shape
        levels = draw.choice([facts.weight_low, facts.weight_high], shape)
        weights[name] = jnp.asarray(levels, jnp.int8)
        channels = shape[-1]
        extreme = {
            "multiplier": draw.choice([1, facts.multiplier_limit], channels),
            "bias": draw.choice([-facts.bias_limit, facts.bias_limit], channels),
            "shift": draw.randint(0, 17 if facts.wide else 18, channels),
        }
        constants[name] = {k: jnp.asarray(extreme[k], jnp.int32) for k in constants[name]}
    edited = dataclasses.replace(network, weights=weights, constants=constants)
    output = edited(images)
    np.testing.assert_array_equal(output, Slow(edited)(images))
    facts = edited.layers[list(edited.layers)[-1]]
    assert facts.output_low <= output.min() <= output.max() <= facts.output_high


def test_holds_no_float(network: QuantizedNetwork, images: np.ndarray) -> None:
    def run(images: jax.Array) -> jax.Array:
        return network.apply(network.weights, network.constants, network.prepare(images))

    assert audit(run, images).integer_only


def test_vmap_over_candidates(network: QuantizedNetwork, images: np.ndarray) -> None:
    def flip(sign: int) -> Any:
        return {k: (w.astype(jnp.int32) * sign).clip(-8).astype(jnp.int8) for k, w in w0.items()}

    w0 = {k: jnp.clip(w, -1, 1) for k, w in network.weights.items()}
    population = jax.tree.map(lambda *a: jnp.stack(a), flip(1), flip(-1), flip(0))
    prepared = network.prepare(jnp.asarray(images))

    @jax.jit
    def run(weights: Any) -> jax.Array:
        return network.apply(weights, network.constants, prepared)

    together = jax.jit(jax.vmap(run))(population)
    for i, sign in enumerate((1, -1, 0)):
        np.testing.assert_array_equal(together[i], run(flip(sign)))


def test_shard_map_over_candidates(mlp: QuantizedNetwork) -> None:
    images = jnp.zeros((3, 6, 7, 1), jnp.int8)
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("population",))
    population = {k: jnp.stack([w, -jnp.maximum(w, -1)]) for k, w in mlp.weights.items()}

    def run(weights: Any) -> jax.Array:
        return mlp.apply(weights, mlp.constants, images)

    spec = PartitionSpec("population")
    sharded = jax.shard_map(jax.vmap(run), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_array_equal(jax.jit(sharded)(population), jax.vmap(run)(population))


def test_shows_the_inputs_of_layers(lenet: QuantizedNetwork) -> None:
    images = random_images((16, 16, 2), 3)
    inputs = lenet.layer_inputs(images)
    assert set(inputs) == set(lenet.weights)
    np.testing.assert_array_equal(inputs["conv_0"], lenet.prepare(jnp.asarray(images)))
    slow = Slow(lenet)
    np.testing.assert_array_equal(
        slow.dense("logits", np.asarray(inputs["logits"], np.int64)), lenet(images)
    )


def test_takes_prepared_images_only(mlp: QuantizedNetwork) -> None:
    with pytest.raises(TypeError, match="int8"):
        mlp.apply(mlp.weights, mlp.constants, jnp.zeros((1, 6, 7, 1), jnp.uint8))


def test_is_a_hashable_static_argument(mlp: QuantizedNetwork) -> None:
    one, other = (mlp.integer_module("int") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert hash(Integer(mlp.layers, mlp.ranges)) == hash(Integer(mlp.layers, mlp.ranges, "int"))


def test_batches_do_not_change_logits(
    mlp: QuantizedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images((6, 7, 1), 23)
    whole = mlp(images)
    monkeypatch.setattr("qevo.nets.network.BATCH", 5)
    np.testing.assert_array_equal(mlp(images), whole)
    assert mlp(images[:0]).shape == (0, 5)
