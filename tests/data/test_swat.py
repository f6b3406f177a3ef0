"""SWaT's CSV format in its variants, on rows made up here: the data itself is given on request."""

import pathlib

import numpy as np
import pytest

from qevo.data import read_swat
from qevo.errors import QevoError

SENSORS = ("FIT101", "LIT101", "MV101", "P101")
PUBLISHED = {
    "plain": ("Timestamp,{},Normal/Attack\n", "{}", "Attack"),
    "spaces": (" Timestamp, {}, Normal/Attack\n", " {}", "A ttack"),
    "processes": ("\ufeff,P1,,P1,,\nTimestamp,{},Normal/Attack \n", "{} ", " Attack"),
}


def rows(count: int, seed: int) -> np.ndarray:
    """A flow, a level, a valve that is set, and a pump that never runs."""
    draw = np.random.RandomState(seed)
    moving = np.stack([draw.uniform(0, 2.75, count), draw.uniform(120, 900, count)], 1).round(6)
    return np.concatenate([moving, draw.randint(0, 3, (count, 1)), np.ones((count, 1))], 1)


def write(path, values, attacks=(), form="plain", sensors=SENSORS):
    header, cell, attack = PUBLISHED[form]
    lines = [header.format(",".join(sensors))]
    for number, row in enumerate(values):
        label = attack if number in attacks else "Normal"
        cells = ["22/12/2015 4:00:00 PM", *(repr(float(v)) for v in row), label]
        lines.append(",".join(cell.format(c) for c in cells) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def recordings(tmp_path: pathlib.Path):
    normal, attacked = rows(60, 0), rows(30, 1)
    attacked[7:9, 3] = 2, 0  # the pump
    attacked[12, 1] = 2000
    files = write(tmp_path / "normal.csv", normal), write(tmp_path / "attack.csv", attacked, (7, 8))
    return normal, attacked, *files


@pytest.mark.parametrize("form", PUBLISHED)
def test_windows_of_every_published_form(recordings, tmp_path, form):
    normal, attacked, *_ = recordings
    files = (
        write(tmp_path / "n.csv", normal, form=form),
        write(tmp_path / "a.csv", attacked, (7, 8), form),
    )
    data = read_swat(*files, window=4, stride=3)
    low, high = normal.min(0), normal.max(0)
    for split, values in (
        (data.search, normal[:51]),
        (data.validation, normal[51:]),
        (data.test, attacked),
    ):
        starts = range(0, len(values) - 3, 3)
        assert split.images.shape == (len(starts), 4, 4, 1)
        for image, start in zip(split.images[..., 0], starts, strict=True):
            part = values[start : start + 4]
            share = (part[:, :3] - low[:3]) / (high - low)[:3] * 255
            np.testing.assert_allclose(image[:, :3], share.clip(0, 255), atol=0.5 + 1e-6)
            pump = np.where(part[:, 3] > 1, 255, np.where(part[:, 3] < 1, 0, 128))
            np.testing.assert_array_equal(image[:, 3], pump)
        assert values is attacked or not split.labels.any()
    # Windows start at 0, 3, 6, ...: rows 7 and 8 lie in the third one only, which begins at 6.
    np.testing.assert_array_equal(np.flatnonzero(data.test.labels), [2])
    assert data.test.images[:, :, 1].max() == 255
    assert data.classes == ("normal", "attack")


def test_both_ends_of_a_range_are_exact(tmp_path):
    values = np.array([[0.1], [0.3], [0.2], [0.2]] * 3)
    path = write(tmp_path / "n.csv", values, sensors=("A",))
    other = write(tmp_path / "a.csv", np.array([[0.199999], [0.2], [9], [-9]]), sensors=("A",))
    data = read_swat(path, other, window=1, stride=1)
    np.testing.assert_array_equal(data.search.images[:4].ravel(), [0, 255, 128, 128])
    np.testing.assert_array_equal(data.test.images.ravel(), [127, 128, 255, 0])


def test_columns_of_zeros_fill_up(recordings):
    _, _, normal, attacked = recordings
    wide = read_swat(normal, attacked, window=5, multiple=8)
    narrow = read_swat(normal, attacked, window=5)
    assert wide.search.images.shape[1:] == (5, 8, 1)
    np.testing.assert_array_equal(wide.test.images[:, :, :4], narrow.test.images)
    assert not wide.test.images[:, :, 4:].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header from Timestamp to Normal/Attack"),
        ("a\nb\nTimestamp,A,Normal/Attack\n1,2,Normal\n", "in the first 2 lines"),
        ("Timestamp;A;Normal/Attack\n1;2;Normal\n", "with commas between"),
        ("Timestamp,Normal/Attack\n1,Normal\n", "expected sensors between"),
        ("Timestamp,A,Normal/Attack\n", "expected rows below the header"),
        ("Timestamp,A,Normal/Attack\n1,2,Normal\n1,Normal\n", "line 3: expected 3 cells, found 2"),
        ("Timestamp,A,Normal/Attack\n1,x,Normal\n", "line 2: could not convert .*'x'"),
        ("Timestamp,A,Normal/Attack\n1,2,normal?\n", "line 2: expected Normal or Attack, found"),
        ("Timestamp,A,Normal/Attack\n1,nan,Normal\n", "A is nan in data row 1"),
        ("Timestamp,A,Normal/Attack\n1,1e12,Normal\n", "expected a number of magnitude below"),
        ("Timestamp,A,Normal/Attack\n1,2,Attack\n", "found an attack in data row 1"),
        ("Timestamp,A,Normal/Attack\n1,2,Normal\n", "0 rows are left for windows of 2"),
    ],
)
def test_refuses_another_format(tmp_path, text, message):
    path = tmp_path / "n.csv"
    path.write_text(text)
    other = write(tmp_path / "a.csv", np.ones((9, 1)), sensors=("A",))
    with pytest.raises(QevoError, match=message):
        read_swat(path, other, window=2)


@pytest.mark.parametrize("content", [b"PK\x03\x04\x14\xff", b"Temp \xb0C", b"1" * 140_000])
def test_refuses_what_is_no_text(tmp_path, content):
    path = tmp_path / "n.csv"
    path.write_bytes(content)
    with pytest.raises(QevoError, match=f"{path}: expected comma-separated text in UTF-8"):
        read_swat(path, path, window=2)


def test_refuses_what_does_not_fit(recordings, tmp_path):
    normal, attacked, path, other = recordings
    with pytest.raises(QevoError, match="no such file; SWaT is given on request"):
        read_swat(tmp_path / "none.csv", other)
    renamed = write(tmp_path / "b.csv", attacked, sensors=("FIT101", "LIT102", "MV101", "P101"))
    with pytest.raises(QevoError, match=r"other sensors than .*: LIT101, LIT102"):
        read_swat(path, renamed)
    reversed_ = write(tmp_path / "c.csv", attacked, sensors=SENSORS[::-1])
    with pytest.raises(QevoError, match=r"other sensors .*: their order"):
        read_swat(path, reversed_)
    long = write(tmp_path / "d.csv", np.tile(normal, (9, 1)))
    with pytest.raises(QevoError, match=r"attack.csv: 30 rows are left for windows of 31"):
        read_swat(long, other, window=31)
    with pytest.raises(QevoError, match="must be at least 1, got 0, 8, 1"):
        read_swat(path, other, window=0)
