"""Boxes in YOLO's text files."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qevo.data import load_detection
from qevo.data.yolo_text import read_yolo
from qevo.errors import QevoError

DESCRIPTION = """
path: .
train: images/train
val: images/val
names:
  0: cat
  1: dog
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images to train on, 10 x 20, the second without objects; one to validate on."""
    for place in ("train/0", "train/1", "val/2"):
        path = tmp_path / "images" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(path)
        (tmp_path / "labels" / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "labels" / "train" / "0.txt").write_text("1 0.5 0.5 0.5 0.4\n\n0 0.25 0.5 0.5 1\n")
    (tmp_path / "labels" / "val" / "2.txt").write_text("0 0.1 0.1 0 0.1\n")
    (tmp_path / "mine.yaml").write_text(DESCRIPTION)
    return tmp_path


def test_a_folder_is_read(folder: Path) -> None:
    for path in (folder, folder / "mine.yaml"):
        data = load_detection(path, "train")
        assert (data.split, data.ids, data.classes) == ("train", ("0", "1"), ("cat", "dog"))
        np.testing.assert_allclose(data.boxes[0], [[5, 3, 15, 7], [0, 0, 10, 10]], atol=1e-5)
        assert data.labels[0].tolist() == [1, 0]
        assert data.boxes[1].shape == (0, 4)
        assert data.sizes.tolist() == [[10, 20], [10, 20]]
        assert data.image(1).shape == (10, 20, 3)
    assert load_detection(folder, "train").name == folder.name
    val = load_detection(folder, "val")
    assert (val.objects, val.dropped) == (0, 1)


def test_names_as_a_list_and_images_as_a_list(folder: Path) -> None:
    (folder / "some.txt").write_text("images/val/2.png\nimages/train/0.png\n")
    (folder / "mine.yaml").write_text("names: [cat, 7]\ntrain: some.txt\n")
    data = load_detection(folder, "train")
    assert (data.ids, data.classes) == (("2", "0"), ("cat", "7"))
    (folder / "some.txt").write_text("images/val/2.png\nimages/none.png\n")
    with pytest.raises(QevoError, match=rf"^{folder / 'some.txt'}, line 2: expected an image file"):
        load_detection(folder, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.5", "expected 5 numbers, class x y width height, found 4"),
        ("1 0.5 0.5 0.5 0.5 0.9", "found 6"),
        ("cat 0.5 0.5 0.5 0.5", "as numbers .*'cat'"),
        ("2 0.5 0.5 0.5 0.5", "expected a class from 0 to 1, found 2"),
        ("-1 0.5 0.5 0.5 0.5", "expected a class from 0 to 1, found -1"),
        ("1 50 50 20 20", "expected x y width height as shares of the image, 0 to 1"),
        ("1 nan 0.5 0.5 0.5", "expected x y width height as shares of the image, 0 to 1"),
        ("1 0.9 0.5 0.8 0.5", "within an image of 20 x 10 pixels"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, message: str) -> None:
    path = folder / "labels" / "train" / "1.txt"
    path.write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(QevoError, match=f"^{path}, line 2: .*{message}"):
        load_detection(folder, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: {0: cat, 2: dog}", "expected names: a list, or a mapping from 0"),
        ("train: images/train", "expected names: a list, or a mapping from 0"),
        ("names: [no, yes]", r"the name of class 0 as text \(quote yes, no"),
        ("names: [[cat]]", "the name of class 0 as text .* found list"),
        ("names: [cat]\nval: images/val", "expected train: a folder .* found splits val"),
        ("names: [cat]\ntrain: [a, b]", "expected train: a folder of images"),
        ("- cat", "expected names and a path for each split, found neither"),
        ("names: [cat", "expected YAML, found while parsing"),
        ("when: 2001-99-99", "expected YAML, found month must be in 1..12"),
        ("names: !!bool foo", "expected YAML, found 'foo'"),
    ],
)
def test_a_wrong_description_is_named(folder: Path, text: str, message: str) -> None:
    path = folder / "mine.yaml"
    path.write_text(text)
    with pytest.raises(QevoError, match=f"^{path}: .*{message}"):
        load_detection(folder, "train")


def test_missing_things_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = folder / "images" / "train"
    with pytest.raises(QevoError, match=r"expected test: a folder .* found splits train, val"):
        load_detection(folder, "test")
    (folder / "labels").rename(folder / "elsewhere")
    with pytest.raises(QevoError, match=f"^{train}: expected boxes of its images in {folder}"):
        load_detection(folder, "train")
    (folder / "elsewhere").rename(folder / "labels")
    (train / "1.png").write_bytes(b"text")
    with pytest.raises(QevoError, match=f"^{train / '1.png'}: expected an image file"):
        load_detection(folder, "train")
    for file in train.iterdir():
        file.unlink()
    with pytest.raises(QevoError, match=f"^{train}: expected images .* found none"):
        load_detection(folder, "train")
    train.rmdir()
    with pytest.raises(QevoError, match=f"^{train}: expected a folder of images or a .txt list"):
        load_detection(folder, "train")
    (folder / "mine.yaml").write_text("names: [cat]\ntrain: labels")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "labels" / "1.png")
    with pytest.raises(QevoError, match="expected a folder images in its path"):
        load_detection(folder, "train")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(QevoError, match=r"needs PyYAML: pip install -e '\.\[detection\]'"):
        load_detection(folder, "train")


@pytest.fixture(scope="module")
def one_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose only image, 10 x 20, has its boxes in labels/0.txt."""
    folder = tmp_path_factory.mktemp("one")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(folder / "images" / "0.png")
    (folder / "good.yaml").write_text("names: [cat, dog]\ntrain: images")
    return folder


MIDDLE, SIDE = st.floats(0.4, 0.6), st.floats(0.1, 0.7)
BOX = st.tuples(st.integers(0, 1), MIDDLE, MIDDLE, SIDE, SIDE)
BLANK = st.sampled_from(["", " ", "\t "])
WRONG = st.text("0123456789.-enaif", min_size=1) | st.sampled_from(
    ["0 0.5 0.5 0.5", "2 0.5 0.5 0.5 0.5", "0 0.5 nan 0.5 0.5", "0 0.5 0.5 0.5 1.5"]
)


@given(st.lists(BOX | BLANK), st.none() | WRONG, st.lists(BOX | WRONG | BLANK))
def test_all_lines_are_read_or_the_first_wrong_one_is_named(
    one_image: Path, good: list[Any], wrong: str | None, rest: list[Any]
) -> None:
    lines = [*good, *([] if wrong is None else [wrong, *rest])]
    path = one_image / "labels" / "0.txt"
    path.write_text("\n".join(x if isinstance(x, str) else " ".join(map(str, x)) for x in lines))
    if wrong is not None:
        with pytest.raises(QevoError, match=f"^{path}, line {len(good) + 1}: expected"):
            read_yolo(one_image / "good.yaml", "train", name="any")
        return
    data = read_yolo(one_image / "good.yaml", "train", name="any")
    boxes = np.array([line for line in good if not isinstance(line, str)]).reshape(-1, 5)
    np.testing.assert_array_equal(data.labels[0], boxes[:, 0])
    x, y, width, height = boxes[:, 1:].T
    corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    np.testing.assert_allclose(data.boxes[0], np.stack(corners, 1) * [20, 10, 20, 10], atol=1e-4)


@given(
    st.binary(min_size=1, max_size=60)
    | st.text("names:[]{},01\n -train&*!?|'\"", max_size=60).map(str.encode)
)
def test_noise_is_refused(one_image: Path, content: bytes) -> None:
    for place in ("labels/0.txt", "bad.yaml"):
        (one_image / place).write_bytes(content)
    with pytest.raises(QevoError, match=f"^{one_image / 'bad.yaml'}: expected"):
        read_yolo(one_image / "bad.yaml", "train", name="any")
    if content.decode(errors="replace").strip():  # as text: a file separator is blank
        with pytest.raises(QevoError, match=f"^{one_image / 'labels' / '0.txt'}.*: expected"):
            read_yolo(one_image / "good.yaml", "train", name="any")
