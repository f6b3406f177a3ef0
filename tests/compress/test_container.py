"""The `.qevo` file: the same network, few bytes, and one error for everything else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Mine, quantized

from qevo.compress import (
    CompressedFileError,
    compress,
    container,
    decompress,
    load,
    open_compressed,
    save,
    summarise,
)
from qevo.compress import header as headers
from qevo.compress.varint import Reader, varint
from qevo.errors import QevoError
from qevo.nets import QuantizedNetwork


def assert_equal(first: QuantizedNetwork, second: QuantizedNetwork) -> None:
    """Every field, every number, every type."""
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(second, field.name)
        if field.name in ("weights", "constants"):
            assert jax.tree.structure(dict(one)) == jax.tree.structure(dict(two))
            for a, b in zip(jax.tree.leaves(dict(one)), jax.tree.leaves(dict(two)), strict=True):
                np.testing.assert_array_equal(a, b)
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
        else:
            assert one == two, field.name


def rewritten(data: bytes, change: Callable[[list[bytes]], None]) -> bytes:
    """A file with other parts and the digest that belongs to them."""
    reader = Reader(data[5:-8])
    sizes = [reader.varint(1 << 30) for _ in range(reader.varint(1 << 30))]
    parts = [reader.take(size) for size in sizes]
    change(parts)
    table = b"".join(map(varint, (len(parts), *map(len, parts))))
    return signed(data[:5] + table + b"".join(parts))


def signed(body: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=8).digest()


def with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file whose header says something else."""

    def edit(parts: list[bytes]) -> None:
        text = zlib.decompressobj(-15, zdict=headers._DICTIONARY).decompress(parts[0])
        fields = json.loads(text)
        change(fields)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=headers._DICTIONARY)
        parts[0] = packer.compress(json.dumps(fields).encode()) + packer.flush()

    return rewritten(data, edit)


@pytest.fixture(scope="module")
def data(mlp: QuantizedNetwork) -> bytes:
    return compress(mlp, {"test accuracy": 0.5})


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_round_trip(name: str, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(name)
    found = decompress(compress(network))
    assert_equal(found, network)
    assert compress(found) == compress(network)


def test_order_of_tables_does_not_matter(resnet: QuantizedNetwork) -> None:
    constants = {k: dict(reversed(v.items())) for k, v in reversed(resnet.constants.items())}
    weights = dict(reversed(resnet.weights.items()))
    shuffled = dataclasses.replace(resnet, weights=weights, constants=constants)
    assert compress(shuffled) == compress(resnet)


def test_unusual_limits_and_scales(mlp: QuantizedNetwork) -> None:
    """What the short forms of the header do not cover."""
    facts = dataclasses.replace(mlp.layers["dense_0"], multiplier_limit=6000, bias_limit=20000)
    layers = {**mlp.layers, "dense_0": facts}
    network = dataclasses.replace(mlp, layers=layers, scales={"input": 0.1, "elsewhere": 1 / 3})
    assert_equal(decompress(compress(network)), network)


def test_sizes_and_ratio(mlp: QuantizedNetwork, data: bytes) -> None:
    file = open_compressed(data)
    weights = sum(w.size for w in mlp.weights.values())
    assert file.parameters == weights + 30 + 11 + 5
    assert (file.size, file.ratio) == (len(data), 4 * file.parameters / len(data))
    assert dict(file.header.about) == {"test accuracy": 0.5}
    summary = summarise(file)
    assert [layer.name for layer in summary.layers] == ["dense_0", "dense_1", "logits"]
    assert (summary.weights, summary.parameters) == (weights, file.parameters)
    parts = sum(layer.bytes for layer in summary.layers)
    assert parts + summary.constants + summary.overhead == len(data)
    first, kernel = summary.layers[0], np.asarray(mlp.weights["dense_0"])
    assert first.zeros == np.count_nonzero(kernel == 0)
    assert first.levels == len(np.unique(kernel))
    share = np.unique(kernel, return_counts=True)[1] / kernel.size
    assert first.entropy == pytest.approx(-(share * np.log2(share)).sum())
    assert first.bits_per_weight == 8 * first.bytes / kernel.size
    assert summary.overhead < 150  # header, scales, sizes, digest


def test_a_network_of_ones_own() -> None:
    network = quantized(Mine(), (6, 6, 1), bits=3)
    data = compress(network)
    assert_equal(decompress(data, Mine()), network)
    with pytest.raises(CompressedFileError, match="not qevo's: pass module="):
        decompress(data)
    with pytest.raises(CompressedFileError, match="given module"):
        decompress(data, Mine(width=7))


def test_files(mlp: QuantizedNetwork, data: bytes, tmp_path: pathlib.Path) -> None:
    """One `load` for both kinds; errors name the file."""
    path = tmp_path / "folder" / "network.qevo"
    save(mlp, path, {"test accuracy": 0.5})
    assert path.read_bytes() == data
    assert_equal(load(path), mlp)
    mlp.save(tmp_path / "network.safetensors")
    assert_equal(load(tmp_path / "network.safetensors"), mlp)
    with pytest.raises(QevoError, match=r"no such file: .*nothing"):
        load(tmp_path / "nothing.qevo")
    path.write_bytes(data[:-1])
    with pytest.raises(CompressedFileError, match=r"^[^:]*network\.qevo: its digest"):
        load(path)
    path.write_bytes(rewritten(data, lambda parts: parts.__setitem__(3, parts[4])))
    with pytest.raises(CompressedFileError, match=r"^[^:]*network\.qevo: dense_0: "):
        load(path)


def test_another_kind_or_version(data: bytes) -> None:
    for other in (b"", b"qev", b"PK\3\4" + data[4:]):
        with pytest.raises(CompressedFileError, match=r"not a \.qevo file"):
            open_compressed(other)
    with pytest.raises(CompressedFileError, match="format version 9; this qevo reads version 1"):
        open_compressed(signed(b"qevo\x09" + data[5:-8]))


def test_every_cut_and_every_flipped_bit_is_found(data: bytes) -> None:
    """Before anything is believed."""
    found = r"^(not a \.qevo file$|format version|its digest is another)"
    for end in range(len(data)):
        with pytest.raises(CompressedFileError, match=found):
            open_compressed(data[:end])
    for place in range(8 * len(data)):
        bad = bytearray(data)
        bad[place // 8] ^= 1 << place % 8
        with pytest.raises(CompressedFileError, match=found):
            open_compressed(bytes(bad))


Change = Callable[[dict[str, Any]], object]


def kernel(*sides: Any) -> Change:
    return lambda header: header["layers"][0].__setitem__(2, [*sides])


def limits(*numbers: int) -> Change:
    return lambda header: header["layers"][0].__setitem__(3, [*numbers])


def fields(**changed: Any) -> Change:
    return lambda header: header["architecture"]["fields"].update(changed)


def said(**changed: Any) -> Change:
    return lambda header: header.update(changed)


HOSTILE: dict[str, tuple[Change, str]] = {
    "huge kernel": (kernel(1 << 19, 1 << 19), "weights; this reader takes"),
    "kernel of one side": (kernel(1260), r"dense_0: weights of shape \[1260\]"),
    "kernel with no weights": (kernel(0, 30), r"a shape \[0, 30\] is beyond"),
    "negative side": (kernel(-42, -30), r"a shape \[-42, -30\] is beyond"),
    "side that is no number": (kernel(42, "30"), "'30' is no integer"),
    "turned kernel": (kernel(30, 42), r"must be int8 \[42, 30\], not int8 \[30, 42\]"),
    "huge constants": (
        lambda h: h["operations"][0].__setitem__(3, {"bias": [1 << 20, 1 << 20]}),
        r"input: constants of .*bias.* \(1048576, 1048576\)",
    ),
    "other limits": (limits(0, 127, 0, 255), r"dense_1: its input can be 0\.\.255, the proof"),
    "endless limits": (limits(0, 10**30, 0, 127), "10{30} is no integer of 62 bits"),
    "limits of another length": (limits(0, 127, 0), "missing .* required positional"),
    "other bits": (lambda h: h["layers"][0].__setitem__(1, 99), "'ternary' or 2 to 8, not 99"),
    "a layer twice": (lambda h: h["layers"].__setitem__(1, h["layers"][0]), "a name twice"),
    "a layer less": (lambda h: h["layers"].pop(), "2 layers, and 3 parts"),
    "no layers": (lambda h: h.pop("layers"), "KeyError.'layers'"),
    "layers that are none": (said(layers=3), "'int' object is not iterable"),
    "another architecture": (
        lambda h: h["architecture"].update(name="lenet_5"),
        "conv_0: the architecture has this layer, the network does not",
    ),
    "an unknown architecture": (
        lambda h: h["architecture"].update(name="os.system"),
        r"the architecture os\.system, which is not qevo's",
    ),
    "an architecture without a name": (said(architecture={}), "KeyError.'name'"),
    "fields that it does not have": (fields(depth=1), "depth"),
    "fields of another type": (fields(hidden="abc"), r"must be int8 \[42, 'a'\], not int8"),
    "billions of layers": (fields(hidden=[1 << 40] * 9), r"must be int8 \[42, 1099511627776\]"),
    "images of no size": (said(image_shape=[0, 7, 1]), r"a shape \[0, 7, 1\] is beyond"),
    "huge images": (said(image_shape=[1 << 20] * 3), r"must be int8 \[1152921504606846976, 30\]"),
    "flat images": (said(image_shape=[42]), "not enough values to unpack"),
    "a text for bits": (said(fraction_bits="8"), "'8' is no integer"),
    "truth for bits": (said(activation_bits=True), "True is no integer"),
    "more scales": (said(scales=["input"] * 5), "a name twice"),
    "a list of what it says": (said(about=[1]), "'list' object has no attribute 'items'"),
    "a tree of what it says": (said(about={"a": {"b": 1}}), "neither text nor a number"),
    "nesting": (said(image_shape=json.loads("[" * 900 + "]" * 900)), "is no integer of 62 bits"),
}


def test_a_header_that_is_only_written_anew_is_read(mlp: QuantizedNetwork, data: bytes) -> None:
    """So that none of the hostile ones is refused for the way in which it was made."""
    assert decompress(with_header(data, lambda header: None)) == mlp
    assert decompress(rewritten(data, lambda parts: None)) == mlp


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers(data: bytes, kind: str) -> None:
    """With the right digest: what is said is checked before it is believed."""
    change, message = HOSTILE[kind]
    with pytest.raises(CompressedFileError, match=message):
        decompress(with_header(data, change))


@pytest.mark.parametrize("side", [43, 1 << 13])
def test_sizes_are_checked_before_anything_is_decoded(
    data: bytes, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    for name in ("decode_layer", "decode_integers"):
        monkeypatch.setattr(container, name, lambda *given: decoded.append(given))
    keys = ["bias", "multiplier", "shift", "more"]
    for wrong, message in (
        (kernel(side, 30), rf"must be int8 \[42, 30\], not int8 \[{side}, 30\]"),
        (
            lambda h: h["operations"][0].__setitem__(3, {"bias": [1 << 13], "shift": []}),
            "input: constants of",
        ),
        (lambda h: h["layers"][0].append(keys), "dense_0: constants .*more"),
    ):
        with pytest.raises(CompressedFileError, match=message):
            decompress(with_header(data, wrong))
    assert not decoded


def test_hostile_json(data: bytes) -> None:
    def deflated(text: bytes) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(text) + packer.flush()

    for text, message in (
        (b"", "Expecting value"),
        (b"[]", "list indices must be integers"),
        (b"{", "Expecting property name"),
        (b"\xff", "UnicodeDecodeError"),
        (b"[" * 100_000, "RecursionError"),
        (b"9" * 10_000, "Exceeds the limit"),
        (bytes(1 << 23), "a header of more than 262144 bytes"),
    ):
        with pytest.raises(CompressedFileError, match=message):
            open_compressed(rewritten(data, lambda p, t=text: p.__setitem__(0, deflated(t))))


def test_the_reader_has_a_limit(mlp: QuantizedNetwork, data: bytes) -> None:
    weights = sum(w.size for w in mlp.weights.values())
    open_compressed(data, max_weights=weights)
    with pytest.raises(CompressedFileError, match=f"{weights} weights; this reader takes"):
        open_compressed(data, max_weights=weights - 1)
    with pytest.raises(QevoError, match=f"{weights} weights; a reader takes {weights - 1}"):
        compress(mlp, max_weights=weights - 1)


def test_nothing_is_written_that_a_reader_would_refuse(
    mlp: QuantizedNetwork, resnet: QuantizedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(QevoError, match=r"takes 300\d\d\d bytes, .* less than 262144") as e:
        compress(mlp, {"note": "x" * 300_000})
    size = int(re.findall(r"\d+", str(e.value))[0])
    decompress(compress(mlp, {"note": "x" * (300_000 - size + headers.MAX_HEADER - 1)}))
    monkeypatch.setattr(headers, "_MAX_NAME", 10)
    with pytest.raises(QevoError, match=r"no reader would take the file: .*'block_.* is no name"):
        compress(resnet)
    monkeypatch.undo()
    monkeypatch.setattr(headers, "_MAX_OPERATION", 1)
    with pytest.raises(QevoError, match=r"no reader would take the file: .*add: constants of"):
        compress(resnet)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_damage_with_the_right_digest(
    mlp: QuantizedNetwork, data: bytes, choice: st.DataObject
) -> None:
    """A refusal, or the very network: what changed then is only what was said of it."""
    damage(mlp, data, choice)


@pytest.mark.slow
@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20_000)
def test_very_much_damage_with_the_right_digest(
    mlp: QuantizedNetwork, data: bytes, choice: st.DataObject
) -> None:
    damage(mlp, data, choice)


def damage(mlp: QuantizedNetwork, data: bytes, choice: st.DataObject) -> None:
    body = bytearray(data[:-8])
    for _ in range(choice.draw(st.integers(1, 3))):
        place = choice.draw(st.integers(5, len(body) - 1))
        kind = choice.draw(st.sampled_from(["flip", "cut", "insert"]))
        if kind == "flip":
            body[place] ^= choice.draw(st.integers(1, 255))
        elif kind == "cut":
            del body[place : place + choice.draw(st.integers(1, 9))]
        else:
            body[place:place] = choice.draw(st.binary(min_size=1, max_size=9))
        if len(body) < 20:
            break
    try:
        found = decompress(signed(bytes(body)))
    except CompressedFileError:
        return
    assert found.weights.keys() == mlp.weights.keys()
    assert found.constants.keys() == mlp.constants.keys()
    for name, kernel in mlp.weights.items():
        np.testing.assert_array_equal(found.weights[name], kernel)
        assert found.constants[name].keys() == mlp.constants[name].keys()
        for kind, values in mlp.constants[name].items():
            np.testing.assert_array_equal(found.constants[name][kind], values)


@given(st.binary(max_size=200))
def test_noise_with_the_right_digest(noise: bytes) -> None:
    with pytest.raises(CompressedFileError):
        decompress(signed(b"qevo\1" + noise))
