"""The subset that comes with qevo: balanced, small, quick, and drawn as its script says."""

import lzma
import os
import time
from pathlib import Path

import numpy as np
import pytest

from qevo import data
from qevo.data import packaged
from qevo.data.files import IDX
from qevo.data.packaged.draw import draw, main
from qevo.errors import QevoError


def test_sizes_and_balance() -> None:
    found = data.load("fashion_mnist_small")
    splits = (found.search, found.validation, found.test)
    for split, n in zip(splits, (8_000, 2_000, 2_000), strict=True):
        assert split.images.shape == (n, 28, 28, 1)
        assert np.bincount(split.labels).tolist() == [n // 10] * 10
        blocks = split.labels.reshape(-1, 500)  # no block of a pass over the data is one-sided
        assert all(np.bincount(block, minlength=10).min() > 20 for block in blocks)
    images = {image.tobytes() for split in splits for image in split.images}
    assert len(images) == 12_000
    assert found.name == "fashion_mnist_small"
    assert found.classes[0] == "T-shirt/top"


def test_splits_are_pinned() -> None:
    assert (
        data.load("fashion_mnist_small", seed=0).fingerprint()
        == "8e13596626a3ccfd26df3c592ea95979b842a97af923840119669cd1256e024f"
    )


def test_the_seed_redraws_validation_and_leaves_test() -> None:
    first, other = (data.load("fashion_mnist_small", seed=seed) for seed in (0, 1))
    assert first.fingerprint() != other.fingerprint()
    np.testing.assert_array_equal(first.test.images, other.test.images)


def test_size_licence_and_time() -> None:
    files = sorted(file.name for file in packaged.FOLDER.iterdir())
    assert files == sorted(["LICENSE", *(f"{stem}.xz" for stem in IDX)])
    assert sum(file.stat().st_size for file in packaged.FOLDER.iterdir()) <= 6_000_000
    assert "Copyright © 2017 Zalando SE" in (packaged.FOLDER / "LICENSE").read_text("utf-8")
    start = time.process_time()
    data.load("fashion_mnist_small")
    assert time.process_time() - start < 2


def test_a_lost_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    with pytest.raises(QevoError, match=f"^{tmp_path}: the packaged data is gone"):
        data.load("fashion_mnist_small")


def test_draw_needs_the_full_set(tmp_path: Path) -> None:
    with pytest.raises(QevoError, match=f"^{tmp_path}: expected the four idx files"):
        draw(tmp_path)


@pytest.mark.data
def test_drawn_again_it_is_the_same() -> None:
    for name, redrawn in draw(Path(os.environ["QEVO_DATA_DIR"]) / "fashion_mnist").items():
        assert lzma.decompress((packaged.FOLDER / f"{name}.xz").read_bytes()) == redrawn, name


@pytest.mark.data
def test_the_command_writes_a_readable_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(os.environ["QEVO_DATA_DIR"]) / "fashion_mnist"
    monkeypatch.setattr("sys.argv", ["draw", str(source), "--out", str(tmp_path / "new")])
    main()
    expected = data.load("fashion_mnist_small").fingerprint()
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "new")
    assert data.load("fashion_mnist_small").fingerprint() == expected
