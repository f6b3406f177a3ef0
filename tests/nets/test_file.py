"""Network files: round trip, equal bytes, and a clear refusal of everything else."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from networks import Mine, quantized, random_images
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from qevo.errors import QevoError
from qevo.nets import LeNet5, LeNet300, QuantizedNetwork, ResNet8, load_safetensors


@pytest.fixture(scope="module")
def mine() -> QuantizedNetwork:
    return quantized(Mine(), (6, 6, 1), bits=3)


@pytest.fixture
def path(mlp: QuantizedNetwork, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "folder" / "network.safetensors"
    mlp.save(path)
    return path


def rewrite(path: pathlib.Path, change: Any) -> None:
    """Change the header of a file."""
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["qevo"])
    change(header)
    save_file(load_file(path), path, {"qevo": json.dumps(header)})


def test_round_trip_of_our_own(mlp: QuantizedNetwork, path: pathlib.Path) -> None:
    found = load_safetensors(path)
    for field in dataclasses.fields(mlp):
        if field.name not in ("weights", "constants", "module"):
            assert getattr(found, field.name) == getattr(mlp, field.name), field.name
    assert isinstance(found.module, LeNet300)
    assert found.module.hidden == (12, 11, 10, 9)
    images = random_images((6, 7, 1), 19, seed=5)
    np.testing.assert_array_equal(found(images), mlp(images))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_round_trip_of_nested_fields(shortcut_a: QuantizedNetwork, tmp_path: pathlib.Path) -> None:
    shortcut_a.save(tmp_path / "network")
    module = load_safetensors(tmp_path / "network").module
    assert module == shortcut_a.module
    assert (module.widths, module.padding) == ((4, 7), ((1, 1), (1, 1)))


def test_equal_networks_give_equal_bytes(mlp: QuantizedNetwork, path: pathlib.Path) -> None:
    again = path.with_name("again")
    load_safetensors(path).save(again)
    assert again.read_bytes() == path.read_bytes()
    shuffled = dataclasses.replace(
        mlp,
        weights=dict(reversed(mlp.weights.items())),
        constants={k: dict(reversed(v.items())) for k, v in reversed(mlp.constants.items())},
        layers=dict(reversed(list(mlp.layers.items()))),
    )
    shuffled.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_a_network_of_ones_own(mine: QuantizedNetwork, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine"
    mine.save(path)
    images = random_images((6, 6, 1), 4, seed=5)
    np.testing.assert_array_equal(load_safetensors(path, Mine())(images), mine(images))
    rewrite(path, lambda h: h["architecture"].update(name="another_module.Mine"))
    assert load_safetensors(path, Mine()).module == Mine()
    with pytest.raises(QevoError, match=r"Mine, which is not qevo's: pass module="):
        load_safetensors(path)
    with pytest.raises(QevoError, match="given module"):
        load_safetensors(path, Mine(width=7))
    with pytest.raises(QevoError, match="given module"):
        load_safetensors(path, ResNet8())


def test_a_function_among_the_fields(mine: QuantizedNetwork, tmp_path: pathlib.Path) -> None:
    """It lies somewhere else in the memory of the next process."""

    class Acting(Mine):
        act: Any = None

    first, second = (Acting(act=act) for act in (lambda x: x, lambda x: x))
    path = tmp_path / "acting"
    dataclasses.replace(mine, module=first).save(path)
    assert load_safetensors(path, second).module == second


def test_given_module_of_ours(path: pathlib.Path) -> None:
    assert load_safetensors(path, LeNet300(hidden=(12, 11, 10, 9), classes=5)).image_shape == (
        6,
        7,
        1,
    )
    with pytest.raises(QevoError, match=r"network\.safetensors: .*300.*lenet_5.*needs no module"):
        load_safetensors(path, LeNet5())


def test_no_such_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match=r"no such file: .*nothing"):
        load_safetensors(tmp_path / "nothing")


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_cut_short(path: pathlib.Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(QevoError, match=r"network\.safetensors: not a readable network file"):
        load_safetensors(path)


def test_another_kind_of_file(path: pathlib.Path) -> None:
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(QevoError, match="not one of qevo's networks"):
        load_safetensors(path)


@pytest.mark.parametrize("header", ["[]", "3"])
def test_a_header_of_another_kind(path: pathlib.Path, header: str) -> None:
    save_file({"x": np.zeros(3)}, path, {"qevo": header})
    with pytest.raises(QevoError, match="header should be an object"):
        load_safetensors(path)


def test_another_version(path: pathlib.Path) -> None:
    rewrite(path, lambda header: header.update(version=99))
    with pytest.raises(QevoError, match=r"format version 99; this qevo reads version 1"):
        load_safetensors(path)


@pytest.mark.parametrize("field", ["architecture", "layers", "fraction_bits", "image_shape"])
def test_header_without_a_field(path: pathlib.Path, field: str) -> None:
    rewrite(path, lambda header: header.pop(field))
    with pytest.raises(QevoError, match=f"header does not describe a network.*{field}"):
        load_safetensors(path)


def test_tensors_that_do_not_fit(path: pathlib.Path) -> None:
    tensors = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    tensors["weights:dense_1"] = tensors["weights:dense_1"][:-1].copy()
    save_file(tensors, path, metadata)
    with pytest.raises(QevoError, match=r"network\.safetensors: dense_1: kernel must be"):
        load_safetensors(path)


def test_limits_that_do_not_hold(path: pathlib.Path) -> None:
    rewrite(path, lambda header: header["layers"]["dense_0"].update(multiplier_limit=1 << 30))
    with pytest.raises(QevoError, match="dense_0: accumulator and bias"):
        load_safetensors(path)


def test_a_failed_save_leaves_the_old_file(
    mlp: QuantizedNetwork, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        mlp.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
