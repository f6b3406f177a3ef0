"""Names and paths of images with boxes, and the sets that real files hold."""

from pathlib import Path

import pytest

from qevo.data import load_detection
from qevo.errors import QevoError


def test_nothing_found_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("QEVO_DATA_DIR", raising=False)
    prepared = rf"data set in {tmp_path / 'tfds' / 'coco' / '2017'}$"
    with pytest.raises(QevoError, match=f"^coco: no such path, and no such name.*{prepared}"):
        load_detection("coco", "val")
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    ours = f"a folder {tmp_path / 'coco'}; .*{tmp_path / 'tensorflow_datasets' / 'coco' / '2017'}"
    with pytest.raises(QevoError, match=f"{ours}; .*{prepared}"):
        load_detection("coco", "val")
    with pytest.raises(QevoError, match="split: expected one of train, val, test, found valid"):
        load_detection("coco", "valid")
    (tmp_path / "coco").mkdir()
    with pytest.raises(QevoError, match=f"^{tmp_path / 'coco'}: expected boxes of val images"):
        load_detection("coco", "val")
    (tmp_path / "boxes.csv").touch()
    with pytest.raises(QevoError, match=r"boxes\.csv: expected boxes of val images"):
        load_detection(tmp_path / "boxes.csv", "val")


@pytest.mark.data
def test_blood_cells() -> None:
    """364 images with 4,888 boxes, two of them without area."""
    splits = [load_detection("bccd", split) for split in ("train", "val", "test")]
    assert [len(data) for data in splits] == [205, 87, 72]
    assert [data.dropped for data in splits] == [1, 1, 0]
    assert sum(data.objects + data.dropped for data in splits) == 4888
    assert {data.classes for data in splits} == {("Platelets", "RBC", "WBC")}
    ids = [set(data.ids) for data in splits]
    assert len(set.union(*ids)) == 364
    assert splits[2].image(71).shape == (480, 640, 3)


@pytest.mark.data
def test_shrunk_coco() -> None:
    train, val = (load_detection("coco256", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (126, 128)
    assert (train.objects + val.objects, train.dropped, val.dropped) == (1827, 0, 0)
    assert train.classes == val.classes
    assert (len(val.classes), val.classes[0], val.classes[79]) == (80, "person", "toothbrush")
    assert all(max(image.shape) <= 416 for image in val.images[:8])
    with pytest.raises(QevoError, match=r"config.yaml: expected test: .* found splits train, val"):
        load_detection("coco256", "test")
