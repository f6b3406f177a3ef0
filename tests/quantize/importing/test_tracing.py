"""Networks written in plain flax or jax: what becomes of them, and what is refused."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from flax.traverse_util import flatten_dict
from jax import lax
from networks import quantized, random_images, random_variables

from qevo.errors import QevoError
from qevo.nets import (
    RAW_PIXELS,
    UNIT_RANGE,
    Float,
    LeNet5,
    Numerics,
    PixelScaling,
    ResNet,
    load_safetensors,
)
from qevo.quantize import float_logits, trace

SHAPE = (8, 8, 3)
NORMALIZED = PixelScaling.normalized((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
Function = Callable[[Any, Any], Any]


def arrays_of(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Named arrays without an order of magnitude of their own."""
    draw = np.random.RandomState(0)
    return {
        name: np.float32(draw.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape))
        for name, shape in shapes.items()
    }


def calls(module: Any) -> list[str]:
    """Operations and names of a traced network, with what is fused or special."""
    found = []
    for operation, _, options, name in module.calls:
        relu = ["relu"] if ("activation", "relu") in options else []
        found.append(" ".join([operation, *filter(None, [name]), *relu]))
    return found


class Plain(nn.Module):
    """What a tutorial has: batch norm in every place that it may take."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.Conv(6, (3, 3), padding="VALID", use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.max_pool(nn.Conv(5, (3, 3), strides=2)(x), (3, 3), (2, 2), padding="SAME")
        x = nn.relu(x)
        x = nn.BatchNorm(use_running_average=not train)(x)  # goes into the next layer
        x = nn.Conv(7, (2, 2), padding="VALID", name="last")(x)
        x = nn.avg_pool(nn.BatchNorm(use_running_average=not train)(x), x.shape[1:3])
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        x = nn.relu(nn.Dense(9)(x))
        return nn.Dense(4)(x)


@pytest.fixture(scope="module")
def plain() -> Any:
    return random_variables(Plain(), SHAPE)


def test_batch_norm_goes_into_layers(plain: Any) -> None:
    module, variables = trace(Plain(), plain, SHAPE, scaling=NORMALIZED)
    assert calls(module) == [
        "conv stem relu",
        "conv Conv_0 relu",
        "max_pool",
        "conv last",
        "average_pool pool_0",
        "dense Dense_0 relu",
        "logits Dense_1",
    ]
    assert all(set(layer) == {"kernel", "bias"} for layer in variables["params"].values())
    scaling = module.numerics.scaling  # type: ignore[attr-defined]
    np.testing.assert_allclose(scaling.scale, NORMALIZED.scale, rtol=1e-6)
    np.testing.assert_allclose(scaling.offset, NORMALIZED.offset, rtol=1e-6)


def test_becomes_an_integer_network(plain: Any, tmp_path: pathlib.Path) -> None:
    module, variables = trace(Plain(), plain, SHAPE, scaling=NORMALIZED)
    images = random_images(SHAPE)
    network = quantized(module, images, variables, bits={"*": 8, "Dense_*": 4})
    real = np.asarray(Plain().apply(plain, NORMALIZED(jnp.asarray(images))))
    np.testing.assert_allclose(float_logits(module, variables, images), real, rtol=0, atol=1e-3)
    spread = np.ptp(real)
    assert np.abs(network(images) / 2.0**network.fraction_bits - real).max() < 0.1 * spread
    network.save(tmp_path / "network")
    found = load_safetensors(tmp_path / "network")
    np.testing.assert_array_equal(found(images), network(images))
    assert list(found.layers) == ["stem", "Conv_0", "last", "Dense_0", "Dense_1"]


class PlainLeNet5(nn.Module):
    """LeNet-5 without qevo, by the same names."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = x / 255.0
        for i, features in enumerate((4, 5)):
            x = nn.Conv(features, (5, 5), padding="VALID" if i else "SAME", name=f"conv_{i}")(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(11, name="dense_0")(x))
        return nn.Dense(6, name="logits")(x)


def test_equals_the_architecture_written_by_hand() -> None:
    shape = (16, 16, 2)
    native = LeNet5(channels=(4, 5), hidden=(11,), classes=6)
    given = random_variables(native, shape)
    module, variables = trace(PlainLeNet5(), given, shape)
    images = random_images(shape)
    jax.tree.map(np.testing.assert_array_equal, variables, given)
    expected = quantized(native, images, given, bits=8)
    found = quantized(module, images, variables, bits=8)
    assert found.scales == expected.scales
    jax.tree.map(np.testing.assert_array_equal, found.weights, expected.weights)
    jax.tree.map(np.testing.assert_array_equal, found.constants, expected.constants)
    np.testing.assert_array_equal(found(images), expected(images))


def plain_resnet(variables: Any, images: Any) -> Any:
    """ResNet(widths=(4, 6)) as a function over its variables."""
    params, statistics = variables["params"], variables["batch_stats"]

    def conv(x: Any, block: Any, mean: Any, strides: int = 1) -> Any:
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, block["kernel"], (strides, strides), "SAME", dimension_numbers=dimensions
        )
        norm, mean = block["norm"], mean["norm"]
        return (x - mean["mean"]) / jnp.sqrt(mean["var"] + 1e-5) * norm["scale"] + norm["bias"]

    @jax.jit
    def block(x: Any, p: Any, s: Any) -> Any:
        strides = 2 if "shortcut" in p else 1
        y = nn.relu(conv(x, p["conv_0"], s["conv_0"], strides))
        y = conv(y, p["conv_1"], s["conv_1"])
        x = conv(x, p["shortcut"], s["shortcut"], 2) if strides == 2 else x
        return jnp.maximum(x + y, 0)

    x = nn.relu(conv(images / 255, params["stem"], statistics["stem"]))
    for name in ("block_0_0", "block_1_0"):
        x = jax.checkpoint(block)(x, params[name], statistics[name])
    return x.mean((1, 2)) @ params["logits"]["kernel"] + params["logits"]["bias"]


def test_residual_network() -> None:
    native = ResNet(widths=(4, 6), classes=5)
    given = random_variables(native, SHAPE)
    module, variables = trace(plain_resnet, given, SHAPE)
    images = random_images(SHAPE)
    expected = quantized(native, images, given, bits=8)
    found = quantized(module, images, variables, bits=8)
    assert set(found.layers) == set(expected.layers)
    assert set(found.ranges) - set(expected.ranges) == {"add_0", "add_1", "pool_0"}
    for name, weights in found.weights.items():  # folded in float32 here, in float64 there
        assert np.mean(np.asarray(weights) != np.asarray(expected.weights[name])) < 0.01
    a, b = (n(images) / 2.0**n.fraction_bits for n in (found, expected))
    np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.ptp(b))


def test_shortcuts_without_weights() -> None:
    """Strided slices, zero channels, and zeros around the image of a strided convolution."""
    arrays = arrays_of(stem=(3, 3, 3, 4), conv=(3, 3, 4, 6), out=(6, 2)) | {"gain": np.float32(0.5)}

    def network(a: Any, x: Any) -> Any:
        x = nn.relu(convolve(x / 255, a["stem"]))
        y = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) * a["gain"]
        y = convolve(y, a["conv"], strides=(2, 2), padding="VALID")
        x = jnp.pad(x[:, ::2, ::2], ((0, 0),) * 3 + ((1, 1),))
        x = nn.relu(x - y)
        return jnp.squeeze(x.mean((1, 2), keepdims=True), (1, 2)) @ a["out"]

    module, variables = trace(network, arrays, SHAPE)
    assert calls(module) == [
        "conv stem relu",
        "max_pool",
        "pad_channels",
        "conv conv",
        "add add_0 relu",
        "average_pool pool_0",
        "logits out",
    ]
    np.testing.assert_allclose(variables["params"]["conv"]["kernel"], -arrays["conv"] / 2)
    assert dict(module.calls[3].options)["padding"] == ((1, 1), (1, 1))


class Separable(nn.Module):
    """Depthwise convolutions, on what was scaled and shifted, and channels put together."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        norm = nn.BatchNorm(use_running_average=True)
        y = nn.Conv(4, (3, 3), padding="VALID", feature_group_count=4, name="depthwise")(norm(x))
        y = nn.Conv(6, (1, 1), name="pointwise")(nn.relu(nn.BatchNorm(True)(y)))
        z = nn.Conv(4, (3, 3), strides=2, feature_group_count=4, use_bias=False, name="strided")(x)
        z = jnp.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = jnp.concatenate([y, nn.Conv(3, (1, 1), name="narrow")(z)], axis=-1)
        y = nn.BatchNorm(True)(nn.relu(nn.BatchNorm(True)(y)))
        return nn.Dense(3, name="out")(y.mean((1, 2)))


class NativeSeparable(nn.Module):
    """The same by qevo's own operations, without what is folded."""

    numerics: Numerics = Float()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        plain = {"batch_norm": False, "activation": None}
        x = n.conv(n.input(images), 4, batch_norm=False, name="stem")
        y = n.conv(x, 4, padding="VALID", depthwise=True, batch_norm=False, name="depthwise")
        y = n.conv(y, 6, (1, 1), batch_norm=False, name="pointwise")
        pads = ((0, 1), (0, 1))
        z = n.conv(x, 4, strides=(2, 2), padding=pads, depthwise=True, name="strided", **plain)
        z = n.conv(z, 3, (1, 1), padding=((1, 1), (1, 1)), batch_norm=False, name="narrow")
        pooled = n.average_pool(n.concat(y, z, name="concat_0"), name="pool_0")
        return n.logits(pooled, 3, name="out")


def test_depthwise_layers_and_channels_put_together() -> None:
    given = random_variables(Separable(), SHAPE)
    module, variables = trace(Separable(), given, SHAPE, scaling=UNIT_RANGE)
    assert calls(module) == [
        "conv stem relu",
        "conv depthwise relu",
        "conv pointwise relu",
        "conv strided",
        "conv narrow relu",
        "concat concat_0",
        "average_pool pool_0",
        "logits out",
    ]
    images = random_images(SHAPE)
    native = NativeSeparable(Float(scaling=UNIT_RANGE))
    expected = quantized(native, images, variables, bits=8)
    found = quantized(module, images, variables, bits=8)
    assert found.weights["depthwise"].shape == (3, 3, 1, 4)
    np.testing.assert_array_equal(found(images), expected(images))
    real = np.asarray(Separable().apply(given, images / 255.0))
    assert np.abs(found(images) / 2.0**found.fraction_bits - real).max() < 0.1 * np.ptp(real)


def mixed(a: Any, x: Any) -> Any:
    """What has a relu beside what has none, the same twice, and a relu behind both."""
    x = nn.relu(convolve(x / 255, a["w"]))
    y = jnp.concatenate([x, convolve(x, a["v"]), nn.relu(convolve(x / 1, a["v"]))], -1)
    z = nn.relu(s := convolve(y, a["u"]))
    z = nn.relu(jnp.concatenate([s, convolve(z, a["v"]), s], -1))
    return z.mean((1, 2)) @ a["t"]


@pytest.mark.parametrize("bits", [4, 8])
def test_channels_of_several_ranges(bits: int) -> None:
    arrays = arrays_of(w=(3, 3, 3, 4), v=(3, 3, 4, 4), u=(1, 1, 12, 4), t=(12, 2))
    module, variables = trace(mixed, arrays, SHAPE)
    assert [call.name for call in module.calls if call.operation == "conv"] == [
        "w", "v", "v_1", "u", "v_2",
    ]  # fmt: skip
    images = random_images(SHAPE)
    network = quantized(module, images, variables, bits=8, activation_bits=bits)
    real = np.asarray(mixed(arrays, jnp.asarray(images)))
    error = np.abs(network(images) / 2.0**network.fraction_bits - real).max()
    assert error < (0.1 if bits == 8 else 0.6) * np.ptp(real)


def convolve(
    x: Any, kernel: Any, strides: Any = (1, 1), padding: Any = "SAME", **options: Any
) -> Any:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, **options
    )


def test_function_over_named_arrays() -> None:
    """Names as torch writes them, kernels the other way round, and inverted pixels."""
    arrays = arrays_of(
        **{
            "net.0.weight": (10, 192),
            "net.0.bias": (10,),
            "net.2.weight": (7, 10),
            "net.2.bias": (7,),
        }
    )

    def network(a: dict[str, Any], x: Any) -> Any:
        x = (1 - x / 255).reshape(-1, 192)
        x = jnp.maximum(0, a["net.0.bias"] + jnp.einsum("bi,oi->bo", x, a["net.0.weight"]))
        return 2 * (x @ a["net.2.weight"].T + a["net.2.bias"])  # a temperature

    module, variables = trace(network, arrays, SHAPE)
    assert calls(module) == ["flatten", "dense net/0 relu", "logits net/2"]
    found = flatten_dict(variables["params"], sep="/")
    np.testing.assert_array_equal(found["net/0/kernel"], -arrays["net.0.weight"].T)
    np.testing.assert_array_equal(found["net/2/bias"], 2 * arrays["net.2.bias"])
    assert module.numerics.scaling == PixelScaling((1 / 255,), (-1.0,))  # type: ignore[attr-defined]


def test_module_of_nnx() -> None:
    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.out = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.out(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))

    graph, state = nnx.split(Network(nnx.Rngs(0)))
    module, _ = trace(lambda s, x: nnx.merge(graph, s)(x), state, SHAPE, scaling=UNIT_RANGE)
    assert calls(module) == ["conv conv relu", "average_pool pool_0", "logits out"]


def test_layers_of_many_shapes() -> None:
    """1x1 products on images and on their means, a layer without a name, and unused outputs."""
    arrays = arrays_of(a=(3, 4), b=(1, 1, 4, 5)) | {
        "kernel": {"kernel": np.ones((5, 2), np.float32)}
    }
    middle = arrays_of(c=(8, 8, 5, 5))["c"]

    def network(a: Any, x: Any) -> Any:
        x = nn.relu(x.astype(jnp.float32) @ a["a"])
        x = nn.relu(nn.relu(convolve(x, a["b"])))
        nn.gelu(x)
        x = nn.relu(convolve(x, middle, padding="VALID"))
        return x.reshape(len(x), 5) @ a["kernel"]["kernel"]

    module, variables = trace(network, arrays, SHAPE)
    assert calls(module) == [
        "conv a relu",
        "conv b relu",
        "conv layer relu",
        "flatten",
        "logits kernel_",
    ]
    assert module.numerics.scaling == RAW_PIXELS  # type: ignore[attr-defined]
    quantized(module, SHAPE, variables, bits=8)

    def pooled(a: Any, x: Any) -> Any:
        x = nn.relu(x.astype(jnp.float32) @ a["a"]).mean((1, 2), keepdims=True)
        return jnp.squeeze(convolve(x, a["b"]), (1, 2))

    assert calls(trace(pooled, arrays, SHAPE)[0])[1:] == ["average_pool pool_0", "logits b"]


def test_one_layer_at_two_scales() -> None:
    """What is pending where a layer is first used goes into it; the other use makes up for it."""
    arrays = arrays_of(a=(3, 3, 3, 4), b=(3, 3, 4, 4), out=(4, 2))

    @jax.custom_vjp
    def straight_through(x: Any) -> Any:
        return nn.relu(x)

    straight_through.defvjp(lambda x: (nn.relu(x), None), lambda _, gradient: (gradient,))

    def network(a: Any, x: Any) -> Any:
        x = straight_through(convolve(x / 255, a["a"]))
        y = convolve(x, a["b"])
        z = nn.relu(convolve(3 * y - 0.5, a["b"], padding="VALID"))
        return (z.mean((1, 2)) + 2 * y.mean((1, 2)) @ jnp.eye(4)) @ a["out"]

    module, _ = trace(network, arrays, SHAPE)
    names = [call.name for call in module.calls]
    assert names == ["a", "b", "b_1", "pool_0", "pool_1", "layer", "add_0", "out"]


def test_names_are_unique() -> None:
    shapes = arrays_of(kernel=(3, 3), x=(3, 3))
    arrays = {"params": {"a": {"kernel": shapes["kernel"], "b": {"kernel": shapes["x"]}}}}

    def network(a: Any, x: Any) -> Any:
        a = a["params"]["a"]
        x = nn.relu((x / 255).mean((1, 2)) @ a["kernel"])
        x = nn.relu(x @ a["kernel"])  # shared
        return x @ a["b"]["kernel"]

    module, variables = trace(network, arrays, SHAPE)
    assert [call.name for call in module.calls] == ["pool_0", "a", "a_1", "a_b"]
    assert set(variables["params"]) == {"a", "a_1", "a_b"}


# What is refused: the head gives features [B, 4], or an image [B, 8, 8, 4].

HEAD = arrays_of(w=(3, 3, 3, 4), v=(3, 3, 4, 4), d=(4, 4), out=(4, 2)) | {
    "shift": np.float32([1, 2, 3, 4])
}


def head(a: Any, x: Any) -> Any:
    return nn.relu(convolve(x / 255, a["w"]))


def tail(a: Any, x: Any) -> Any:
    return x.mean((1, 2)) @ a["out"]


MIDDLE = {
    "tanh": (
        lambda a, x: jnp.tanh(x),
        r"tanh at .*test_tracing.py:\d+.*, behind layer w: the only",
    ),
    "gelu": (lambda a, x: nn.gelu(x), "integer_pow .*the only activation that is read is relu"),
    "relu6": (
        lambda a, x: nn.relu6(x),
        r"min at .*test_tracing\.py:\d+.*only activation that is read is relu",
    ),
    "square": (lambda a, x: x * x, "added, not multiplied with one another"),
    "maximum": (lambda a, x: jnp.maximum(x, 1.0), r"only max\(x, 0\)"),
    "groups": (
        lambda a, x: convolve(x, a["v"][:, :, :2], feature_group_count=2),
        "behind layer w: layer v: .*depthwise ones.*not of 2 groups for 4 outputs",
    ),
    "dilation": (
        lambda a, x: convolve(x, a["v"], rhs_dilation=(2, 2)),
        "layer v: .*neither dilated nor transposed",
    ),
    "crop": (lambda a, x: convolve(x, a["v"], padding=((-1, 0), (0, 0))), r"\(negative padding\)"),
    "channels first": (
        lambda a, x: lax.conv(x, jnp.ones((4, 8, 1, 1)), (1, 1), "SAME"),
        "activations are .B, H, W, C. throughout",
    ),
    "two kernels": (lambda a, x: convolve(x, x[:, ::2, ::2]), "must not depend on the images"),
    "transpose": (lambda a, x: x.transpose(0, 2, 1, 3), "transpose at .*leave their axes"),
    "two filters each": (
        lambda a, x: convolve(x, a["v"][:, :, :1].repeat(2, -1), feature_group_count=4)[..., :4],
        "not of 4 groups for 8 outputs",
    ),
    "rows put together": (lambda a, x: jnp.concatenate([x, x], 1), "along their channels only"),
    "concatenated zeros": (
        lambda a, x: jnp.concatenate([x, jnp.zeros_like(x)], -1)[..., :4],
        "put together with constants; zeros: jnp.pad",
    ),
    "crop of an image": (lambda a, x: x[:, 1:], r"slice at .*x\[:, ::n, ::n\]"),
    "local average": (lambda a, x: nn.avg_pool(x, (2, 2)), "average over the whole image"),
    "mean of rows": (lambda a, x: x - x.mean(1, keepdims=True), "average over the whole image"),
    "batch statistics": (lambda a, x: x - x.mean((0, 1, 2)), "as for inference"),
    "padded max pool": (
        lambda a, x: nn.max_pool(x, (2, 2), (2, 2), ((1, 1), (1, 1))),
        "SAME or VALID only",
    ),
    "padding with ones": (
        lambda a, x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1),
        "zeros only",
    ),
    "padding between": (
        lambda a, x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))),
        "on the outside only",
    ),
    "padding alone": (
        lambda a, x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
        "rows and columns of zeros can only be put around the input of a convolution",
    ),
    "shifted padding": (
        lambda a, x: convolve(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) + 1, a["v"]),
        "zeros around an image were shifted",
    ),
    "shift before SAME": (
        lambda a, x: convolve(x + a["shift"], a["v"]),
        r"layer v \(conv_.*its input was shifted.*move the batch norm",
    ),
    "different pixels": (
        lambda a, x: x * jnp.arange(8.0)[:, None, None],
        "channel to channel only",
    ),
    "gate": (lambda a, x: x * x.mean((1, 2), keepdims=True), "not multiplied"),
    "repeated": (lambda a, x: x + x.mean((1, 2), keepdims=True), r"cannot add \[4, 8, 8, 4\] and"),
    "reshape": (lambda a, x: convolve(x.reshape(4, 4, 16, 4), a["v"]), "neither an image nor flat"),
    "merged images": (lambda a, x: x.reshape(1, -1, 8, 4), "does not count the images"),
    "attention": (lambda a, x: jnp.einsum("bhwc,bhwd->bhcd", x, x), "multiplied with one another"),
    "reversed": (lambda a, x: x[:, ::-1], "rev at .*networks are read that have"),
    "integers": (lambda a, x: x.astype(int), "float32 cannot become int32"),
    "pre-activation": (lambda a, x: nn.relu(0.5 * (x + convolve(x, a["v"]))), "pre-activation"),
    "relu after pool": (
        lambda a, x: nn.relu(-nn.max_pool(convolve(x, a["v"]), (2, 2))),
        "multiplied by 0 or less .* between max pooling and relu: pool last",
    ),
    "layer norm": (lambda a, x: x - x.mean(-1, keepdims=True), "use batch norm"),
    "second relu": (lambda a, x: nn.relu(x - 1), "a relu must follow a convolution"),
    "relu at two scales": (
        lambda a, x: nn.relu(y := convolve(x, a["v"])) + nn.relu(2 * y),
        r"layer v .*used in two ways",
    ),
    "averages put together": (
        lambda a, x: jnp.concatenate([x.mean((1, 2), keepdims=True)] * 2, -1)[..., :4],
        "not what was averaged or dense",
    ),
    "relu or not": (
        lambda a, x: (y := convolve(x, a["v"])) + nn.relu(y),
        r"layer v .*used in two ways",
    ),
    "not or relu": (
        lambda a, x: nn.relu(y := convolve(x, a["v"])) + y,
        r"layer v .*used in two ways",
    ),
    "scaled summand": (
        lambda a, x: 2 * x + convolve(x, a["v"]),
        "summand behind layer w was scaled",
    ),
    "negative pool": (
        lambda a, x: nn.max_pool(-x, (2, 2)),
        "max pooling .*multiplied by a negative",
    ),
    "two scales": (
        lambda a, x: (0 * (y := convolve(x, a["v"])) + x) + y,
        "two different scales, of which one is 0",
    ),
}


@pytest.mark.parametrize(("middle", "message"), MIDDLE.values(), ids=MIDDLE)
def test_refuses_an_operation(middle: Function, message: str) -> None:
    with pytest.raises(QevoError, match=message):
        trace(lambda a, x: tail(a, middle(a, head(a, x))), HEAD, SHAPE)


WHOLE = {
    "softmax": (lambda a, x: nn.softmax(tail(a, head(a, x))), "leave out a softmax"),
    "no logits": (lambda a, x: head(a, x), r"\[4, 8, 8, 4\] .*must be a dense product"),
    "pooled": (lambda a, x: head(a, x).mean((1, 2)), "the last operation must be a dense product"),
    "two results": (lambda a, x: (x, x), "must return logits .* alone"),
    "constant": (lambda a, x: a["out"], "do not depend on the images"),
    "used logits": (
        lambda a, x: (y := head(a, x).mean((1, 2)) @ a["d"]) + nn.relu(y) @ a["d"],
        "the last operation must be",
    ),
    "wrapping": (lambda a, x: tail(a, head(a, x - 128)), "integers would wrap or round"),
    "black": (lambda a, x: tail(a, head(a, x * np.float32([1, 0, 1]))), "multiplied by 0"),
    "sum with images": (
        lambda a, x: (x := x / 255 + (x / 255) @ a["d"][:3, :3]).mean((1, 2)) @ a["d"][:3],
        "residual sum with the images",
    ),
    "channels of images": (
        lambda a, x: (
            jnp.concatenate([x / 255, convolve(x / 255, a["w"])], -1).mean((1, 2))
            @ jnp.ones((7, 2))
        ),
        "images themselves cannot be put together",
    ),
    "weights first": (lambda a, x: (a["d"].T @ head(a, x).mean((1, 2)).T).T, "transpose at"),
    "infinite scale": (lambda a, x: jnp.inf * tail(a, head(a, x)), "scales .* not finite"),
    "not finite": (
        lambda a, x: head(a, x).mean((1, 2)) @ (jnp.nan * a["out"]),
        "logits are not finite",
    ),
    "low precision": (
        lambda a, x: tail(a, head(a, x).astype(jnp.float16) * 1.001),
        "less than float32",
    ),
}


@pytest.mark.parametrize(("network", "message"), WHOLE.values(), ids=WHOLE)
def test_refuses_a_network(network: Function, message: str) -> None:
    with pytest.raises(QevoError, match=message):
        trace(network, HEAD, SHAPE)


def test_refuses_images_without_channels() -> None:
    with pytest.raises(QevoError, match=r"images are \[H, W, C\], not \[8, 8\]"):
        trace(tail, HEAD, (8, 8))  # type: ignore[arg-type]
