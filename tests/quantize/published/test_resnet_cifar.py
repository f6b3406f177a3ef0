"""The CIFAR-10 ResNets, against a plain forward pass over the torch names."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from networks import random_images

from qevo import nets
from qevo.data import load
from qevo.errors import QevoError
from qevo.nets import IMAGENET_PIXELS, Float, ResNet20, ResNet32, ResNet56
from qevo.quantize import float_logits, load_resnet_cifar, quantize_network
from qevo.quantize.rounding import round_max_abs

Arrays = dict[str, np.ndarray]
SHAPE = (32, 32, 3)


def published(depth: int) -> pathlib.Path:
    folder = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "resnet_cifar10"
    return folder / f"resnet{depth}_cifar10_f32.npz"


def random_arrays(blocks: int) -> Arrays:
    """A network of random weights in torch's names and layouts."""
    draw = np.random.RandomState(0)
    arrays: Arrays = {}

    def add(conv: str, norm: str, features: int, inputs: int) -> None:
        spread = np.sqrt(2 / (9 * inputs))
        arrays[f"{conv}.weight"] = draw.normal(0, spread, (features, inputs, 3, 3))
        for key, low, high in (
            ("weight", 0.5, 1.0),
            ("bias", -0.5, 0.5),
            ("running_mean", -0.5, 0.5),
            ("running_var", 0.5, 2.0),
        ):
            arrays[f"{norm}.{key}"] = draw.uniform(low, high, features)

    add("conv1", "bn1", 16, 3)
    inputs = 16
    for stage, features in ((1, 16), (2, 32), (3, 64)):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            add(f"{name}.conv1", f"{name}.bn1", features, inputs)
            add(f"{name}.conv2", f"{name}.bn2", features, features)
            inputs = features
    arrays["linear.weight"] = draw.normal(0, 0.2, (10, 64))
    arrays["linear.bias"] = draw.normal(0, 0.2, 10)
    return {name: np.float32(value) for name, value in arrays.items()}


def torch_logits(arrays: Arrays, images: np.ndarray) -> np.ndarray:
    """The published network, NCHW, without any of qevo's operations."""

    def conv(x: Any, name: str, norm: str, stride: int = 1) -> np.ndarray:
        kernel = arrays[f"{name}.weight"]
        x = lax.conv_general_dilated(np.float32(x), kernel, (stride, stride), [(1, 1), (1, 1)])
        keys = ("weight", "bias", "running_mean", "running_var")
        gain, bias, mean, variance = (arrays[f"{norm}.{k}"][:, None, None] for k in keys)
        return (np.asarray(x) - mean) / np.sqrt(variance + 1e-5) * gain + bias

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    x = np.maximum(conv(x, "conv1", "bn1"), 0)
    blocks = [name[: -len(".conv1.weight")] for name in arrays if name.endswith(".conv1.weight")]
    for block in blocks:
        stride = 2 if block in ("layer2.0", "layer3.0") else 1
        y = np.maximum(conv(x, f"{block}.conv1", f"{block}.bn1", stride), 0)
        y = conv(y, f"{block}.conv2", f"{block}.bn2")
        if stride == 2:
            quarter = y.shape[1] // 4
            x = np.pad(x[:, :, ::2, ::2], ((0, 0), (quarter, quarter), (0, 0), (0, 0)))
        x = np.maximum(x + y, 0)
    return x.mean((2, 3)) @ arrays["linear.weight"].T + arrays["linear.bias"]


@pytest.fixture
def arrays() -> Arrays:
    return random_arrays(3)


@pytest.mark.parametrize(("blocks", "made"), [(3, ResNet20), (5, ResNet32), (9, ResNet56)])
def test_is_the_network_of_the_torch_names(blocks: int, made: Any, tmp_path: pathlib.Path) -> None:
    arrays = random_arrays(blocks)
    np.savez(tmp_path / "weights.npz", **arrays, **{"bn1.num_batches_tracked": np.asarray(7)})
    module, variables = load_resnet_cifar(tmp_path / "weights.npz")
    assert module == made(Float(scaling=IMAGENET_PIXELS))
    wanted = jax.eval_shape(module.init, jax.random.key(0), random_images(SHAPE, 1))
    assert jax.tree.map(lambda a: a.shape, variables) == jax.tree.map(lambda a: a.shape, wanted)
    expected = torch_logits(arrays, random_images(SHAPE, 4))
    found = float_logits(module, variables, random_images(SHAPE, 4))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.data
def test_published_accuracy() -> None:
    """On 2,000 images; on all 10,000 the slow test has the published figures."""
    module, variables = load_resnet_cifar(published(20))
    test = load("cifar10").test
    logits = float_logits(module, variables, test.images[:2000])
    assert (logits.argmax(-1) == test.labels[:2000]).mean() == pytest.approx(0.9165, abs=0.001)
    with np.load(published(20)) as archive:
        expected = torch_logits(dict(archive), test.images[:16])
    np.testing.assert_allclose(logits[:16], expected, atol=1e-3)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("depth", "accuracy"), [(20, 0.9173), (56, 0.9339)])
def test_published_accuracy_on_the_whole_test_set(depth: int, accuracy: float) -> None:
    module, variables = load_resnet_cifar(published(depth))
    test = load("cifar10").test
    found = (float_logits(module, variables, test.images).argmax(-1) == test.labels).mean()
    assert found == pytest.approx(accuracy, abs=0.0002)


@pytest.mark.data
@pytest.mark.parametrize(
    ("bits", "method"),
    [(8, "nearest"), ("ternary", round_max_abs)],
)
def test_in_integers(bits: Any, method: Any, tmp_path: pathlib.Path) -> None:
    module, variables = load_resnet_cifar(published(20))
    data = load("cifar10")
    network = quantize_network(
        module, variables, data.search.images[:200], bits=bits, method=method
    )
    images, labels = data.test.images[:200], data.test.labels[:200]
    logits = network(images, arithmetic="int")
    np.testing.assert_array_equal(network(images, arithmetic="fast"), logits)
    network.save(tmp_path / "network")
    np.testing.assert_array_equal(nets.load_safetensors(tmp_path / "network")(images), logits)
    if bits == 8:
        real = float_logits(module, variables, images).argmax(-1)
        assert (logits.argmax(-1) == real).mean() > 0.97
        assert (logits.argmax(-1) == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.1.bn2.running_var": None}, "no array 'layer2.1.bn2.running_var' of a ResNet"),
        ({"linear.bias": None}, "no array 'linear.bias'"),
        ({"layer2.0.shortcut.0.weight": np.zeros(3)}, "array 'layer2.0.shortcut.0.weight' is none"),
        (
            {"conv1.weight": np.zeros((3, 3, 3, 16), np.float32)},
            r"conv1.weight must be floats \[16, 3, 3, 3\], not float32 \[3, 3, 3, 16\]",
        ),
        ({"bn1.bias": np.zeros(16, np.int32)}, r"bn1.bias must be floats \[16\], not int32"),
        ({"bn1.bias": np.full(16, np.nan)}, "bn1.bias holds values that are not finite"),
        ({"layer1.3.conv1.weight": np.zeros(3)}, "3, 5 or 9 blocks layer1.i; found 4"),
    ],
)
def test_refuses(arrays: Arrays, tmp_path: pathlib.Path, change: Any, message: str) -> None:
    changed = {k: v for k, v in {**arrays, **change}.items() if v is not None}
    np.savez(tmp_path / "weights.npz", **changed)
    with pytest.raises(QevoError, match=rf"weights\.npz: .*{message}"):
        load_resnet_cifar(tmp_path / "weights.npz")


def test_refuses_a_bare_array(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "weights.npy", np.zeros(3))
    with pytest.raises(QevoError, match=r"weights\.npy: not a readable npz"):
        load_resnet_cifar(tmp_path / "weights.npy")
    with pytest.raises(QevoError, match="no such file"):
        load_resnet_cifar(tmp_path / "none.npz")
