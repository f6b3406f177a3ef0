"""From a name or a path to images with boxes: what is looked for, where, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

from qevo.data import tfds
from qevo.data.boxes import SPLITS, DetectionSet
from qevo.data.coco import find_coco, read_coco
from qevo.data.tfds_boxes import read_prepared
from qevo.data.voc import is_voc, read_voc
from qevo.data.yolo_text import read_yolo, yolo_description
from qevo.errors import QevoError

PREPARED = {"coco": "coco/2017"}  # what tensorflow-datasets calls it


def load_detection(name_or_path: str | os.PathLike[str], split: str) -> DetectionSet:
    """Load one split of a data set of images with boxes; images are read when asked for.

    A path is a folder as YOLO (`qevo.data.yolo_text.read_yolo`), VOC (`qevo.data.voc.read_voc`) or
    COCO (`qevo.data.coco.read_coco`) lay it out, or YOLO's ``.yaml`` or COCO's ``.json`` file
    itself. A name that is no path is looked for as such a folder ``QEVO_DATA_DIR/NAME``, then as
    prepared by tensorflow-datasets: ``coco`` (its ``coco/2017``), ``voc/2007`` and others.

    Args:
      name_or_path: which data.
      split: ``"train"``, ``"val"`` or ``"test"``, as the data set itself divides its images.

    Raises:
      QevoError: where nothing is found, or what is found is damaged.
    """
    name = os.fspath(name_or_path)
    if split not in SPLITS:
        raise QevoError(f"split: expected one of {', '.join(SPLITS)}, found {split}")
    path = Path(name).expanduser()
    if path.exists():
        return _read(path, split, path.resolve().stem if path.is_file() else path.resolve().name)
    prepared_in = [Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()]
    looked_for = []
    if variable := os.environ.get("QEVO_DATA_DIR"):
        data = Path(variable).expanduser()
        if (data / name).is_dir():
            return _read(data / name, split, name)
        looked_for.append(f"a folder {data / name}")
        prepared_in.insert(0, data / "tensorflow_datasets")
    known = PREPARED.get(name, name)
    if (folder := tfds.find(known, prepared_in)) is not None:
        return read_prepared(folder, split, name=name)
    looked_for += [
        f"a prepared tensorflow-datasets data set in {root / known}" for root in prepared_in
    ]
    raise QevoError(f"{name}: no such path, and no such name. Looked for {'; '.join(looked_for)}")


def _read(path: Path, split: str, name: str) -> DetectionSet:
    if path.is_file():
        if path.suffix in (".yaml", ".yml"):
            return read_yolo(path, split, name=name)
        if path.suffix == ".json":
            return read_coco(path, split, name=name)
    elif is_voc(path):
        return read_voc(path, split, name=name)
    elif (description := yolo_description(path)) is not None:
        return read_yolo(description, split, name=name)
    elif (file := find_coco(path, split)) is not None:
        return read_coco(file, split, name=name)
    raise QevoError(
        f"{path}: expected boxes of {split} images: one .yaml file (YOLO), ImageSets/Main (VOC) or "
        f"annotations/instances_{split}*.json (COCO), found none"
    )
