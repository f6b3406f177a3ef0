"""A user's own arrays and image folders."""

import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qevo import data
from qevo.data.folders import read_image_folder, read_npz, read_unlabelled
from qevo.errors import QevoError

PIXELS = np.random.RandomState(0).randint(0, 256, (12, 5, 4, 3), np.uint8)
LABELS = np.arange(12) % 3


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def test_npz_with_everything(tmp_path: Path) -> None:
    parts = read_npz(
        npz(
            tmp_path,
            images=PIXELS,
            labels=LABELS.astype(np.uint8),
            test_images=PIXELS[:2],
            test_labels=LABELS[:2],
            classes=np.array(["cat", "dog", "eel"]),
        )
    )
    np.testing.assert_array_equal(parts.train.images, PIXELS)
    np.testing.assert_array_equal(parts.train.labels, LABELS)
    assert parts.test is not None
    assert parts.test.labels.tolist() == [0, 1]
    assert parts.classes == ("cat", "dog", "eel")


def test_npz_grey_without_test_is_split_70_15_15(tmp_path: Path) -> None:
    path = npz(tmp_path, images=np.zeros((40, 5, 4), np.uint8), labels=np.arange(40) % 2)
    found = data.load(path, seed=1)
    assert [len(s) for s in (found.search, found.validation, found.test)] == [28, 6, 6]
    assert found.search.images.shape[1:] == (5, 4, 1)
    assert found.name == "mine"
    assert found.classes == ("0", "1")
    assert found.source == f"arrays in {path}"
    assert len(data.load(str(path), validation=10).validation) == 10


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "expected arrays images and labels,.* found images$"),
        ({}, "found none$"),
        ({"images": PIXELS, "labels": LABELS, "x": LABELS}, "found images, labels, x$"),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS},
            "optionally test_images with test_labels,.* found images, labels, test_images$",
        ),
        (
            {"images": PIXELS / 255, "labels": LABELS},
            r"expected images uint8 \[n, H, W\].* found float64 \[12, 5, 4, 3\]",
        ),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, r"found uint8 \[0, 5, 4, 3\]"),
        ({"images": PIXELS, "labels": LABELS[:9]}, r"expected labels integers \[12\].* \[9\]"),
        ({"images": PIXELS, "labels": LABELS * 1.0}, "expected labels integers .* found float64"),
        ({"images": PIXELS, "labels": LABELS + 1}, "expected labels 0 to 2, found 3 at image 2"),
        ({"images": PIXELS, "labels": LABELS - 1}, "expected labels 0 to 2, found -1 at image 0"),
        (
            {"images": PIXELS, "labels": LABELS, "classes": np.array(["a", "b", "c", "d"])},
            r"expected labels 0 to 3, each at least once; found no 3 \(d\)",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS, "test_labels": LABELS + 1},
            "test_labels: expected labels 0 to 2, found 3",
        ),
        (
            {
                "images": PIXELS,
                "labels": LABELS,
                "test_images": PIXELS[:, 1:],
                "test_labels": LABELS,
            },
            r"expected test_images of shape \[5, 4, 3\], as images, found \[4, 4, 3\]",
        ),
        (
            {"images": PIXELS, "labels": np.array([None] * 12)},
            "expected a whole .npz file of plain arrays",
        ),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = npz(tmp_path, **arrays)
    with pytest.raises(QevoError, match=f"^{path}: .*{message}"):
        read_npz(path)


def test_damaged_npz_is_named(tmp_path: Path) -> None:
    path = npz(tmp_path, images=PIXELS, labels=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(QevoError, match=f"^{path}: expected an .npz file"):
        read_npz(path)
    huge = {"descr": "|u1", "fortran_order": False, "shape": (1 << 50, 4)}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, huge)
    locked = bytearray(whole)
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        locked[whole.index(mark) + (6 if mark[2] == 3 else 8)] |= 1  # the flag of a password
    for spoiled in (whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], locked):
        path.write_bytes(spoiled)
        with pytest.raises(QevoError, match=f"^{path}: expected a whole .npz file"):
            read_npz(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", header.getvalue())
    with pytest.raises(QevoError, match=f"^{path}: expected a whole .npz file"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images", b"text")
    with pytest.raises(QevoError, match=f"^{path}: expected an .npz file .* images is none"):
        read_npz(path)


def test_damaged_npy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    header = io.BytesIO()
    huge = {"descr": "|u1", "fortran_order": False, "shape": (1 << 50, 4)}
    np.lib.format.write_array_header_1_0(header, huge)
    for content in (b"", b"text", b"PK\x03\x04cut", header.getvalue()):
        path.write_bytes(content)
        with pytest.raises(QevoError, match=f"^{path}: expected a folder of images, or uint8"):
            read_unlabelled(path)


def save(path: Path, pixels: np.ndarray, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_image_folder(tmp_path: Path) -> None:
    for row, label in enumerate(LABELS):
        save(tmp_path / ["ant", "bee", "cat"][label] / f"{row:02}.png", PIXELS[row])
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").touch()
    (tmp_path / "ant" / ".DS_Store").touch()
    parts = read_image_folder(tmp_path)
    assert parts.classes == ("ant", "bee", "cat")
    assert parts.test is None
    assert parts.train.labels.tolist() == sorted(LABELS)
    np.testing.assert_array_equal(parts.train.images, PIXELS[np.argsort(LABELS, kind="stable")])
    found = data.load(tmp_path, seed=0)
    assert [len(s) for s in (found.search, found.validation, found.test)] == [8, 2, 2]
    assert found.name == tmp_path.name


def test_image_folder_with_train_and_test(tmp_path: Path) -> None:
    for row, label in enumerate("aabb"):
        save(tmp_path / "train" / label / f"{row}.bmp", PIXELS[row])
    save(tmp_path / "test" / "b" / "x.png", PIXELS[4])
    parts = read_image_folder(tmp_path)
    assert parts.test is not None
    assert parts.test.labels.tolist() == [1]
    np.testing.assert_array_equal(parts.test.images[0], PIXELS[4])
    np.testing.assert_array_equal(parts.train.images, PIXELS[:4])


def test_grey_stays_grey_and_joins_colour(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    save(tmp_path / "a" / "0.png", grey[0], "L")
    save(tmp_path / "b" / "1.png", grey[1], "LA")
    np.testing.assert_array_equal(read_image_folder(tmp_path).train.images[..., 0], grey[:2])
    save(tmp_path / "b" / "2.png", PIXELS[2], "RGBA")
    images = read_image_folder(tmp_path).train.images
    for channel in range(3):
        np.testing.assert_array_equal(images[:2, ..., channel], grey[:2])
    np.testing.assert_array_equal(images[2], PIXELS[2])


def test_palette_with_transparency_is_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS[0] // 128 * 255).convert("P")
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.png", transparency=bytes([0, 255]))
    save(tmp_path / "b" / "1.png", PIXELS[1])
    np.testing.assert_array_equal(
        read_image_folder(tmp_path).train.images[0], np.asarray(image.convert("RGB"))
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images, 4 x 5 pixels."""
    for row, label in enumerate("aabb"):
        save(tmp_path / label / f"{row}.png", PIXELS[row])
    return tmp_path


def test_unequal_sizes_name_both_files(folder: Path) -> None:
    path = save(folder / "b" / "9.png", PIXELS[0, :, :3])
    message = f"^{path}: expected 4 x 5 pixels, as in {folder / 'a' / '0.png'}, found 3 x 5"
    with pytest.raises(QevoError, match=message):
        read_image_folder(folder)


def png_of_16_bits(height: int, width: int) -> bytes:
    """A black one in colour, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(6 * width)) * height)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_damaged_or_foreign_files_are_named(folder: Path) -> None:
    path = folder / "b" / "9.png"
    whole = (folder / "a" / "0.png").read_bytes()
    for spoiled in (b"", b"text", whole[:-40], whole[:30]):
        path.write_bytes(spoiled)
        with pytest.raises(QevoError, match=f"^{path}: expected a whole image file"):
            read_image_folder(folder)
    Image.fromarray(PIXELS[0, ..., 0].astype(np.uint16)).save(path)
    with pytest.raises(QevoError, match=f"^{path}: expected 8 bits per channel.* mode I;16"):
        read_image_folder(folder)
    path.write_bytes(png_of_16_bits(2, 3))
    with pytest.raises(QevoError, match=f"^{path}: expected 8 bits per channel.* RGB of 16 bits"):
        read_image_folder(folder)
    path.unlink()
    text = folder / "b" / "notes.txt"
    text.touch()
    with pytest.raises(QevoError, match=f"^{text}: expected an image file"):
        read_image_folder(folder)


def test_layouts_that_are_none_are_refused(folder: Path) -> None:
    with pytest.raises(QevoError, match=r"expected one sub-folder .* at least 2, found none"):
        read_image_folder(folder / "a")
    (folder / "c").mkdir()
    with pytest.raises(QevoError, match=f"^{folder / 'c'}: expected images .* found none"):
        read_image_folder(folder)
    for name in ("train", "test"):
        for label in "ab":
            save(folder / name / label / "0.png", PIXELS[0])
    with pytest.raises(QevoError, match="expected train and test only, found a, b, c beside them"):
        read_image_folder(folder)


def test_test_folder_must_match(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    folder.rename(root / "train")
    (root / "test").mkdir()
    with pytest.raises(QevoError, match=f"^{root / 'test'}: expected images .* found none"):
        read_image_folder(root)
    save(root / "test" / "z" / "0.png", PIXELS[0])
    with pytest.raises(QevoError, match=rf"^{root / 'test' / 'z'}: expected the classes .*: a, b$"):
        read_image_folder(root)


def test_missing_pillow_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(QevoError, match=r"needs Pillow: pip install -e '\.\[data\]'"):
        read_image_folder(folder)
