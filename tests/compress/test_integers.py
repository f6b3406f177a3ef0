"""Constants to bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from qevo.compress import CompressedFileError
from qevo.compress.integers import MAX_INTEGERS, decode_integers, encode_integers
from qevo.errors import QevoError

INT32 = st.integers(-(2**31), 2**31 - 1)
SHAPES = array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["bias", "shift"])),
        arrays(np.int32, SHAPES, elements=INT32 | st.integers(-5, 5).map(lambda k: k * 64)),
        max_size=4,
    )
)
def test_any_vectors(vectors: dict[tuple[str, str], np.ndarray]) -> None:
    data = encode_integers(vectors)
    found = decode_integers(data, {name: v.shape for name, v in vectors.items()})
    assert list(found) == list(vectors)
    for name, values in vectors.items():
        np.testing.assert_array_equal(found[name], values)
        assert (found[name].dtype, found[name].shape) == (np.int32, values.shape)


def size(*vectors: np.ndarray) -> int:
    names = [(str(place), "bias") for place in range(len(vectors))]
    return len(encode_integers(dict(zip(names, vectors, strict=True))))


def test_bits_that_no_value_has_cost_nothing() -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(1024, 2048, 400).astype(np.int32)
    assert 400 * 10 / 8 < size(values) < 400 * 10 / 8 + 20
    assert size(values // 32 * 32) < 400 * 5 / 8 + 20
    scaled = (values // 64 << draw.integers(0, 12, 400)).astype(np.int32)  # five digits, any length
    assert size(scaled) < 400 * (4 + np.log2(12)) / 8 + 40


def test_what_a_key_has_been_like_is_known() -> None:
    values = np.full(40, 17, np.int32)
    assert size(values, values) < size(values) + 30
    assert size(np.full(4000, 12345, np.int32)) < 4000 * 14 / 8
    assert size(np.zeros(4000, np.int32)) < 24


@given(st.binary(max_size=60), st.integers(0, 50))
def test_noise_is_refused(data: bytes, count: int) -> None:
    with pytest.raises(CompressedFileError):
        decode_integers(data, {("a", "bias"): (count,)})


def test_limits() -> None:
    with pytest.raises(CompressedFileError, match="are the most"):
        decode_integers(bytes(6), {("a", "bias"): (MAX_INTEGERS + 1,)})
    with pytest.raises(QevoError, match="are the most"):
        encode_integers({("a", "bias"): np.zeros(MAX_INTEGERS + 1, np.int32)})
