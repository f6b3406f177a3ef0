"""The architecture that is data: replays what an architecture of ours does, and lies in files."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from networks import quantized, random_images, random_variables

from qevo.errors import QevoError
from qevo.nets import Float, ResNet, load_safetensors
from qevo.nets.traced import Call, Traced
from qevo.quantize import fold_batch_norm


def conv(x: int, name: str, activation: str | None = "relu", **options: Any) -> Call:
    options = {"padding": "SAME", "activation": activation, "batch_norm": False} | options
    return Call("conv", (x,), tuple(sorted(options.items())), name)


CALLS = (  # of ResNet(widths=(4, 6), classes=3)
    conv(0, "stem", features=4),
    conv(1, "block_0_0/conv_0", features=4),
    conv(2, "block_0_0/conv_1", None, features=4),
    Call("add", (1, 3), (("activation", "relu"),), "block_0_0/add"),
    conv(4, "block_1_0/conv_0", features=6, strides=(2, 2)),
    conv(5, "block_1_0/conv_1", None, features=6),
    conv(4, "block_1_0/shortcut", None, features=6, kernel=(1, 1), strides=(2, 2)),
    Call("add", (7, 6), (("activation", "relu"),), "block_1_0/add"),
    Call("average_pool", (8,), (), "pool"),
    Call("logits", (9,), (("classes", 3),), "logits"),
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return random_images((6, 6, 3), 16)


def test_replays_an_architecture(images: np.ndarray, tmp_path: pathlib.Path) -> None:
    """Names, folders and operations are those of the module, so the networks are equal."""
    module = ResNet(widths=(4, 6), classes=3)
    variables = random_variables(module, images.shape[1:])
    folded = {"params": fold_batch_norm(variables)}
    native = quantized(module, images, variables, bits=4)
    replayed = quantized(Traced(calls=CALLS), images, folded, bits=4)
    for field in ("layers", "ranges", "scales", "bits", "fraction_bits"):
        assert getattr(replayed, field) == getattr(native, field), field
    np.testing.assert_array_equal(replayed(images), native(images))

    replayed.save(tmp_path / "network")
    found = load_safetensors(tmp_path / "network")
    assert found.module == replayed.module
    assert hash(found.module) == hash(replayed.module)
    np.testing.assert_array_equal(found(images), native(images))
    found.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "network").read_bytes()


def test_is_plain_data() -> None:
    assert json.loads(json.dumps(CALLS))[3] == [
        "add",
        [1, 3],
        [["activation", "relu"]],
        CALLS[3][3],
    ]
    assert hash(Traced(calls=CALLS)) == hash(Traced(Float(), CALLS))


def test_refuses_what_is_no_operation(images: np.ndarray) -> None:
    with pytest.raises(QevoError, match="'product' is no operation of an architecture"):
        Traced(calls=(Call("product", (0,)),)).apply({}, images)
