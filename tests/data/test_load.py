"""Names and paths, the order of places, and the errors that say what was looked for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qevo import data
from qevo.errors import QevoError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data anywhere but in the package."""
    monkeypatch.delenv("QEVO_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def test_named_set_from_files(
    tmp_path: Path, write_idx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_idx(tmp_path / "fashion_mnist", gz=True)
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    found = data.load("fashion_mnist", validation=10)
    assert [len(s) for s in (found.search, found.validation, found.test)] == [30, 10, 20]
    assert found.classes[9] == "Ankle boot"
    assert found.name == "fashion_mnist"
    assert found.source == f"idx files in {folder}"
    with pytest.raises(QevoError, match=r"^fashion_mnist \(idx.*cannot hold out 5000 of 40 images"):
        data.load("fashion_mnist")


def test_damaged_files_are_not_passed_over(
    tmp_path: Path, write_idx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_idx(tmp_path / "mnist") / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    with pytest.raises(QevoError, match=f"^{path}: expected 15696 bytes for 20 items, found 1000"):
        data.load("mnist")


@pytest.mark.parametrize(
    ("name", "files"), [("mnist", "train-images-idx3-ubyte"), ("cifar10", "cifar-10-batches-bin")]
)
def test_nothing_found_says_where_and_offers_the_packaged_set(
    tmp_path: Path, name: str, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = rf"data set in {tmp_path / 'tfds' / name}\."
    with pytest.raises(QevoError, match=rf"QEVO_DATA_DIR is not set\); .*{prepared}"):
        data.load(name)
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    ours = tmp_path / "tensorflow_datasets" / name
    message = rf"^{name}: not found.*{files}.* in {tmp_path / name}; .*{ours}; .*{prepared}.*"
    with pytest.raises(QevoError, match=rf"{message}use fashion_mnist_small"):
        data.load(name)


def test_missing_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path / "gone"))
    with pytest.raises(QevoError, match=rf"^QEVO_DATA_DIR={tmp_path}/gone: expected a folder"):
        data.load("mnist")


def test_unknown_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QevoError, match=r"^mnits: expected one of mnist, .*fashion_mnist_small"):
        data.load("mnits")
    for path in ("./mnits", tmp_path / "none.npz"):
        with pytest.raises(QevoError, match=r": no such file or folder$"):
            data.load(path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(QevoError, match=r"^notes\.txt: expected an \.npz file"):
        data.load("notes.txt")


def test_a_bare_name_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", images=np.zeros((20, 2, 2), np.uint8), labels=np.arange(20) % 2)
    assert data.load("mine.npz").name == "mine"


def test_tensorflow_datasets_is_imported_only_where_needed() -> None:
    code = (
        "import sys; from qevo import data; data.load('fashion_mnist_small'); "
        "sys.exit('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
