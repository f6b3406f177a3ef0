"""COCO as tensorflow-datasets prepares it, made here from two small images."""

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

from qevo.data import load_detection
from qevo.data.tfds_boxes import PreparedImages
from qevo.errors import QevoError

Objects = list[tuple[tuple[float, float, float, float], int, bool]]
ROWS: dict[int, tuple[tuple[int, int], Objects]] = {  # id: size, objects by edges y0, x0, y1, x1
    139: ((10, 20), [((0.1, 0.25, 0.5, 0.75), 1, False), ((0.0, 0.0, 1.0, 1.0), 0, True)]),
    285: ((30, 12), [((0.5, 0.5, 0.5, 0.75), 2, False)]),
    632: ((8, 8), []),
}


class Coco(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Prepares `ROWS` with the features of coco/2017."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2017")]  # noqa: RUF012
    url_infos = None  # nothing is downloaded

    def _info(self) -> tfds.core.DatasetInfo:
        thing = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["cat", "dog", "eel"]),
            "is_crowd": np.bool_,
        }
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="png"),
                "image/id": np.int64,
                "objects": tfds.features.Sequence(thing),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"validation": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (size, objects) in ROWS.items():
            png = io.BytesIO()
            Image.fromarray(picture(key, size)).save(png, "PNG")
            png.seek(0)
            things = [
                {"bbox": tfds.features.BBox(*box), "label": label, "is_crowd": crowd}
                for box, label, crowd in objects
            ]
            yield key, {"image": png, "image/id": key, "objects": things}


def picture(key: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.RandomState(key).randint(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    tfds.disable_progress_bar()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("QEVO_DATA_DIR", raising=False)

    def run(file_format: str) -> Path:
        made = "array_record" if file_format == "tfrecord" else file_format
        Coco(data_dir=tmp_path, config="2017", file_format=made).download_and_prepare()
        folder = tmp_path / "coco" / "2017" / "1.1.0"
        if file_format == "tfrecord":
            to_tfrecord(folder)
        return folder

    return run


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_every_format_is_read_back(prepare: Callable[[str], Path], file_format: str) -> None:
    prepare(file_format)
    data = load_detection("coco", "val")
    assert data.source == "tensorflow-datasets coco/2017/1.1.0"
    assert (data.classes, data.dropped) == (("cat", "dog", "eel"), 1)
    assert sorted(data.ids) == ["139", "285", "632"]
    row = data.ids.index("139")
    order = np.argsort(data.labels[row])
    assert data.labels[row][order].tolist() == [0, 1]
    assert data.ignored[row][order].tolist() == [True, False]
    np.testing.assert_allclose(data.boxes[row][order], [[0, 0, 20, 10], [5, 1, 15, 5]], atol=1e-5)
    for n, key in enumerate(data.ids):
        np.testing.assert_array_equal(data.image(n), picture(int(key), ROWS[int(key)][0]))
    np.testing.assert_array_equal(data.take([row]).image(0), data.image(row))


def test_missing_parts_and_damage_are_named(
    prepare: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare("tfrecord")
    with pytest.raises(QevoError, match=rf"^{folder}: .* data set with train, and objects"):
        load_detection("coco", "train")
    path = next(folder.glob("*.tfrecord-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(QevoError, match=rf"^{path}: expected whole records"):
        load_detection("coco", "val")
    path.write_bytes(whole + whole)
    with pytest.raises(QevoError, match=rf"^{folder}: validation: expected 3 examples, found 6"):
        load_detection("coco", "val")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(QevoError, match=r"needs tensorflow-datasets .*'\.\[data\]'"):
        load_detection("coco", "val")


def test_labels_without_a_class_are_named(
    prepare: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare("array_record")
    (names,) = folder.glob("*label*.txt")
    names.write_text("cat\n")
    with pytest.raises(QevoError, match=rf"^{folder}: validation, image \d, object \d: .* 0 to 0"):
        load_detection("coco", "val")


def test_an_image_that_is_cut_is_named() -> None:
    whole = io.BytesIO()
    Image.fromarray(picture(139, (40, 50))).save(whole, "JPEG")
    cut = whole.getvalue()[: len(whole.getvalue()) // 2]
    with pytest.raises(QevoError, match="here, image 0: expected a whole encoded image"):
        PreparedImages([{"image": cut}], "here")[0]
