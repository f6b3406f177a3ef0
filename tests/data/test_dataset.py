"""The seeded stratified split: exact sizes, shares, independence of numpy's generators."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.data import Split
from qevo.data.dataset import Parts, divide, shuffled, stratified
from qevo.errors import QevoError


def make_parts(labels: list[int], test: list[int] | None = None) -> Parts:
    """Images that hold their own row number, so that a split can be read back."""

    def split(labels: list[int], first: int) -> Split:
        rows = np.arange(first, first + len(labels), dtype="<u4")
        return Split(rows.view(np.uint8).reshape(-1, 2, 2, 1), np.array(labels, np.int32))

    classes = tuple(str(label) for label in range(max(labels) + 1))
    own_test = None if test is None else split(test, len(labels))
    return Parts(split(labels, 0), own_test, classes, "made up")


def rows(split: Split) -> list[int]:
    return np.ascontiguousarray(split.images).reshape(-1, 4).view("<u4").ravel().tolist()


@given(st.integers(1, 300), st.text(max_size=5))
def test_order_follows_the_published_hash(n: int, key: str) -> None:
    stream = hashlib.shake_256(f"qevo {key}".encode()).digest(8 * n)
    words = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(n)]
    assert shuffled(n, key=key).tolist() == sorted(range(n), key=lambda i: words[i])


@given(st.lists(st.integers(0, 6), min_size=2, max_size=200), st.data())
def test_draw_is_a_partition_that_keeps_the_class_shares(
    values: list[int], data: st.DataObject
) -> None:
    labels = np.array(values)
    limit = len(values) - len(set(values))
    if limit < 1:
        with pytest.raises(QevoError, match="cannot hold out 1 "):
            stratified(labels, 1, key="a")
        return
    size = data.draw(st.integers(1, limit))
    kept, drawn = stratified(labels, size, key="a")
    assert len(drawn) == size
    assert sorted([*kept, *drawn]) == list(range(len(values)))
    assert set(labels[kept]) == set(values)
    found = {label: values.count(label) - int(np.sum(labels[kept] == label)) for label in values}
    for label, n in found.items():
        exact = Fraction(size * values.count(label), len(values))
        assert exact - 1 < n
        if all(found[other] < values.count(other) - 1 for other in found):  # none at its limit
            assert n < exact + 1
    again = stratified(labels, size, key="a")
    np.testing.assert_array_equal(again[1], drawn)


def test_shares_are_rounded_by_largest_remainder() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    _, drawn = stratified(labels, 11, key="a")  # exact shares 5.5, 3.3, 2.2
    assert np.bincount(labels[drawn]).tolist() == [6, 3, 2]


@pytest.mark.parametrize("size", [0, -1, 8])
def test_a_class_left_without_an_image_is_refused(size: int) -> None:
    with pytest.raises(QevoError, match=rf"cannot hold out {size} of 10 images: expected 1 to 7"):
        stratified(np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]), size, key="a")


def test_own_test_part_is_kept_whole_and_in_order() -> None:
    parts = make_parts([0, 1] * 50, test=[1, 0, 0])
    data = divide(parts, name="d", seed=3, validation=20)
    assert [len(data.search), len(data.validation), len(data.test)] == [80, 20, 3]
    assert rows(data.test) == [100, 101, 102]
    assert sorted(rows(data.search) + rows(data.validation)) == list(range(100))
    assert np.bincount(data.validation.labels).tolist() == [10, 10]


def test_without_a_test_part_70_15_15() -> None:
    data = divide(make_parts([0, 1, 2, 3] * 50), name="d", seed=0)
    splits = (data.search, data.validation, data.test)
    assert [len(split) for split in splits] == [140, 30, 30]
    assert sorted(row for split in splits for row in rows(split)) == list(range(200))
    for split in splits:
        assert rows(split) != sorted(rows(split))
        for row, label in zip(rows(split), split.labels, strict=True):
            assert row % 4 == label
        assert np.ptp(np.bincount(split.labels)) <= 1


def test_the_seed_decides() -> None:
    parts = make_parts([0, 1] * 50)
    first, same, other = (divide(parts, name="d", seed=seed).fingerprint() for seed in (1, 1, 2))
    assert first == same != other


def test_split_is_pinned() -> None:
    data = divide(make_parts([0, 1] * 10), name="d", seed=7)
    assert rows(data.search) == [6, 18, 16, 10, 19, 5, 9, 15, 3, 4, 14, 0, 17, 7]
    assert rows(data.validation) == [2, 13, 1]
    assert rows(data.test) == [11, 12, 8]


def test_too_small_a_data_set_is_named() -> None:
    with pytest.raises(
        QevoError, match=r"^tiny \(made up\): .* 1 of 2 images: each of 2 classes needs"
    ):
        divide(make_parts([0, 1]), name="tiny", seed=0)


def test_splits_are_read_only_and_checked() -> None:
    images, labels = np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32)
    split = Split(images, labels)
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 1
    images[0] = 1  # the caller's array stays the caller's
    with pytest.raises(QevoError, match=r"expected uint8 \[n, H, W, C\], found float64"):
        Split(images.astype(float), labels)
    with pytest.raises(QevoError, match=r"expected int32 \[2\].* found int32 \[1\]"):
        Split(images, labels[:1])
