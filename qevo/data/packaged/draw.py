"""Draw `fashion_mnist_small` from the full Fashion-MNIST; deterministic.

python -m qevo.data.packaged.draw FASHION_MNIST_FOLDER [--out FOLDER]
"""

import argparse
import lzma
import struct
from pathlib import Path

import numpy as np

from qevo.data.dataset import Split, stratified
from qevo.data.files import IDX, read_idx_folder
from qevo.data.known import KNOWN
from qevo.data.packaged import FOLDER, NAME
from qevo.errors import QevoError

TRAIN, TEST = 10_000, 2_000


def draw(folder: Path) -> dict[str, bytes]:
    """The four idx files of the subset, not yet compressed, by name.

    Rows are drawn by class from the official training and test files and keep their order.

    Raises:
      QevoError: where `folder` does not hold the full Fashion-MNIST.
    """
    parts = read_idx_folder(folder, KNOWN["fashion_mnist"])
    if parts is None or parts.test is None:
        raise QevoError(f"{folder}: expected the four idx files of Fashion-MNIST, found none")
    files: dict[str, bytes] = {}
    for split, size, part, stems in (
        (parts.train, TRAIN, "train", IDX[:2]),
        (parts.test, TEST, "test", IDX[2:]),
    ):
        _, rows = stratified(split.labels, size, key=f"{NAME} {part}")
        files |= zip(stems, _idx(split.take(np.sort(rows))), strict=True)
    return files


def _idx(split: Split) -> tuple[bytes, bytes]:
    n, height, width, _ = split.images.shape
    return (
        struct.pack(">4B3I", 0, 0, 8, 3, n, height, width) + split.images.tobytes(),
        struct.pack(">4BI", 0, 0, 8, 1, n) + split.labels.astype(np.uint8).tobytes(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of the four original idx files")
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: the package itself")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, data in draw(arguments.source).items():
        file = arguments.out / f"{name}.xz"
        file.write_bytes(lzma.compress(data))
        print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
