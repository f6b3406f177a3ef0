"""tensorflow-datasets without TensorFlow, on a data set prepared here from local arrays."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from prepared import to_tfrecord

from qevo import data
from qevo.data import tfds as reader
from qevo.data.known import KNOWN
from qevo.errors import QevoError

VERSION = "3.0.1"
MNIST = KNOWN["mnist"]
Digits = tuple[np.ndarray, ...]
Prepare = Callable[..., Path]


class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Prepares `parts`, {split: (images, labels)}, as tensorflow-datasets prepares MNIST."""

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing is downloaded
    parts: dict[str, tuple[np.ndarray, np.ndarray]]

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(*self.parts["train"][0].shape[1:], 1)),
                "label": tfds.features.ClassLabel(num_classes=20),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {name: self._generate_examples(*part) for name, part in self.parts.items()}

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()  # an array would be encoded by TensorFlow
            Image.fromarray(image).save(png, "PNG")
            png.seek(0)
            yield key, {"image": png, "label": int(label)}


@pytest.fixture
def prepare(tmp_path: Path, digits: Digits) -> Prepare:
    """Prepare `digits`, or other parts, in a file format; returns the folder of the version."""
    tfds.disable_progress_bar()

    def run(
        file_format: str,
        parts: dict[str, tuple[np.ndarray, np.ndarray]] | None = None,
        root: Path = tmp_path / "tensorflow_datasets",
    ) -> Path:
        made = parts or {"train": (digits[0], digits[1]), "test": (digits[2], digits[3])}
        builder = type("Mnist", (Mnist,), {"parts": made}, skip_registration=True)
        builder(data_dir=root, file_format=file_format).download_and_prepare()
        return root / "mnist" / VERSION

    return run


def rows(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((i.tobytes(), int(label)) for i, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("file_format", ["array_record", "parquet", "tfrecord"])
def test_every_format_is_read_back(
    prepare: Prepare, digits: Digits, file_format: str, tmp_path: Path
) -> None:
    folder = prepare("array_record" if file_format == "tfrecord" else file_format)
    if file_format == "tfrecord":
        to_tfrecord(folder)
    parts = reader.read(folder, MNIST)
    assert parts.test is not None
    assert rows(parts.train.images, parts.train.labels) == rows(digits[0], digits[1])
    assert rows(parts.test.images, parts.test.labels) == rows(digits[2], digits[3])
    assert parts.source == f"tensorflow-datasets mnist/{VERSION}"


def test_load_finds_it_under_the_same_name(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("array_record")
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    found = data.load("mnist", validation=10)
    assert [len(s) for s in (found.search, found.validation, found.test)] == [30, 10, 20]
    assert found.source == f"tensorflow-datasets mnist/{VERSION}"

    monkeypatch.delenv("QEVO_DATA_DIR")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))
    assert data.load("mnist", validation=10).fingerprint() == found.fingerprint()


def test_original_files_come_first(
    prepare: Prepare,
    write_idx: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare("array_record")
    folder = write_idx(tmp_path / "mnist")
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    assert data.load("mnist", validation=10).source == f"idx files in {folder}"


def test_the_latest_version_of_the_first_root_is_found(tmp_path: Path) -> None:
    for version in ("3.9.0", "3.10.0", "incomplete.AB_4.0.0"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "features.json").touch()
    assert reader.find("mnist", [tmp_path / "none", tmp_path]) == tmp_path / "mnist" / "3.10.0"
    assert reader.find("cifar10", [tmp_path]) is None


@pytest.mark.parametrize("cut", [1, 5, 3000])
def test_truncated_tfrecord_is_named(prepare: Prepare, cut: int) -> None:
    folder = prepare("array_record")
    to_tfrecord(folder)
    path = next(folder.glob("*-train.tfrecord-*"))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(QevoError, match=rf"^{path}: expected whole records, found one cut off"):
        reader.read(folder, MNIST)


def test_lost_or_doubled_records_are_found(prepare: Prepare) -> None:
    folder = prepare("array_record")
    to_tfrecord(folder)
    path = next(folder.glob("*-train.tfrecord-*"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole)
    with pytest.raises(QevoError, match="train: expected 40 examples, found more"):
        reader.read(folder, MNIST)
    path.write_bytes(b"")
    with pytest.raises(QevoError, match="train: expected 40 examples, found 0"):
        reader.read(folder, MNIST)


def test_damaged_folder_is_named(prepare: Prepare) -> None:
    folder = prepare("array_record")
    path = next(folder.glob("*-test.array_record-*"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(QevoError, match=rf"^{folder}: expected a prepared tensorflow-datasets"):
        reader.read(folder, MNIST)


def test_other_data_under_the_name_is_refused(prepare: Prepare, digits: Digits) -> None:
    images, labels = digits[:2]
    folder = prepare("array_record", {"train": (images[:, :14], labels), "test": (images, labels)})
    with pytest.raises(QevoError, match=r"train: expected images uint8 \[28, 28, 1\], found uint8"):
        reader.read(folder, MNIST)


def test_label_out_of_range_and_missing_part(
    prepare: Prepare, digits: Digits, tmp_path: Path
) -> None:
    images, labels = digits[:2]
    parts = {"train": (images, labels + 1), "test": (images, labels)}
    with pytest.raises(QevoError, match="train: expected labels 0 to 9, found 10 at image"):
        reader.read(prepare("array_record", parts, tmp_path / "a"), MNIST)
    folder = prepare("array_record", {"train": (images, labels)}, tmp_path / "b")
    with pytest.raises(QevoError, match="with train and test, found"):
        reader.read(folder, MNIST)


def test_missing_package_is_said(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare("array_record")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(QevoError, match=r"needs tensorflow-datasets .*'\.\[data\]'"):
        reader.read(folder, MNIST)
