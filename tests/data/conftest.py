"""Small data sets in the original formats, written byte by byte."""

import gzip
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(autouse=True)
def no_tensorflow() -> Iterator[None]:
    """Whatever is read, it is read without TensorFlow."""
    yield
    assert "tensorflow" not in sys.modules


@pytest.fixture
def digits() -> tuple[np.ndarray, ...]:
    """Train images [40, 28, 28], labels [40], test images [20, 28, 28], labels [20], all uint8."""
    draw = np.random.RandomState(0)
    return (
        draw.randint(0, 256, (40, 28, 28), np.uint8),
        (np.arange(40) % 10).astype(np.uint8),
        draw.randint(0, 256, (20, 28, 28), np.uint8),
        (np.arange(20) % 10).astype(np.uint8),
    )


@pytest.fixture
def write_idx(digits: tuple[np.ndarray, ...]) -> Callable[..., Path]:
    """Write the four idx files of `digits`, raw or gzipped, into a new folder and return it."""

    def write(folder: Path, *, gz: bool = False) -> Path:
        folder.mkdir(parents=True)
        for stem, array in zip(IDX, digits, strict=True):
            data = idx_bytes(array)
            (folder / f"{stem}{'.gz' * gz}").write_bytes(gzip.compress(data) if gz else data)
        return folder

    return write
