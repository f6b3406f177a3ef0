"""Boxes in the JSON files of COCO."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qevo.data import load_detection
from qevo.data.coco import read_coco
from qevo.errors import QevoError


def content() -> dict[str, list[dict[str, Any]]]:
    """Two images; the ids of categories have gaps and are out of order, as COCO's have."""
    return {
        "images": [
            {"id": 139, "file_name": "x.png", "height": 10, "width": 20},
            {"id": 7, "file_name": "y.png", "height": 10, "width": 20},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [1, 2, 5.5, 6], "iscrowd": 0},
            {"image_id": 139, "category_id": 3, "bbox": [0, 0, 20, 10.4], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [4, 4, 0, 3]},
        ],
    }


def write(folder: Path, what: object) -> Path:
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(what))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, content())
    (tmp_path / "val2017").mkdir()
    for name in "xy":
        Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "val2017" / f"{name}.png")
    return tmp_path


def test_a_folder_is_read(folder: Path) -> None:
    for path in (folder, folder / "annotations" / "instances_val2017.json"):
        data = load_detection(path, "val")
        assert data.classes == ("cat", "dog")
        assert data.ids == ("139", "7")
        assert [boxes.tolist() for boxes in data.boxes] == [[[0, 0, 20, 10]], [[1, 2, 6.5, 8]]]
        assert [labels.tolist() for labels in data.labels] == [[0], [1]]
        assert [ignored.tolist() for ignored in data.ignored] == [[True], [False]]
        assert data.dropped == 1
        assert data.image(0).shape == (10, 20, 3)
    (folder / "images").mkdir()
    (folder / "val2017").rename(folder / "images" / "val2017")
    assert load_detection(folder, "val").image(1).shape == (10, 20, 3)


def changed(part: str, row: int, **fields: Any) -> dict[str, Any]:
    made = content()
    made[part][row] = {k: v for k, v in (made[part][row] | fields).items() if v is not None}
    return made


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ([], ": expected an object with lists images, annotations, categories"),
        ({"images": [], "annotations": {}}, ": expected an object with lists images"),
        (content() | {"images": []}, ": expected images, found none"),
        (content() | {"categories": []}, ": expected categories, found none"),
        (content() | {"images": [3]}, r", images\[0\]: expected id, an integer, found None"),
        (changed("images", 1, id=139), r", images\[1\]: expected an id of its own, found 139"),
        (changed("images", 1, id=True), r", images\[1\]: expected id, an integer, found True"),
        (changed("images", 1, height="10"), r", images\[1\]: expected height, an integer"),
        (changed("images", 1, height=10**12), r", images\[1\]: expected an image of 1 to 65536"),
        (changed("images", 1, file_name=None), r", images\[1\]: expected file_name, text"),
        (changed("categories", 1, id=90), r", categories\[1\]: expected an id of its own"),
        (changed("annotations", 2, image_id=8), r", annotations\[2\]: expected the id of one of"),
        (changed("annotations", 2, category_id=8), r", annotations\[2\]: .* a category, found 8"),
        (changed("annotations", 2, bbox=[1, 2, 3]), r", annotations\[2\]: .*four numbers, found"),
        (changed("annotations", 2, bbox=[1, 2, 3, float("inf")]), r", annotations\[2\]: .*four"),
        (changed("annotations", 2, bbox=[1, 2, 3, 10**400]), r", annotations\[2\]: .*four numbers"),
        (changed("annotations", 2, bbox=[1, 2, -3, 4]), r", annotations\[2\]: expected a box from"),
        (changed("annotations", 2, bbox=[1, 2, 30, 4]), r", annotations\[2\]: .*within an image"),
        (changed("annotations", 2, iscrowd="no"), r", annotations\[2\]: expected iscrowd 0 or 1"),
        (changed("images", 0, file_name="z.png"), ": expected z.png in one of .*val2017, "),
    ],
)
def test_what_is_wrong_is_named(folder: Path, what: object, message: str) -> None:
    path = write(folder, what)
    with pytest.raises(QevoError, match=f"^{path}{message}"):
        load_detection(folder, "val")


def test_no_json_and_too_many(folder: Path) -> None:
    path = folder / "annotations" / "instances_val2017.json"
    for text in ("", "{", "[" * 100_000, "1" * 5000):
        path.write_text(text)
        with pytest.raises(QevoError, match=f"^{path}: expected (JSON|an object)"):
            load_detection(folder, "val")
    path.with_name("instances_val2014.json").touch()
    with pytest.raises(
        QevoError, match=r"expected one instances_val\*.json, found .*name the file"
    ):
        load_detection(folder, "val")
    with pytest.raises(QevoError, match=r"expected boxes of train images: .* found none"):
        load_detection(folder, "train")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [
        (part, n, key)
        for part, rows in content().items()
        for n, row in enumerate(rows)
        for key in row
    ]
)


@given(PLACES, JSON)
def test_any_value_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, int, str], value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_coco"
    what = content()
    part, row, key = place
    what[part][row][key] = value
    path = write(folder, what)
    (folder / "val2017").mkdir(exist_ok=True)
    for name in "xy":
        (folder / "val2017" / f"{name}.png").touch()
    try:
        data = read_coco(path, "val", name="any")
    except QevoError as error:
        refusal = str(error)
    else:
        refusal = str(path)
        assert data.objects + data.dropped == 3
    assert refusal.startswith(str(path))
