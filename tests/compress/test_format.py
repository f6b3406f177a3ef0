"""Files of version 1 stay readable, and are written as they were."""

from __future__ import annotations

import hashlib
import math
import pathlib

import numpy as np
import pytest

from qevo.compress import load, save
from qevo.compress.coder import decode_layer, encode_layer
from qevo.nets import QuantizedNetwork

GOLDEN = pathlib.Path(__file__).parent / "golden" / "version_1.qevo"  # a small LeNet-5
TENSORS = "84fb0223ee706ff469c776302f32deba805ac48f9f1256b22c6f29eaabb4ada3"
STREAMS = {  # by input and output channels: one lane of Python integers, 17 lanes of numpy
    (16, 40): "749d37595bde858f7f148b5c0c3a5762333bab452791f1b59bb8066480decd2f",
    (64, 200): "08bc6922a455677bdcc6cb92dc2df4ae974e4c65168c89fee6f06941d7d79ccc",
}


def digest(network: QuantizedNetwork) -> str:
    """Of everything that it computes with."""
    found = hashlib.sha256()
    for layer in network.layers:
        found.update(layer.encode() + np.asarray(network.weights[layer]).tobytes())
    for name, part in sorted(network.constants.items()):
        for key, value in sorted(part.items()):
            found.update(f"{name}/{key}".encode() + np.asarray(value, np.int32).tobytes())
    return found.hexdigest()


def test_a_file_of_version_1_reads_as_it_did(tmp_path: pathlib.Path) -> None:
    network = load(GOLDEN)
    assert digest(network) == TENSORS
    save(network, tmp_path / "again.qevo", {"data": "noise", "test accuracy": 0.1})
    assert load(tmp_path / "again.qevo").layers == network.layers


@pytest.mark.parametrize("channels", STREAMS)
def test_a_layer_codes_to_the_bytes_it_did(channels: tuple[int, int]) -> None:
    """Zeros by row and column; whatever the machine."""
    shape = (3, 3, *channels)
    mixed = (np.arange(math.prod(shape), dtype=np.int64) * 2654435761 >> 7) % 23
    kernel = np.where(mixed < 17, 0, mixed - 20).astype(np.int8).reshape(shape)
    data = encode_layer(kernel).data
    assert hashlib.sha256(data).hexdigest() == STREAMS[channels]
    np.testing.assert_array_equal(decode_layer(data, kernel.shape), kernel)
