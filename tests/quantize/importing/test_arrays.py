"""Checkpoint files of all formats; torch's are built by hand, and by torch where it is there."""

from __future__ import annotations

import collections
import io
import json
import os
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qevo.errors import QevoError
from qevo.quantize.importing.arrays import read_arrays

RAMP = np.arange(24, dtype=np.float32)


class Global(NamedTuple):
    """A name that a pickle imports."""

    module: str
    name: str


class Call(NamedTuple):
    function: Any
    arguments: tuple[Any, ...]
    state: Any = None


class Stored(NamedTuple):
    """A persistent id."""

    pid: tuple[Any, ...]


def pickled(value: Any) -> bytes:
    """A pickle, also of what cannot be imported here."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value: Any) -> bytes:
    if isinstance(value, Global):
        return b"c" + f"{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        made = opcodes(value.function) + opcodes(tuple(value.arguments)) + b"R"
        return made if value.state is None else made + opcodes(value.state) + b"b"
    if isinstance(value, Stored):
        return opcodes(tuple(value.pid)) + b"Q"
    if isinstance(value, dict):
        items = b"".join(opcodes(part) for pair in value.items() for part in pair)
        return b"}(" + items + b"u"
    if isinstance(value, (tuple, list)):
        items = b"".join(map(opcodes, value))
        return b"(" + items + b"t" if isinstance(value, tuple) else b"](" + items + b"e"
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    key: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    *,
    offset: int = 0,
    kind: str = "Float",
    count: int = RAMP.size,
    rebuild: str = "_rebuild_tensor_v2",
) -> Call:
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    storage = Stored(("storage", Global("torch", f"{kind}Storage"), key, "cpu", count))
    hooks = Call(Global("collections", "OrderedDict"), ())
    rest = (False, hooks) if rebuild == "_rebuild_tensor_v2" else ()
    function = Global("torch._utils", rebuild)
    return Call(function, (storage, offset, shape, strides, *rest))


def write_zip(path: pathlib.Path, content: Any, storages: dict[str, Any], **more: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(content))
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.tobytes())
        for name, value in {"version": b"3\n", **more}.items():
            archive.writestr(f"archive/{name}", value)


def write_legacy(path: pathlib.Path, content: Any, storages: dict[str, Any]) -> None:
    """The format before torch 1.6."""
    pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, list(storages)]
    with path.open("wb") as file:
        for value in pickles:
            file.write(pickled(value))
        for storage in storages.values():
            file.write(struct.pack("<q", storage.size) + storage.tobytes())


WRITERS = {"zip": write_zip, "legacy": write_legacy}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "some.weights"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("arrays") / "some.weights"


@st.composite
def views(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A storage and an array that views it: sliced, transposed, broadcast."""
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    storage = np.arange(np.prod(shape, dtype=int), dtype=np.float32)
    view = storage.reshape(shape)
    for axis, size in enumerate(shape):
        start, step = draw(st.integers(0, size)), draw(st.integers(1, 2))
        view = view[(slice(None),) * axis + (slice(start, None, step),)]
    view = view.transpose(draw(st.permutations(range(view.ndim))))
    if draw(st.booleans()):
        view = np.broadcast_to(view, (2, *view.shape))
    return storage, view


@pytest.mark.parametrize("form", WRITERS)
@given(pair=views())
@settings(max_examples=60)
def test_views_of_a_storage(form: str, scratch: pathlib.Path, pair: Any) -> None:
    storage, view = pair
    offset = view.__array_interface__["data"][0] - storage.__array_interface__["data"][0]
    strides = tuple(step // 4 for step in view.strides)
    stored = tensor("7", view.shape, strides, offset=offset // 4, count=storage.size)
    WRITERS[form](scratch, {"x": stored}, {"7": storage})
    found = read_arrays(scratch)["x"]
    np.testing.assert_array_equal(found, view)
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Double", np.float64),
        ("Half", np.float16),
        ("BFloat16", jnp.bfloat16),
        ("Long", np.int64),
        ("Int", np.int32),
        ("Short", np.int16),
        ("Char", np.int8),
        ("Byte", np.uint8),
        ("Bool", np.bool_),
    ],
)
def test_torch_types(kind: str, dtype: Any, path: pathlib.Path) -> None:
    values = RAMP.astype(dtype)
    write_zip(
        path, {"x": tensor("0", (24,), kind=kind), "y": tensor("0", (), kind=kind)}, {"0": values}
    )
    found = read_arrays(path)
    narrow = dtype in (np.float16, jnp.bfloat16)
    assert found["x"].dtype == found["y"].dtype == (np.float32 if narrow else dtype)
    np.testing.assert_array_equal(found["x"], np.float32(values))
    assert found["y"].shape == ()


@pytest.mark.parametrize("form", WRITERS)
def test_a_whole_checkpoint_of_a_training(form: str, path: pathlib.Path) -> None:
    """Nested, wrapped, with shared storages and with what is no tensor."""
    scalar = Call(
        Global("numpy._core.multiarray", "scalar"),
        (
            Call(
                Global("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0)
            ),
            Call(Global("_codecs", "encode"), ("\0\0\0\0\0\0\xf0?", "latin1")),
        ),
    )
    weights = {
        "module.b.weight": tensor("a", (4, 3), (1, 4)),
        "module.a.weight": Call(
            Global("torch._utils", "_rebuild_parameter"),
            (tensor("a", (2,), offset=5, rebuild="_rebuild_tensor"), True, {}),
        ),
        "module.b.extra_state": None,
    }
    state_dict = Call(
        Global("collections", "OrderedDict"), (list(weights.items()),), {"_metadata": {}}
    )
    content = {
        "epoch": 3,
        "best": scalar,
        "args": Call(Global("argparse", "Namespace"), (), {"lr": 0.1}),
        "milestones": Call(Global("collections", "Counter"), ({30: 1},)),
        "optimizer": {"state": {0: {"step": tensor("a", ())}}, "seen": {1, 2}},
        "state_dict": state_dict,
    }
    WRITERS[form](path, {"model": content}, {"a": RAMP})
    found = read_arrays(path)
    assert list(found) == ["b.weight", "a.weight"]  # the order of the file
    np.testing.assert_array_equal(found["b.weight"], RAMP[:12].reshape(3, 4).T)
    np.testing.assert_array_equal(found["a.weight"], [5, 6])


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_nested_state_dicts(key: str, path: pathlib.Path) -> None:
    write_zip(path, {"x": tensor("0", ()), key: {"y": tensor("0", ())}}, {"0": RAMP})
    assert list(read_arrays(path)) == ["y"]


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["_orig_mod.module.a"], ["a"]),
        (["module._orig_mod.a"], ["a"]),
        (["module.a", "b"], ["module.a", "b"]),
    ],
)
def test_prefixes_of_wrappers(names: list[str], left: list[str], path: pathlib.Path) -> None:
    np.savez(path.with_suffix(".npz"), **dict.fromkeys(names, RAMP))
    assert list(read_arrays(path.with_suffix(".npz"))) == left


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Call(Global("posix", "system"), ("touch {}",)), "posix.system"),
        (Call(Global("os", "system"), ("touch {}",)), "os.system"),
        (Call(Global("builtins", "eval"), ("open('{}', 'w')",)), "builtins.eval"),
        (Call(Global("builtins", "getattr"), ("", "x")), "builtins.getattr"),
        (Call(Global("models", "ResNet"), ()), "models.ResNet"),
        (
            Call(Global("torch.storage", "_load_from_bytes"), (b"",)),
            "torch.storage._load_from_bytes",
        ),
        (Global("torch", "load"), "torch.load"),
    ],
)
@pytest.mark.parametrize("form", WRITERS)
def test_runs_nothing(form: str, wanted: Any, name: str, path: pathlib.Path) -> None:
    touched = path.parent / "touched"
    if isinstance(wanted, Call):
        arguments = [a.format(touched) if isinstance(a, str) else a for a in wanted.arguments]
        wanted = Call(wanted.function, tuple(arguments))
    WRITERS[form](path, {"x": tensor("0", (2,)), "y": wanted}, {"0": RAMP})
    with pytest.raises(QevoError, match=rf"some\.weights: refused.* wants {name},.*state_dict"):
        read_arrays(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "kept",
    [
        Global("argparse", "Namespace"),
        Global("collections", "OrderedDict"),
        Global("builtins", "set"),
    ],
)
def test_a_pickle_changes_no_type(kept: Global, path: pathlib.Path) -> None:
    """A state is set on the instances that a pickle makes, never on what they are made by."""
    for state in (None, {"get": 1}), ({"get": 1}, None):
        content = opcodes(kept) + opcodes(state) + b"b"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        with pytest.raises(QevoError, match="not a readable"):
            read_arrays(path)
    assert collections.OrderedDict(a=1).get("a") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": tensor("0", (5, 5))}, r"tensor of \[5, 5\] leaves its storage of 24"),
        ({"x": tensor("0", (2,), offset=23)}, "leaves its storage"),
        ({"x": tensor("0", (2,), offset=-1)}, "leaves its storage"),
        ({"x": tensor("0", (2,), (-1,), offset=5)}, "leaves its storage"),
        ({"x": tensor("0", (2,), (1, 1))}, "not a readable"),
        ({"x": tensor("0", (40,), count=40)}, "not a readable .*cut short"),
        ({"x": tensor("1", (2,))}, "not a readable"),
        ({"x": tensor("0", (2,), kind="ComplexFloat")}, "wants torch.ComplexFloatStorage"),
        ({"x": 3, "encoder": {"y": 3}}, r"without a state dict of tensors: a dict of \['x', 'enc"),
        ([tensor("0", (2,))], "without a state dict of tensors: a list;"),
        (Stored(("module", "x", "y", "z", 1)), "holds more than plain storages"),
        (Stored(("storage", "x", "0", "cpu", 4, ("1", 0, 2))), "holds more than plain storages"),
        (Call(Global("torch._utils", "_rebuild_tensor"), ("x", 0, (), ())), "without a storage"),
    ],
)
def test_refuses_other_torch_files(content: Any, message: str, path: pathlib.Path) -> None:
    write_zip(path, content, {"0": RAMP})
    with pytest.raises(QevoError, match=rf"some\.weights: .*{message}"):
        read_arrays(path)


def test_refuses_big_endian_torch(path: pathlib.Path) -> None:
    write_zip(path, {"x": tensor("0", ())}, {"0": RAMP}, byteorder=b"big")
    with pytest.raises(QevoError, match="big-endian"):
        read_arrays(path)


def safetensors(entries: dict[str, tuple[str, np.ndarray]]) -> bytes:
    header, data = {}, b""
    for name, (dtype, array) in entries.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors(path: pathlib.Path) -> None:
    types = {
        "BF16": jnp.bfloat16,
        "F16": np.float16,
        "F32": np.float32,
        "F64": np.float64,
        "I64": np.int64,
        "BOOL": np.bool_,
    }
    arrays = {kind: RAMP.reshape(2, 12).astype(dtype) for kind, dtype in types.items()}
    path.write_bytes(safetensors({kind: (kind, array) for kind, array in arrays.items()}))
    found = read_arrays(path)
    assert list(found) == list(types)
    for kind, array in arrays.items():
        assert found[kind].dtype == (np.float32 if kind in ("BF16", "F16") else array.dtype)
        np.testing.assert_array_equal(found[kind], np.float32(array))
    path.write_bytes(safetensors({"x": ("F8_E5M2", np.zeros(3, np.uint8))}))
    with pytest.raises(QevoError, match=r"some\.weights: x is F8_E5M2; qevo reads F64, F32"):
        read_arrays(path)


def test_npz(path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, half=RAMP.astype(np.float16), count=np.int64(3))
    path.write_bytes(buffer.getvalue())
    found = read_arrays(path)
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        "half": (np.float32, (24,)),
        "count": (np.int64, ()),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "but empty"),
        (b"text", "but another format"),
        (b"\x93NUMPY\x01\0", "but one array without a name"),
        (b"\x89HDF\r\n", "but HDF5"),
        (pickle.dumps({"x": RAMP}), "but a pickle, but not torch's"),
    ],
)
def test_refuses_other_formats(content: bytes, message: str, path: pathlib.Path) -> None:
    path.write_bytes(content)
    with pytest.raises(
        QevoError,
        match=rf"some\.weights: not a readable npz, safetensors, torch or ONNX file, {message}",
    ):
        read_arrays(path)
    with pytest.raises(QevoError, match="no such file"):
        read_arrays(path.parent)


def test_refuses_other_archives(path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(QevoError, match=r"a zip archive with 'word/document.xml', no array"):
        read_arrays(path)
    np.savez(path.with_suffix(".npz"), x=np.array([{}], object))
    with pytest.raises(QevoError, match="Object arrays cannot be loaded"):
        read_arrays(path.with_suffix(".npz"))


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "npz"])
def test_refuses_every_part_of_a_file(form: str, path: pathlib.Path) -> None:
    if form == "safetensors":
        save_file({"x": RAMP}, path)
    elif form == "npz":
        np.savez(path.with_suffix(".npz"), x=RAMP)
        path = path.with_suffix(".npz")
    else:
        WRITERS[form](path, {"x": tensor("0", (24,))}, {"0": RAMP})
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_arrays(path)["x"], RAMP)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(QevoError, match="not a readable"):
            read_arrays(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes(zipped: bool, path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2)
    )
    weights = net.state_dict()
    weights["transposed"] = weights["2.weight"].T
    weights["sliced"] = weights["0.weight"][1:, :, ::2]
    weights["half"] = weights["0.bias"].half()
    weights["brain"] = weights["0.bias"].bfloat16()
    weights["parameter"] = net[0].bias
    weights["none"] = torch.empty(0)
    optimizer = torch.optim.SGD(net.parameters(), 0.1).state_dict()
    content = {"state_dict": weights, "optimizer": optimizer, "accuracy": np.float64(0.9)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_arrays(path)
    assert list(found) == list(weights)
    for name, value in weights.items():
        if value.is_floating_point():
            value = value.float()
        np.testing.assert_array_equal(found[name], value.detach().numpy(), strict=True)
    torch.save(net, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(QevoError, match=r"refused, since its pickle wants torch\.nn"):
        read_arrays(path)


@pytest.mark.data
def test_a_published_torch_file() -> None:
    folder = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "resnet_cifar10"
    found = read_arrays(folder / "resnet20-12fca82f.th")
    wanted = read_arrays(folder / "resnet20_cifar10_f32.npz")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, strict=True)
