"""idx files: what is read back, and every way in which a file can be wrong."""

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qevo.data.files import read_idx, read_idx_folder
from qevo.data.known import KNOWN
from qevo.errors import QevoError

MNIST = KNOWN["mnist"]
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
WriteIdx = Callable[..., Path]


@pytest.mark.parametrize("gz", [False, True])
def test_folder_is_read_back(
    tmp_path: Path, write_idx: WriteIdx, digits: tuple[np.ndarray, ...], gz: bool
) -> None:
    parts = read_idx_folder(write_idx(tmp_path / "mnist", gz=gz), MNIST)
    assert parts is not None
    assert parts.test is not None
    np.testing.assert_array_equal(parts.train.images[..., 0], digits[0])
    np.testing.assert_array_equal(parts.train.labels, digits[1])
    np.testing.assert_array_equal(parts.test.images[..., 0], digits[2])
    np.testing.assert_array_equal(parts.test.labels, digits[3])
    assert parts.classes == tuple("0123456789")
    assert parts.source == f"idx files in {tmp_path / 'mnist'}"


def test_xz_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.xz"
    path.write_bytes(lzma.compress(struct.pack(">4BI3B", 0, 0, 8, 1, 3, 7, 8, 9)))
    assert read_idx(path).tolist() == [7, 8, 9]


def test_no_file_is_none_and_some_files_are_an_error(tmp_path: Path, write_idx: WriteIdx) -> None:
    assert read_idx_folder(tmp_path, MNIST) is None
    folder = write_idx(tmp_path / "mnist")
    (folder / LABELS).unlink()
    with pytest.raises(QevoError, match=f"{folder}.* missing: {LABELS}$"):
        read_idx_folder(folder, MNIST)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (IMAGES, lambda d: d[:-1], "expected 31376 bytes for 40 items, found 31375"),
        (IMAGES, lambda d: d + b"\0", "expected 31376 bytes for 40 items, found 31377"),
        (IMAGES, lambda d: d[:9], "expected an idx header of 16 bytes, found 9"),
        (IMAGES, lambda d: b"", "expected an idx header of 16 bytes, found 0"),
        (IMAGES, lambda d: b"\0\0\x0d\3" + d[4:], "expected idx magic 00000803, found 00000d03"),
        (IMAGES, lambda d: gzip.compress(d), "expected idx magic 00000803, found 1f8b"),
        (
            IMAGES,
            lambda d: d[:8] + struct.pack(">2I", 56, 14) + d[16:],
            r"expected sizes \[n >= 1, 28, 28\], found \[40, 56, 14\]",
        ),
        (LABELS, lambda d: d[:4] + bytes(4), r"expected sizes \[n >= 1\], found \[0\]"),
        (LABELS, lambda d: d[:-1], "expected 48 bytes for 40 items, found 47"),
        (LABELS, lambda d: d[:-1] + b"\x0a", "expected labels 0 to 9, found 10 at image 39"),
        (
            LABELS,
            lambda d: d[:4] + struct.pack(">I", 39) + d[8:-1],
            f"expected 40 labels, one per image of {IMAGES}, found 39",
        ),
    ],
)
def test_spoiled_file_is_named(
    tmp_path: Path,
    write_idx: WriteIdx,
    name: str,
    spoil: Callable[[bytes], bytes],
    message: str,
) -> None:
    path = write_idx(tmp_path / "mnist") / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(QevoError, match=f"^{path}: {message}"):
        read_idx_folder(path.parent, MNIST)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("keep", [0, 5, 20, 500])
def test_truncated_stream_is_named(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"{LABELS}{suffix}"
    pack = gzip.compress if suffix == ".gz" else lzma.compress
    noise = np.random.RandomState(0).bytes(1000)
    path.write_bytes(pack(struct.pack(">4BI", 0, 0, 8, 1, 1000) + noise)[:keep])
    with pytest.raises(QevoError, match=rf"^{path}: expected "):
        read_idx(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_flipped_byte_in_a_stream_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"{LABELS}{suffix}"
    pack = gzip.compress if suffix == ".gz" else lzma.compress
    packed = bytearray(pack(struct.pack(">4BI", 0, 0, 8, 1, 99) + bytes(range(99))))
    packed[len(packed) // 2] ^= 1
    path.write_bytes(packed)
    with pytest.raises(QevoError, match=rf"^{path}: expected a whole {suffix} stream"):
        read_idx(path)
