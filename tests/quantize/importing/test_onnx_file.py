"""Float weights from ONNX models: where their data lies, their names, and what is refused."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from flax import linen as nn
from networks import random_images
from onnx import TensorProto, helper, numpy_helper

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics
from qevo.quantize import float_logits
from qevo.quantize.importing import checkpoint_files, fit_arrays, read_arrays
from qevo.run import RefineConfig
from qevo.run.own import own_network, refine_data

RAMP = np.arange(24, dtype=np.float32).reshape(2, 12)
IMAGE = (6, 4, 3)


def model(
    initializers: list[Any], nodes: list[Any] | None = None, producer: str = "pytorch"
) -> onnx.ModelProto:
    """A model of nothing but these; `onnx.checker` would miss its inputs."""
    graph = helper.make_graph(nodes or [], "graph", [], [], initializers)
    return helper.make_model(graph, producer_name=producer)


def tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def lying(name: str, shape: tuple[int, ...], **where: object) -> onnx.TensorProto:
    """A float32 tensor whose data lies elsewhere."""
    found = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    found.data_location = TensorProto.EXTERNAL
    for key, value in where.items():
        found.external_data.add(key=key, value=str(value))
    return found


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "net.onnx"


def write(path: pathlib.Path, *initializers: Any, **options: Any) -> pathlib.Path:
    path.write_bytes(model(list(initializers), **options).SerializeToString())
    return path


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, jnp.bfloat16),
        (TensorProto.DOUBLE, np.float64),
    ],
)
def test_every_float_type_in_both_fields(
    kind: int, dtype: Any, raw: bool, path: pathlib.Path
) -> None:
    values = (RAMP / 8 - 1).astype(dtype)
    data = values.tobytes() if raw else values.reshape(-1).tolist()
    write(
        path,
        helper.make_tensor("x", kind, values.shape, data, raw=raw),
        tensor("shape", np.array([2, 12])),
    )
    found = read_arrays(path)
    assert list(found) == ["x"]  # without the int64
    assert found["x"].dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(found["x"], values.astype(np.float64))
    assert found["x"].flags.writeable


def test_data_beside_the_model(path: pathlib.Path) -> None:
    (path.parent / "data").mkdir()
    arrays = {"a.weight": RAMP, "b.weight": -RAMP[:1], "c.bias": RAMP[0]}
    initializers = [tensor(name, array) for name, array in arrays.items()]
    for initializer in initializers[:2]:
        onnx.external_data_helper.set_external_data(initializer, location="data/net.bin")
    onnx.save_model(model(initializers), path)
    assert (path.parent / "data" / "net.bin").stat().st_size >= RAMP.nbytes
    found = read_arrays(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert checkpoint_files(path) == [path, path.parent / "data" / "net.bin"]
    np.savez(path.with_suffix(".npz"), x=RAMP)
    assert checkpoint_files(path.with_suffix(".npz")) == [path.with_suffix(".npz")]


def test_torch_names_come_back(path: pathlib.Path) -> None:
    """As torch 2.14 writes a folded batch norm, a linear layer without bias, and one that is used
    before others that the file has first."""
    arrays = {
        "out.weight": RAMP[:, :5],
        "out.bias": RAMP[0, :2],
        "scale": np.float32(3),
        "onnx::Conv_22": RAMP.reshape(4, 3, 2, 1),
        "onnx::Conv_23": RAMP[0, :4],
        "onnx::MatMul_24": RAMP[:, :4].T,
        "free": RAMP,
    }
    nodes = [
        helper.make_node(
            "Conv",
            ["images", "onnx::Conv_22", "onnx::Conv_23"],
            ["1"],
            "/layer1/layer1.0/downsample/downsample.0/Conv",
        ),
        helper.make_node("MatMul", ["1", "onnx::MatMul_24"], ["2"], "/fc/MatMul"),
        helper.make_node("Mul", ["2", "scale"], ["3"], "/Mul"),
        helper.make_node("Gemm", ["3", "out.weight", "out.bias"], ["4"], "/out/Gemm", transB=1),
    ]
    initializers = [tensor(name, array) for name, array in arrays.items()]
    found = read_arrays(write(path, *initializers, nodes=nodes))
    conv = "layer1.0.downsample.0"
    assert list(found) == [
        f"{conv}.weight",
        f"{conv}.bias",
        "fc.weight",
        "scale",
        "out.weight",
        "out.bias",
        "free",
    ]
    np.testing.assert_array_equal(found[f"{conv}.weight"], arrays["onnx::Conv_22"])
    np.testing.assert_array_equal(found["fc.weight"], RAMP[:, :4])
    np.testing.assert_array_equal(found["out.weight"], RAMP[:, :5])
    # Of another exporter the scopes mean nothing, and a product is as it says.
    found = read_arrays(write(path, *initializers, nodes=nodes, producer="tf2onnx"))
    assert list(found)[:3] == [
        "onnx::Conv_22.weight",
        "onnx::Conv_22.bias",
        "onnx::MatMul_24.weight",
    ]
    np.testing.assert_array_equal(found["onnx::MatMul_24.weight"], RAMP[:, :4].T)


def test_scopes_with_several_products_are_no_layers(path: pathlib.Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["y"], "/block/MatMul"),
        helper.make_node("MatMul", ["y", "b"], ["z"], "/block/MatMul_1"),
    ]
    assert list(read_arrays(write(path, tensor("b", RAMP), tensor("a", RAMP), nodes=nodes))) == [
        "a",
        "b",
    ]


class Folded(nn.Module):
    """A convolution and a dense layer, with or without batch norm."""

    numerics: Numerics = Float()
    batch_norm: bool = False

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), 5, batch_norm=self.batch_norm, name="first")
        return n.logits(n.flatten(x), 3, name="logits")


def folded_model() -> onnx.ModelProto:
    """What torch exports of `Folded` with batch norm, complete, of images NCHW in 0..1."""
    draw = np.random.RandomState(0)
    values = {
        "fc.weight": draw.normal(0, 0.1, (3, 5 * 6 * 4)),
        "fc.bias": draw.normal(size=3),
        "onnx::Conv_7": draw.normal(0, 0.3, (5, 3, 3, 3)),
        "onnx::Conv_8": draw.normal(size=5),
    }
    nodes = [
        helper.make_node(
            "Conv", ["x", "onnx::Conv_7", "onnx::Conv_8"], ["1"], "/conv/Conv", pads=[1] * 4
        ),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("Flatten", ["2"], ["3"]),
        helper.make_node("Gemm", ["3", "fc.weight", "fc.bias"], ["y"], "/fc/Gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 6, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 3])],
        [tensor(name, value.astype(np.float32)) for name, value in values.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, producer_name="pytorch", opset_imports=[opset], ir_version=10)


@pytest.mark.parametrize("names", [["conv=first", "fc=logits"], "in order"])
def test_is_the_network_that_onnxruntime_runs(names: Any, path: pathlib.Path) -> None:
    path.write_bytes(folded_model().SerializeToString())
    images = random_images(IMAGE, 8)
    variables = fit_arrays(read_arrays(path), Folded(), IMAGE, names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    expected = session.run(None, {"x": pixels})[0]
    np.testing.assert_allclose(float_logits(Folded(), variables, images), expected, atol=1e-4)


def test_a_folded_batch_norm_is_explained(path: pathlib.Path) -> None:
    path.write_bytes(folded_model().SerializeToString())
    with pytest.raises(QevoError, match=r"norm/var(?s:.)*has folded(?s:.)*batch_norm=False fits"):
        fit_arrays(read_arrays(path), Folded(batch_norm=True), IMAGE, "in order")
    with pytest.raises(QevoError) as other:  # nothing of the kind where names are wrong
        fit_arrays(read_arrays(path), Folded(), IMAGE, ["conv=second", "fc=logits"])
    assert "folded" not in str(other.value)


def test_refine_reads_it(tmp_path: pathlib.Path) -> None:
    draw = np.random.RandomState(0)
    shapes = {"dense_0": (24, 64), "logits": (3, 24)}
    initializers = []
    for name, shape in shapes.items():
        weight, bias = draw.normal(0, 0.2, shape), draw.normal(size=shape[0])
        initializers += [
            tensor(f"{name}.weight", weight.astype(np.float16)),
            tensor(f"{name}.bias", bias.astype(np.float32)),
        ]
    path = write(tmp_path / "net.onnx", *initializers)
    source = "from qevo.nets import LeNet300\nnet = LeNet300(hidden=(24,), classes=3)\n"
    (tmp_path / "net.py").write_text(source)
    config = RefineConfig(
        network=f"{tmp_path / 'net.py'}:net",
        checkpoint=path,
        data=str(tiny.write_blobs(tmp_path / "blobs.npz")),
        calibration=60,
        held_out=30,
    )
    data = refine_data(config)
    module, variables = own_network(config, data)
    images = data.test.images[:5]
    weights = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in initializers}
    x = images.reshape(5, -1) / np.float32(255)
    x = np.maximum(x @ weights["dense_0.weight"].T + weights["dense_0.bias"], 0)
    expected = x @ weights["logits.weight"].T + weights["logits.bias"]
    np.testing.assert_allclose(module.apply(variables, images), expected, rtol=1e-4, atol=1e-4)


def test_every_shortened_model_is_refused(path: pathlib.Path) -> None:
    whole = write(path, tensor("x", RAMP)).read_bytes()
    np.testing.assert_array_equal(read_arrays(path)["x"], RAMP)
    graph_ends = whole.rindex(RAMP.tobytes()) + RAMP.nbytes
    for length in range(1, graph_ends, 5):
        path.write_bytes(whole[:length])
        with pytest.raises(
            QevoError, match=r"net\.onnx: (not a readable .*cut short|an ONNX model without float)"
        ):
            read_arrays(path)


HUGE = (1 << 40, 1 << 40)


@pytest.mark.parametrize(
    ("initializers", "message"),
    [
        ([], "without float initializers"),
        ([tensor("shape", np.array([3]))], "without float initializers"),
        ([tensor("x", RAMP), tensor("x", RAMP)], "two initializers called x"),
        (
            [tensor("x", RAMP), tensor("w", RAMP.astype(np.int8))],
            r"no floats: w \[2, 12\] has type INT8; refine",
        ),
        (
            [helper.make_tensor("w", TensorProto.UINT4, (2, 2), [1, 2, 3, 4])],
            r"w \[2, 2\] has type UINT4",
        ),
        (
            [TensorProto(name="w", data_type=1, dims=HUGE, raw_data=bytes(8))],
            r"w \[1099511627776, 1099511627776\] should have 1,2.* elements, and 2 are",
        ),
        ([TensorProto(name="w", data_type=1, dims=HUGE, float_data=[1, 2])], "and 2 are there"),
        ([TensorProto(name="w", data_type=1, dims=(2, -1), raw_data=bytes(8))], r"shape \[2, -1\]"),
        ([TensorProto(name="w", data_type=1, dims=(-2, -1), raw_data=bytes(8))], "shape"),
        ([TensorProto(name="w", data_type=1, dims=(2,))], "should have 2 elements, and 0 are"),
        ([lying("w", (2,), location="../../etc/passwd")], r"'../../etc/passwd', outside the model"),
        ([lying("w", (2,), location="/etc/passwd")], r"'/etc/passwd', outside the model"),
        ([lying("w", (2,), location="link")], "'link', outside the model's folder"),
        ([lying("w", (2,))], "does not say which file"),
        ([lying("w", (2,), location="nothing.bin")], "nothing.bin, which does not exist"),
        (
            [lying("w", (9, 9), location="data.bin")],
            r"w \[9, 9\] should be 324 bytes, .* the 96 in",
        ),
        ([lying("w", HUGE, location="data.bin")], "should be 4,835.* of the 96 in"),
        ([lying("w", (2,), location="data.bin", offset=-8)], "said to be 8 at -8 of the 96"),
        ([lying("w", (2,), location="data.bin", length=96)], "said to be 96 at 0 of the 96"),
        ([lying("w", (2,), location="data.bin", offset=92)], "said to be 8 at 92 of the 96"),
        ([lying("w", (2,), location="data.bin", offset="x")], "no numbers for its place"),
    ],
)
def test_hostile_models(initializers: Any, message: str, path: pathlib.Path) -> None:
    (path.parent / "data.bin").write_bytes(RAMP.tobytes())
    (path.parent / "link").symlink_to("/etc/passwd")
    with pytest.raises(QevoError, match=rf"net\.onnx: .*{message}"):
        read_arrays(write(path, *initializers))


def test_other_files_called_onnx(path: pathlib.Path) -> None:
    path.write_text("this is no model")
    with pytest.raises(QevoError, match="not a readable npz, safetensors, torch or ONNX file"):
        read_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(QevoError, match="but empty"):
        read_arrays(path)
    other = path.with_suffix(".weights")  # told by its content
    np.testing.assert_array_equal(read_arrays(write(other, tensor("x", RAMP)))["x"], RAMP)


def test_says_what_to_install(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, tensor("x", RAMP))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(QevoError, match=r"net\.onnx: .*pip install -e '\.\[export\]'"):
        read_arrays(path)
