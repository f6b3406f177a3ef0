"""From a name or a path to a data set: what is looked for, where, and in which order."""

import os
from pathlib import Path

from qevo.data import packaged, tfds
from qevo.data.dataset import Dataset, Parts, divide
from qevo.data.files import CIFAR_FOLDERS, IDX, read_cifar_folder, read_idx_folder
from qevo.data.folders import read_image_folder, read_npz
from qevo.data.known import KNOWN
from qevo.errors import QevoError

NAMES = (*KNOWN, packaged.NAME)


def load(
    name_or_path: str | os.PathLike[str], *, seed: int = 0, validation: int | None = None
) -> Dataset:
    """Load a data set and split it into search, validation and test.

    ``mnist``, ``fashion_mnist`` and ``cifar10`` are looked for as original files under
    ``QEVO_DATA_DIR/NAME``, then as prepared by tensorflow-datasets; their test split is the
    official test set. ``fashion_mnist_small`` comes with qevo: 10,000 of Fashion-MNIST's training
    images and 2,000 of its test images. Anything with a path separator, or that exists, is a path:
    an ``.npz`` file (`qevo.data.folders.read_npz`) or a folder with one sub-folder of images per
    class (`qevo.data.folders.read_image_folder`).

    Args:
      name_or_path: which data.
      seed: of the split; the same seed and source give the same splits on every platform.
      validation: images held out of the training part. By default 5,000 (``fashion_mnist_small``:
        2,000); of a user's own data 15 %, and as many for test where it has no test part.

    Returns:
      Three disjoint splits of uint8 images [n, H, W, C] and int32 labels [n].

    Raises:
      QevoError: where nothing is found, or what is found is damaged, or the held-out images leave
        none of a class to search on.
    """
    name = os.fspath(name_or_path)
    if name == packaged.NAME:
        parts, default = packaged.read(), 2_000
    elif name in KNOWN:
        parts, default = _named(name), 5_000
    else:
        parts, default = _own(name), None
        name = Path(name).expanduser().resolve().name.removesuffix(".npz")
    return divide(
        parts, name=name, seed=seed, validation=default if validation is None else validation
    )


def _own(name: str) -> Parts:
    path = Path(name).expanduser()
    if path.is_dir():
        return read_image_folder(path)
    if path.exists():
        return read_npz(path)
    if path.name != name:
        raise QevoError(f"{name}: no such file or folder")
    raise QevoError(
        f"{name}: expected one of {', '.join(NAMES)}, or the path of an .npz file or of a folder "
        "of images; found no such name or path"
    )


def _named(name: str) -> Parts:
    known = KNOWN[name]
    prepared_in = [Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()]
    looked_for = ["original files (QEVO_DATA_DIR is not set)"]
    if variable := os.environ.get("QEVO_DATA_DIR"):
        data = Path(variable).expanduser()
        if not data.is_dir():
            raise QevoError(f"QEVO_DATA_DIR={variable}: expected a folder, found none")
        read = read_cifar_folder if name == "cifar10" else read_idx_folder
        if (parts := read(data / name, known)) is not None:
            return parts
        files = " or ".join(CIFAR_FOLDERS) if name == "cifar10" else ", ".join(IDX)
        looked_for = [f"{files} in {data / name}"]
        prepared_in.insert(0, data / "tensorflow_datasets")
    if (folder := tfds.find(name, prepared_in)) is not None:
        return tfds.read(folder, known)
    looked_for += [
        f"a prepared tensorflow-datasets data set in {root / name}" for root in prepared_in
    ]
    raise QevoError(
        f"{name}: not found. Looked for {'; '.join(looked_for)}. Put the original files under "
        f"QEVO_DATA_DIR/{name}, or use {packaged.NAME}, which comes with qevo"
    )
