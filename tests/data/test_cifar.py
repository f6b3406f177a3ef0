"""CIFAR-10 batches, binary and python: the channel order, and what is refused."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qevo.data.files import (
    CIFAR_BATCHES,
    read_cifar_binary,
    read_cifar_folder,
    read_cifar_python,
)
from qevo.data.known import KNOWN
from qevo.errors import QevoError

CIFAR = KNOWN["cifar10"]
N = 4  # records per file


def batch(seed: int) -> tuple[np.ndarray, list[int]]:
    """Pixels uint8 [N, 3072] (red, green, blue planes) and labels."""
    draw = np.random.RandomState(seed)
    return draw.randint(0, 256, (N, 3072), np.uint8), draw.randint(0, 10, N).tolist()


def binary(pixels: np.ndarray, labels: list[int]) -> bytes:
    return b"".join(
        bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True)
    )


def python3(pixels: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2)


def python2(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The same batch as Python 2 and numpy of its day pickled it: the published files."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R"
    dtype += b"(K\3" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"J" + struct.pack("<i", len(pixels)) + b"J" + struct.pack("<i", pixels.shape[1])
    raw = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    state = b"(K\1" + shape + b"\x86" + dtype + b"\x89" + raw + b"tb"
    values = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\2}(" + text(b"data") + array + state + text(b"labels") + values + b"u."


def write(folder: Path, inner: str, suffix: str, encode: Callable[..., bytes]) -> Path:
    (folder / inner).mkdir(parents=True)
    for seed, name in enumerate(CIFAR_BATCHES):
        (folder / inner / f"{name}{suffix}").write_bytes(encode(*batch(seed)))
    return folder


@pytest.mark.parametrize(
    ("inner", "suffix", "encode"),
    [
        ("cifar-10-batches-bin", ".bin", binary),
        ("cifar-10-batches-py", "", python2),
        ("cifar-10-batches-py", "", python3),
    ],
)
def test_folder_is_read_back(
    tmp_path: Path, inner: str, suffix: str, encode: Callable[..., bytes]
) -> None:
    parts = read_cifar_folder(write(tmp_path, inner, suffix, encode), CIFAR, records=N)
    assert parts is not None
    assert parts.test is not None
    assert parts.train.images.shape == (5 * N, 32, 32, 3)
    for seed in range(6):
        pixels, labels = batch(seed)
        split, first = (parts.train, seed * N) if seed < 5 else (parts.test, 0)
        assert split.labels[first : first + N].tolist() == labels
        for row in range(N):
            image = split.images[first + row]
            for channel in range(3):
                for y, x in ((0, 0), (1, 0), (31, 30)):
                    assert image[y, x, channel] == pixels[row, 1024 * channel + 32 * y + x]
    assert parts.classes[:2] == ("airplane", "automobile")
    assert parts.source == f"CIFAR files in {tmp_path / inner}"


def test_no_folder_is_none_and_a_missing_batch_is_named(tmp_path: Path) -> None:
    assert read_cifar_folder(tmp_path, CIFAR, records=N) is None
    write(tmp_path, "cifar-10-batches-bin", ".bin", binary)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(QevoError, match=r"missing: data_batch_3\.bin"):
        read_cifar_folder(tmp_path, CIFAR, records=N)


@pytest.mark.parametrize("size", [0, 3073 * 3, 3073 * N - 1, 3073 * N + 1])
def test_binary_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "test_batch.bin"
    path.write_bytes(binary(*batch(0)).ljust(size, b"\0")[:size])
    message = rf"^{path}: expected 12292 bytes \(4 records of 3073\), found {size}$"
    with pytest.raises(QevoError, match=message):
        read_cifar_binary(path, CIFAR, records=N)


def test_label_out_of_range_is_refused(tmp_path: Path) -> None:
    pixels, _ = batch(0)
    for reader, encode in ((read_cifar_binary, binary), (read_cifar_python, python2)):
        path = tmp_path / encode.__name__
        path.write_bytes(encode(pixels, [0, 9, 10, 0]))
        with pytest.raises(
            QevoError, match=rf"^{path}: expected labels 0 to 9, found 10 at image 2"
        ):
            reader(path, CIFAR, records=N)


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1/0",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (python2(*batch(0))[:-100], "found .*"),
        (b"", "found EOFError"),
        (b"not a pickle", "found .*"),
        (pickle.dumps(Exploit()), r"found UnpicklingError: builtins\.eval is not part of an array"),
        (pickle.dumps([1, 2]), "found .*"),
        (pickle.dumps({"labels": [1]}), "found KeyError"),
        (python2(batch(0)[0][:3], [0, 0, 0]), r"expected data uint8 \[4, 3072\].* \[3, 3072\]"),
        (python2(batch(0)[0], [0, 0, 0]), r"expected 4 integer labels, found int64 \[3\]"),
        (python3(batch(0)[0].astype(np.int16), [0] * 4), r"expected data uint8 .* found int16"),
    ],
)
def test_python_batch_that_is_none_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(data)
    with pytest.raises(QevoError, match=rf"^{path}: .*{message}"):
        read_cifar_python(path, CIFAR, records=N)
