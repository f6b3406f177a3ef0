"""Checkpoints of other names and layouts give the network that they were trained as."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax import lax
from safetensors.numpy import save_file

from qevo.errors import QevoError
from qevo.nets import LeNet5, LeNet300, ResNet20
from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics
from qevo.nets.registry import ARCHITECTURES
from qevo.quantize import float_logits, load_resnet_cifar
from qevo.quantize.importing.arrays import read_arrays
from qevo.quantize.importing.naming import fit_arrays

Arrays = dict[str, np.ndarray]
IMAGE = (6, 4, 3)


class Net(nn.Module):
    """One of each: convolutions with batch norm and with bias, a flatten of several pixels."""

    numerics: Numerics = Float()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.max_pool(n.conv(n.input(images), 5, name="first"))
        x = n.conv(x, 4, (3, 1), batch_norm=False, name="second")
        x = n.dense(n.flatten(x), 24, name="hidden")
        x = n.dense(x, 24, name="square")
        return n.logits(x, 3, name="logits")


NET = Net()


def torch_arrays() -> Arrays:
    """As torch's state dict of `Net`, whose first convolution has a bias as well."""
    draw = np.random.RandomState(0)
    arrays: Arrays = {}

    def add(name: str, *shape: int) -> None:
        spread = np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"{name}.weight"] = draw.normal(0, spread, shape)
        arrays[f"{name}.bias"] = draw.normal(0, 0.3, shape[0])

    add("features.0", 5, 3, 3, 3)
    for key, low, high in (
        ("weight", 0.5, 1.0),
        ("bias", -0.5, 0.5),
        ("running_mean", -0.5, 0.5),
        ("running_var", 0.5, 2.0),
    ):
        arrays[f"features.1.{key}"] = draw.uniform(low, high, 5)
    arrays["features.1.num_batches_tracked"] = np.asarray(7)
    add("features.4", 4, 5, 3, 1)
    add("classifier.0", 24, 4 * 3 * 2)
    add("classifier.2", 24, 24)
    add("classifier.10", 3, 24)
    return {n: np.float32(a) if a.dtype == np.float64 else a for n, a in arrays.items()}


def torch_logits(arrays: Arrays, images: np.ndarray) -> np.ndarray:
    """That network, NCHW, without any of qevo's operations."""

    def conv(x: Any, name: str, padding: list[tuple[int, int]]) -> np.ndarray:
        x = lax.conv_general_dilated(np.float32(x), arrays[f"{name}.weight"], (1, 1), padding)
        return np.asarray(x) + arrays[f"{name}.bias"][:, None, None]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    x = conv(images.transpose(0, 3, 1, 2) / 255, "features.0", [(1, 1), (1, 1)])
    keys = ("weight", "bias", "running_mean", "running_var")
    gain, bias, mean, variance = (arrays[f"features.1.{k}"][:, None, None] for k in keys)
    x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gain + bias, 0)
    x = x.reshape(len(x), 5, 3, 2, 2, 2).max((3, 5))
    x = np.maximum(conv(x, "features.4", [(1, 1), (0, 0)]), 0).reshape(len(x), -1)
    x = np.maximum(linear(x, "classifier.0"), 0)
    x = np.maximum(linear(x, "classifier.2"), 0)
    return linear(x, "classifier.10")


def flat(variables: Any) -> Arrays:
    return flatten_dict(variables, sep="/")


def assert_same(found: Any, wanted: Any) -> None:
    found, wanted = flat(found), flat(wanted)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.fixture
def arrays() -> Arrays:
    return torch_arrays()


@pytest.fixture
def variables() -> Any:
    return networks.random_variables(NET, IMAGE)


def test_is_the_network_of_torch(arrays: Arrays) -> None:
    variables = fit_arrays(arrays, NET, IMAGE)
    images = networks.random_images(IMAGE, 8)
    expected = torch_logits(arrays, images)
    np.testing.assert_allclose(float_logits(NET, variables, images), expected, atol=1e-4)
    for value in flat(variables).values():
        assert value.dtype == np.float32
        assert value.flags.c_contiguous


@pytest.mark.parametrize(
    "module", [make() for make in ARCHITECTURES.values()], ids=[*ARCHITECTURES]
)
def test_knows_the_variables_of_every_architecture(module: Any) -> None:
    shape = (28, 28, 1) if "LeNet" in type(module).__name__ else (32, 32, 3)
    wanted = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *shape), np.uint8))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), wanted)
    assert_same(fit_arrays(flat(zeros), module, shape), zeros)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name.replace("/", "."),
        lambda name: name.split("/", 1)[1],
        lambda name: name.split("/", 1)[1].replace("/", "."),
    ],
)
def test_our_names(rename: Any, variables: Any) -> None:
    arrays = {rename(name): value for name, value in flat(variables).items()}
    assert_same(fit_arrays(arrays, NET, IMAGE), variables)


def test_our_layers_with_torch_parts(arrays: Arrays) -> None:
    """As of a torch network whose layers are named as ours are."""
    layers = {
        "features.0": "first",
        "features.1": "first.norm",
        "features.4": "second",
        "classifier.0": "hidden",
        "classifier.2": "square",
        "classifier.10": "logits",
    }
    split = {name: name.rpartition(".") for name in arrays}
    renamed = {f"{layers[layer]}.{part}": arrays[n] for n, (layer, _, part) in split.items()}
    assert_same(fit_arrays(renamed, NET, IMAGE), fit_arrays(arrays, NET, IMAGE))


def test_rules(arrays: Arrays) -> None:
    """For an array or a layer, with any text, of a part of the net, or to leave something out."""
    rules = {
        "features.0": "first",
        "features.1": "params/first/norm",
        "features.4.*": "params.second.*",
        "classifier.0.weight": "params/hidden/kernel",
        "classifier.0.bias": "hidden",
        "classifier.2": "square",
        "classifier.10": "logits",
        "classifier.10.*": "hidden.*",  # comes too late
        "aux*": "",
    }
    wanted = fit_arrays(arrays, NET, IMAGE, "in order")
    arrays |= {"aux.0.weight": np.zeros(3), "auxiliary": np.zeros(3)}
    assert_same(fit_arrays(arrays, NET, IMAGE, rules), wanted)
    assert_same(fit_arrays(arrays, NET, IMAGE, [f"{a} = {b}" for a, b in rules.items()]), wanted)


def test_texts_keep_their_order() -> None:
    module = ResNet20()
    variables = networks.random_variables(module, (32, 32, 3))
    theirs = {}
    for name, value in flat(variables).items():
        collection, block, *rest = name.split("/")
        if rest[0].startswith("conv"):
            _, stage, place = block.split("_")
            name = f"{collection}/s{stage}.unit{place}.{rest[0][-1]}/{'/'.join(rest[1:])}"
        theirs[name] = value
    found = fit_arrays(theirs, module, (32, 32, 3), ["s*.unit*.*/*=block_*_*/conv_*/*"])
    assert_same(found, variables)


def test_in_order_of_the_names(arrays: Arrays, tmp_path: pathlib.Path) -> None:
    """A file that sorts its names has no order of its own; 10 comes after 2 all the same."""
    wanted = fit_arrays(arrays, NET, IMAGE)
    renamed = {name.replace("features", "block"): value for name, value in arrays.items()}
    save_file(renamed, tmp_path / "sorted.safetensors")
    found = read_arrays(tmp_path / "sorted.safetensors")
    assert list(found)[:2] == ["block.1.num_batches_tracked", "block.0.bias"]  # by type, by name
    assert_same(fit_arrays(found, NET, IMAGE), wanted)
    with pytest.raises(QevoError, match="paired in order"):  # "features" after "classifier"
        fit_arrays(dict(sorted(arrays.items())), NET, IMAGE)


def test_in_order_of_flax_names(variables: Any) -> None:
    """As Flax names the layers of a compact module, in its two collections."""
    ours = flat(variables)
    convs = {"first": "Conv_0", "second": "Conv_1"}
    dense = {"hidden": "Dense_0", "square": "Dense_1", "logits": "Dense_2"}
    theirs = {
        name.replace("first/norm", "BatchNorm_0").replace(layer, other): ours[name]
        for layer, other in (convs | dense).items()
        for name in ours
        if f"/{layer}/" in name
    }
    assert_same(fit_arrays(theirs, NET, IMAGE), variables)


def test_layouts() -> None:
    """Shapes decide, then names; with neither the caller must."""
    module, shape = LeNet300(hidden=(12, 12), classes=12), (2, 2, 3)
    variables = networks.random_variables(module, shape)
    ours = flat(variables)
    plain = {name.replace("kernel", "w"): value for name, value in ours.items()}
    rules = ["*/w=*/kernel"]
    with pytest.raises(
        QevoError, match=r'say layout="torch" or "flax" \(3\):\n +params/dense_0/w\n'
    ):
        fit_arrays(plain, module, shape, rules)
    assert_same(fit_arrays(plain, module, shape, rules, layout="flax"), variables)
    found = fit_arrays(plain, module, shape, rules, layout="torch")["params"]
    np.testing.assert_array_equal(found["dense_1"]["kernel"], ours["params/dense_1/kernel"].T)
    rows = ours["params/dense_0/kernel"].T.reshape(3, 2, 2, 12).transpose(1, 2, 0, 3)
    np.testing.assert_array_equal(found["dense_0"]["kernel"], rows.reshape(12, 12))
    weights = {name.replace("kernel", "weight"): value for name, value in ours.items()}
    assert_same(fit_arrays(weights, module, shape), {"params": found})
    assert_same(fit_arrays(ours, module, shape), variables)
    module = LeNet300(hidden=(12, 8), classes=12)
    variables = networks.random_variables(module, shape)
    weights = {name.replace("kernel", "weight"): v for name, v in flat(variables).items()}
    assert_same(fit_arrays(weights, module, shape), variables)
    with pytest.raises(
        QevoError, match=r"weight float32 \[12, 8\], not floats \[8, 12\] for params/"
    ):
        fit_arrays(weights, module, shape, layout="torch")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
def test_types(dtype: Any, variables: Any) -> None:
    narrowed = {name: value.astype(dtype) for name, value in flat(variables).items()}
    wanted = {name: value.astype(np.float32) for name, value in narrowed.items()}
    found = flat(fit_arrays(narrowed, NET, IMAGE))
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_lists_all_that_is_wrong(arrays: Arrays) -> None:
    arrays = {n.replace("classifier.10", "fc"): a for n, a in arrays.items()}
    arrays["features.4.weight"] = arrays["features.4.weight"][0]
    arrays["features.0.bias"] = arrays["features.0.bias"].astype(int)
    arrays["features.4.bias"] = np.full(4, 1e39)
    arrays["head.bias"] = np.zeros(24, np.float32)
    rules = [
        "features.0=first",
        "features.1=first/norm",
        "features.4=second",
        "classifier.0=hidden",
        "classifier.2=square",
        "head=square",
        "neck.*=hidden.*",
        "fc.bias=out/bias",
    ]
    with pytest.raises(QevoError) as caught:
        fit_arrays(arrays, NET, IMAGE, rules, source="some.pt")
    assert str(caught.value).splitlines()[:-3] == [
        "some.pt does not fit Net on images [6, 4, 3]:",
        "  filled twice (1):",
        "    params/square/bias: classifier.2.bias and head.bias",
        "  missing, filled by no array (2):",
        "    params/logits/kernel [24, 3]",
        "    params/logits/bias [3]",
        "  extra, taken by no variable (2):",
        "    fc.weight [3, 24]",
        "    fc.bias [3], by a rule out/bias",
        "  rules that match nothing (1):",
        "    neck.*=hidden.*",
        "  of another shape or type (2):",
        "    features.0.bias int64 [5], not floats [5] for params/first/bias",
        "    features.4.weight float32 [5, 3, 1], not floats [4, 5, 3, 1] for params/second/kernel",
        "  not finite in float32 (1):",
        "    features.4.bias",
    ]
    assert '"fc=logits"' in str(caught.value)


def test_caps_the_lists() -> None:
    with pytest.raises(QevoError) as caught:
        fit_arrays({f"x{i}": np.zeros(3) for i in range(500)}, ResNet20(), (32, 32, 3))
    text = str(caught.value)
    assert "ResNet20 on images [32, 32, 3], paired in order:" in text
    assert "extra, taken by no variable (500):" in text
    assert "    and 492 more" in text
    assert len(text.splitlines()) < 30


def test_another_number_of_classes_is_the_only_problem(arrays: Arrays) -> None:
    arrays["classifier.10.weight"] = np.zeros((7, 24), np.float32)
    with pytest.raises(QevoError, match=r"another shape or type \(1\)") as caught:
        fit_arrays(arrays, NET, IMAGE)
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("in oder", '\'in oder\' is neither a rule "THEIRS=OURS" nor "in order"'),
        (["=first"], "'=first' is neither a rule"),
        (["features.*=conv"], r"must have as many \* on the right as on the left"),
    ],
)
def test_refuses_rules(rules: Any, message: str, arrays: Arrays) -> None:
    with pytest.raises(QevoError, match=message):
        fit_arrays(arrays, NET, IMAGE, rules)


def test_a_torch_module() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 16, 5),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(400, 120),
        torch.nn.ReLU(),
        torch.nn.Linear(120, 84),
        torch.nn.ReLU(),
        torch.nn.Linear(84, 10),
    )
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    images = networks.random_images((28, 28, 1), 4)
    with torch.no_grad():
        expected = net(torch.tensor(images.transpose(0, 3, 1, 2) / 255, dtype=torch.float32))
    found = float_logits(LeNet5(), fit_arrays(arrays, LeNet5(), (28, 28, 1)), images)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.data
@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet20_cifar10_f32.npz"])
def test_published_weights(file: str) -> None:
    folder = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "resnet_cifar10"
    module, wanted = load_resnet_cifar(folder / "resnet20_cifar10_f32.npz")
    assert_same(fit_arrays(read_arrays(folder / file), module, (32, 32, 3)), wanted)
    rules = {
        f"layer{i + 1}.*.{kind}{k + 1}": f"block_{i}_*/conv_{k}"
        for i in range(3)
        for k in range(2)
        for kind in ("conv", "bn")
    }
    rules |= {"conv1": "stem", "bn1": "stem", "linear": "logits"}
    assert_same(fit_arrays(read_arrays(folder / file), module, (32, 32, 3), rules), wanted)
