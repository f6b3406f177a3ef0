"""Boxes in the XML files of PASCAL VOC."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qevo.data import load_detection
from qevo.data.voc import read_voc
from qevo.errors import QevoError


def annotation(*objects: str, size: str = "<width>20</width><height>10</height>") -> str:
    return f"<annotation><size>{size}</size>{''.join(objects)}</annotation>"


def thing(name: str, *corners: object, more: str = "") -> str:
    sides = "".join(
        f"<{side}>{corner}</{side}>"
        for side, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, 10 x 20, two of them to train on."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / part).mkdir(parents=True)
    difficult = "<difficult>1</difficult><part><name>ear</name></part>"
    texts = {
        "a": annotation(thing("dog", 1, 2, 9, 8), thing("cat", 5, 5, 5, 9)),
        "b": annotation(thing("cat", 0.5, 1, 21, 10, more=difficult)),
        "c": annotation(thing("ant", 1, 2, 3, 4)),
    }
    for key, text in texts.items():
        (tmp_path / "Annotations" / f"{key}.xml").write_text(text)
        Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "JPEGImages" / f"{key}.jpg")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("b\na  1\n\n")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("c\n")
    return tmp_path


def test_a_folder_is_read(folder: Path) -> None:
    data = load_detection(folder, "train")
    assert data.ids == ("b", "a")
    assert data.classes == ("ant", "cat", "dog")  # of all splits, whichever is asked for
    assert data.boxes[0].tolist() == [[0.5, 1, 20, 10]]
    assert data.boxes[1].tolist() == [[1, 2, 9, 8]]
    assert [labels.tolist() for labels in data.labels] == [[1], [2]]
    assert [ignored.tolist() for ignored in data.ignored] == [[True], [False]]
    assert data.dropped == 1
    assert data.image(0).shape == (10, 20, 3)
    assert load_detection(folder, "test").classes == data.classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", ": expected XML, found no element"),
        (annotation(thing("dog", 1, 2, 3, "x")), ", object 1: expected bndbox/ymax a number"),
        (annotation(thing("dog", 1, 2, 3, "nan")), ", object 1: expected bndbox/ymax a number"),
        (annotation(thing("dog", 9, 2, 3, 4)), ", object 1: expected a box from low to high"),
        (annotation(thing("dog", 1, 2, 3, 4), thing("dog", 1, 2, 3, 40)), ", object 2: .* within"),
        (annotation(thing("", 1, 2, 3, 4)), ", object 1: expected <name>, found none"),
        (annotation("<object><name>dog</name></object>"), ", object 1: expected <bndbox><xmin>"),
        (
            annotation(thing("a", 1, 2, 3, 4, more="<difficult>2</difficult>")),
            ", object 1: .*0 or 1, found 2",
        ),
        (annotation(size="<width>20</width>"), ": expected <size><height>, found none"),
        (annotation(size="<width>2.5</width><height>1</height>"), ": expected an image of 1 to"),
        (annotation(size="<width>9</width><height>1e30</height>"), ": expected an image of 1 to"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, message: str) -> None:
    path = folder / "Annotations" / "a.xml"
    path.write_text(text)
    with pytest.raises(QevoError, match=f"^{path}{message}"):
        load_detection(folder, "train")


def test_missing_things_are_named(folder: Path) -> None:
    lists = folder / "ImageSets" / "Main"
    with pytest.raises(QevoError, match=f"^{lists / 'val.txt'}: no such list; found test, train"):
        load_detection(folder, "val")
    (lists / "val.txt").write_text("\n")
    with pytest.raises(QevoError, match=f"^{lists / 'val.txt'}: expected the id of an image"):
        load_detection(folder, "val")
    (folder / "JPEGImages" / "c.jpg").unlink()
    with pytest.raises(QevoError, match=f"^{folder / 'JPEGImages' / 'c'}: expected an image file"):
        load_detection(folder, "test")
    (folder / "Annotations" / "c.xml").unlink()
    with pytest.raises(QevoError, match=f"^{lists / 'test.txt'}, image 1: expected .*c.xml, found"):
        load_detection(folder, "test")


TAGS = ("object", "name", "bndbox", "xmin", "size")
WORDS = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
WORDS += ["a", "1", "-9", "1e999", "<!DOCTYPE x [", "]>", "&x;"]


@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from(WORDS), max_size=30).map(lambda words: annotation(*words).encode())
    | st.tuples(*[st.floats() | st.integers(-50, 50)] * 4).map(
        lambda corners: annotation(thing("dog", *corners)).encode()
    )
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_voc"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (folder / "JPEGImages" / "a.jpg").touch()
    (folder / "Annotations" / "a.xml").write_bytes(content)
    try:
        data = read_voc(folder, "train", name="any")
    except QevoError as error:
        refusal = str(error)
    else:
        refusal = str(folder / "Annotations" / "a.xml")
        assert data.objects + data.dropped == content.count(b"<object>")
    assert refusal.startswith(str(folder / "Annotations" / "a.xml"))
