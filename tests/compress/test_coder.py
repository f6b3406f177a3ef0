"""Layers to bytes and back: equal weights, few bytes, and a refusal of all else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from qevo.compress import CompressedFileError, coder
from qevo.compress.coder import WEIGHTS_PER_BYTE, decode_layer, encode_layer, lanes_for, model_bits
from qevo.errors import QevoError

SIZE = 240, 96


def round_trip(kernel: np.ndarray) -> bytes:
    data = encode_layer(kernel).data
    found = decode_layer(data, kernel.shape)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, kernel)
    assert found.flags.c_contiguous
    return data


def entropy_bytes(kernel: np.ndarray) -> float:
    """By the counts of the levels alone."""
    share = np.unique(kernel, return_counts=True)[1] / kernel.size
    return float(-(share * np.log2(share)).sum()) * kernel.size / 8


def sparse(share: np.ndarray | float, seed: int = 0) -> np.ndarray:
    """Weights of which that share is not zero, by row, column or each."""
    draw = np.random.default_rng(seed)
    values = np.clip(np.rint(draw.laplace(0, 2, SIZE)), -7, 7)
    values[values == 0] = 1
    return np.where(draw.random(SIZE) < share, values, 0).astype(np.int8)


@given(arrays(np.int8, array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9)))
def test_any_weights(kernel: np.ndarray) -> None:
    round_trip(kernel)


@given(
    arrays(np.int8, (40, 17), elements=st.sampled_from([-128, -3, 0, 0, 0, 0, 0, 127])),
    st.integers(30, 200),
)
@settings(max_examples=30)
def test_any_block(kernel: np.ndarray, block: int) -> None:
    """Layers of several streams; the model goes on from one to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "BLOCK", block)
        round_trip(kernel)


@pytest.mark.parametrize("value", [0, 1, -128])
@pytest.mark.parametrize("shape", [(1, 1), (300, 2), (3, 3, 5, 70)])
def test_layers_of_one_value(value: int, shape: tuple[int, ...]) -> None:
    kernel = np.full(shape, value, np.int8)
    assert len(round_trip(kernel)) < 20


def test_a_view_is_coded_as_its_copy() -> None:
    kernel = sparse(0.2)
    assert encode_layer(kernel.T).data == encode_layer(np.ascontiguousarray(kernel.T)).data


def test_within_a_percent_of_the_entropy_where_rows_are_alike() -> None:
    kernel = sparse(0.1)
    assert len(round_trip(kernel)) < 1.01 * entropy_bytes(kernel) + 24


@pytest.mark.parametrize("axes", ["rows", "columns", "both"])
def test_less_where_rows_or_columns_differ(axes: str) -> None:
    draw = np.random.default_rng(3)
    rows, columns = np.exp(draw.normal(0, 1, (SIZE[0], 1))), np.exp(draw.normal(0, 1, SIZE[1]))
    share = {"rows": rows, "columns": columns, "both": rows * columns}[axes]
    kernel = sparse(np.minimum(0.06 * share, 0.9))
    assert len(round_trip(kernel)) < 0.93 * entropy_bytes(kernel)


def test_the_model_predicts_the_bytes() -> None:
    kernel = sparse(0.15)
    found = encode_layer(kernel)
    assert model_bits(kernel) == found.model_bits
    assert found.model_bits / 8 < len(found.data) < 1.01 * found.model_bits / 8 + 24


def test_lanes_grow_with_the_stream() -> None:
    assert [lanes_for(size) for size in (0, 2047, 2048, 1 << 20, 1 << 30)] == [1, 1, 2, 1024, 4096]


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (np.zeros((2, 2), np.int32), "int8"),
        (np.zeros(2, np.int8), "int8"),
        (np.zeros((0, 2), np.int8), "int8"),
        (np.zeros((coder.MAX_SIDE + 1, 1), np.int8), "beyond"),
    ],
)
def test_what_cannot_be_encoded(kernel: np.ndarray, said: str) -> None:
    with pytest.raises(QevoError, match=said):
        encode_layer(kernel)


@given(st.data())
def test_a_flipped_bit_is_found(data: st.DataObject) -> None:
    kernel = sparse(0.1)[:40, :30]
    good = encode_layer(kernel).data
    place = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[place // 8] ^= 1 << place % 8
    with pytest.raises(CompressedFileError):
        decode_layer(bytes(bad), kernel.shape)


@given(st.binary(max_size=80), st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_noise_is_refused(data: bytes, shape: tuple[int, int]) -> None:
    with pytest.raises(CompressedFileError):
        decode_layer(data, shape)


def test_nothing_is_allocated_for_what_cannot_be_there() -> None:
    data = encode_layer(np.zeros((4, 4), np.int8)).data
    side = coder.MAX_SIDE
    with pytest.raises(CompressedFileError, match=r"bytes cannot hold \d+ weights"):
        decode_layer(data, (side, side))
    with pytest.raises(CompressedFileError, match="beyond"):
        decode_layer(data, (2 * side, 1))


def test_what_a_byte_holds() -> None:
    """No layer is denser than the reader believes: the likeliest zeros of all."""
    kernel = np.zeros((1000, 1000), np.int8)
    assert kernel.size < WEIGHTS_PER_BYTE * len(round_trip(kernel))
