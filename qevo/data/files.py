"""Readers of the original files: idx (MNIST, Fashion-MNIST) and CIFAR-10 binary or python."""

import gzip
import io
import lzma
import math
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qevo.data.dataset import Parts, Split
from qevo.data.known import Known
from qevo.errors import QevoError

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
CIFAR_RECORDS = 10_000  # per official file
_ARRAY_NAMES = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_OPENERS = {"": bytes, ".gz": gzip.decompress, ".xz": lzma.decompress}


def read_idx_folder(folder: Path, known: Known) -> Parts | None:
    """Read the four idx files of `folder`, each raw, ``.gz`` or ``.xz``; None where none is there.

    Raises:
      QevoError: where only some are there, or one is damaged or does not hold `known`.
    """
    found = {
        stem: next((p for s in _OPENERS if (p := folder / f"{stem}{s}").is_file()), None)
        for stem in IDX
    }
    if not any(found.values()):
        return None
    if missing := [stem for stem, path in found.items() if path is None]:
        raise QevoError(f"{folder}: expected {', '.join(IDX)}; missing: {', '.join(missing)}")
    paths = [path for path in found.values() if path is not None]
    train, test = (_idx_split(images, labels, known) for images, labels in (paths[:2], paths[2:]))
    return Parts(train, test, known.classes, f"idx files in {folder}")


def _idx_split(images: Path, labels: Path, known: Known) -> Split:
    pixels, targets = read_idx(images, known.shape[:2]), read_idx(labels)
    if len(pixels) != len(targets):
        raise QevoError(
            f"{labels}: expected {len(pixels)} labels, one per image of {images.name}, "
            f"found {len(targets)}"
        )
    check_labels(targets, len(known.classes), labels)
    return Split(pixels.reshape(-1, *known.shape), targets.astype(np.int32))


def read_idx(path: Path, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Read an idx file of bytes, raw or compressed by its suffix.

    Args:
      path: the file.
      shape: of one item: ``(H, W)`` for images, ``()`` for labels.

    Returns:
      uint8 ``[n, *shape]``, read-only, n at least 1.

    Raises:
      QevoError: where the stream is damaged, the header is not that of such a file, or the bytes
        are not exactly as many as it announces.
    """
    data = path.read_bytes()
    try:
        data = _OPENERS.get(path.suffix, bytes)(data)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise QevoError(
            f"{path}: expected a whole {path.suffix} stream, found damaged or truncated data "
            f"({error})"
        ) from None
    axes = 1 + len(shape)
    header = 4 + 4 * axes
    if len(data) < header:
        raise QevoError(f"{path}: expected an idx header of {header} bytes, found {len(data)}")
    magic = bytes((0, 0, 8, axes))  # 8: unsigned bytes
    if data[:4] != magic:
        raise QevoError(f"{path}: expected idx magic {magic.hex()}, found {data[:4].hex()}")
    n, *item = (int(size) for size in np.frombuffer(data, ">u4", axes, 4))
    if tuple(item) != shape or n == 0:
        wanted = ", ".join(["n >= 1", *map(str, shape)])
        raise QevoError(f"{path}: expected sizes [{wanted}], found {[n, *item]}")
    expected = header + n * math.prod(shape)
    if len(data) != expected:
        raise QevoError(f"{path}: expected {expected} bytes for {n} items, found {len(data)}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(n, *shape)


def read_cifar_folder(folder: Path, known: Known, *, records: int = CIFAR_RECORDS) -> Parts | None:
    """Read CIFAR-10 from ``cifar-10-batches-bin`` or ``-py`` in `folder`; None where neither is.

    Args:
      folder: the parent of the official folder.
      known: shape and classes.
      records: in each of the six files; the format has no header that would tell.

    Raises:
      QevoError: where a file is missing, damaged, or of another size.
    """
    for name, suffix, reader in zip(
        CIFAR_FOLDERS, (".bin", ""), (read_cifar_binary, read_cifar_python), strict=True
    ):
        if not (inner := folder / name).is_dir():
            continue
        paths = [inner / f"{batch}{suffix}" for batch in CIFAR_BATCHES]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise QevoError(f"{inner}: expected six batch files; missing: {', '.join(missing)}")
        splits = [reader(path, known, records=records) for path in paths]
        return Parts(_joined(splits[:-1]), splits[-1], known.classes, f"CIFAR files in {inner}")
    return None


def read_cifar_binary(path: Path, known: Known, *, records: int = CIFAR_RECORDS) -> Split:
    """Read one ``.bin`` batch: per record a label byte, then red, green and blue planes.

    Raises:
      QevoError: where the size is not that of `records` records or a label is out of range.
    """
    size = 1 + math.prod(known.shape)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if len(data) != records * size:
        raise QevoError(
            f"{path}: expected {records * size} bytes ({records} records of {size}), "
            f"found {len(data)}"
        )
    rows = data.reshape(records, size)
    return _cifar_split(rows[:, 1:], rows[:, 0], known, path)


def read_cifar_python(path: Path, known: Known, *, records: int = CIFAR_RECORDS) -> Split:
    """Read one python batch, a pickle of ``{b"data": uint8 [n, 3072], b"labels": list}``.

    Only arrays and plain values are unpickled: a file cannot run code.

    Raises:
      QevoError: where the pickle is damaged, asks for anything else, or holds other arrays.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = (
            np.asarray(batch[key] if key in batch else batch[key.decode()])
            for key in (b"data", b"labels")
        )
    except Exception as error:  # a damaged pickle raises nearly anything
        raise QevoError(
            f"{path}: expected a pickled CIFAR batch with data and labels, "
            f"found {type(error).__name__}: {error}"
        ) from None
    expected = (records, math.prod(known.shape))
    if pixels.dtype != np.uint8 or pixels.shape != expected:
        raise QevoError(
            f"{path}: expected data uint8 {list(expected)}, "
            f"found {pixels.dtype} {list(pixels.shape)}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != (records,):
        raise QevoError(
            f"{path}: expected {records} integer labels, found {labels.dtype} {list(labels.shape)}"
        )
    return _cifar_split(pixels, labels, known, path)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain values and refuses every other name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.split(".")[0] == "numpy" and global_name in _ARRAY_NAMES:
            return _ARRAY_NAMES[global_name]
        if (module_name, global_name) == ("_codecs", "encode"):  # bytes, written by Python 3
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not part of an array")


def _cifar_split(planes: np.ndarray, labels: np.ndarray, known: Known, path: Path) -> Split:
    check_labels(labels, len(known.classes), path)
    height, width, channels = known.shape
    images = planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))


def _joined(splits: Sequence[Split]) -> Split:
    return Split(
        np.concatenate([split.images for split in splits]),
        np.concatenate([split.labels for split in splits]),
    )


def check_labels(labels: np.ndarray, classes: int, where: object) -> None:
    """Raise QevoError where a label of `labels`, int [n], is not in 0..classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise QevoError(
            f"{where}: expected labels 0 to {classes - 1}, "
            f"found {labels[wrong[0]]} at image {wrong[0]}"
        )
