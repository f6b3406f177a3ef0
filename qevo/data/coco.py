"""Boxes in the JSON files of COCO (Lin et al. 2014)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qevo.data.boxes import (
    DetectionSet,
    ImageFiles,
    Marked,
    checked,
    checked_size,
    gathered,
    read_text,
)
from qevo.errors import QevoError

KINDS = {int: "an integer", str: "text", list: "a list"}


def find_coco(folder: Path, split: str) -> Path | None:
    """The file of boxes of a split: ``annotations/instances_SPLIT*.json`` or ``SPLIT*.json``.

    Raises:
      QevoError: where there is more than one.
    """
    annotations = folder / "annotations"
    for pattern in (f"instances_{split}*.json", f"{split}*.json"):
        found = sorted(annotations.glob(pattern))
        if len(found) > 1:
            raise QevoError(
                f"{annotations}: expected one {pattern}, found "
                f"{', '.join(file.name for file in found)}: name the file itself"
            )
        if found:
            return found[0]
    return None


def read_coco(file: Path, split: str, *, name: str) -> DetectionSet:
    """Read the boxes of one file; image files are looked for beside it and by its name.

    For ``annotations/instances_val2017.json`` those are ``val2017``, ``images/val2017`` and
    ``images`` beside ``annotations``, then ``annotations`` itself. Classes are the categories in
    order of their id. Crowds are ignored objects.

    Raises:
      QevoError: where the file is none of COCO's or an object is none; the message names the file
        and the entry in it.
    """
    content = _content(file)
    classes, labels = _categories(content, file)
    sizes: dict[int, tuple[int, int]] = {}
    names: dict[int, str] = {}
    for number, entry in enumerate(content["images"]):
        where = f"{file}, images[{number}]"
        key = _field(entry, "id", int, where)
        if key in sizes:
            raise QevoError(f"{where}: expected an id of its own, found {key} again")
        height, width = (_field(entry, side, int, where) for side in ("height", "width"))
        sizes[key] = checked_size(height, width, where)
        names[key] = _field(entry, "file_name", str, where)
    if not sizes:
        raise QevoError(f"{file}: expected images, found none")

    marked: dict[int, list[Marked]] = {key: [] for key in sizes}
    for key, one in _annotations(content, file, labels):
        if key not in marked:
            raise QevoError(f"{one.where}: expected the id of one of the images, found {key}")
        marked[key].append(one)
    folder = _image_folder(file, next(iter(names.values())))
    return gathered(
        ImageFiles([folder / image for image in names.values()]),
        list(sizes.values()),
        [checked(marked[key], size) for key, size in sizes.items()],
        name=name,
        split=split,
        ids=[str(key) for key in sizes],
        classes=classes,
        source=f"COCO file {file}",
    )


def _content(file: Path) -> Mapping[str, Any]:
    text = read_text(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QevoError(f"{file}: expected JSON, found {error}") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in parts
    ):
        raise QevoError(f"{file}: expected an object with lists {', '.join(parts)}")
    return content


def _categories(content: Mapping[str, Any], file: Path) -> tuple[list[str], dict[int, int]]:
    """Class names, and the label of each category's id."""
    names: dict[int, str] = {}
    for number, entry in enumerate(content["categories"]):
        where = f"{file}, categories[{number}]"
        key = _field(entry, "id", int, where)
        if key in names:
            raise QevoError(f"{where}: expected an id of its own, found {key} again")
        names[key] = _field(entry, "name", str, where)
    if not names:
        raise QevoError(f"{file}: expected categories, found none")
    keys = sorted(names)
    return [names[key] for key in keys], {key: label for label, key in enumerate(keys)}


def _annotations(
    content: Mapping[str, Any], file: Path, labels: Mapping[int, int]
) -> Iterator[tuple[int, Marked]]:
    for number, entry in enumerate(content["annotations"]):
        where = f"{file}, annotations[{number}]"
        category = _field(entry, "category_id", int, where)
        if category not in labels:
            raise QevoError(f"{where}: expected the id of a category, found {category}")
        box = _field(entry, "bbox", list, where)
        if len(box) != 4 or not all(_is_number(side) for side in box):
            raise QevoError(f"{where}: expected bbox, four numbers, found {box!r:.60}")
        x, y, w, h = box
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise QevoError(f"{where}: expected iscrowd 0 or 1, found {crowd!r:.60}")
        marked = Marked(where, labels[category], (x, y, x + w, y + h), bool(crowd))
        yield _field(entry, "image_id", int, where), marked


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 1 << 53  # a float holds it
    return isinstance(value, float) and math.isfinite(value)


def _field(entry: Any, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise QevoError(f"{where}: expected {key}, {KINDS[kind]}, found {value!r:.60}")
    return value


def _image_folder(file: Path, image: str) -> Path:
    stem, root = file.stem.removeprefix("instances_"), file.parent.parent
    looked = [root / stem, root / "images" / stem, root / "images", file.parent]
    for folder in looked:
        if (folder / image).is_file():
            return folder
    raise QevoError(f"{file}: expected {image} in one of {', '.join(map(str, looked))}, found none")
