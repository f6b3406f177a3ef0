"""Boxes in the XML files of PASCAL VOC (Everingham et al. 2010)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from qevo.data.boxes import (
    DetectionSet,
    ImageFiles,
    Marked,
    checked,
    checked_size,
    gathered,
    read_text,
)
from qevo.data.folders import SUFFIXES
from qevo.errors import QevoError


def is_voc(folder: Path) -> bool:
    """Whether a folder is laid out as VOC's are."""
    return (folder / "ImageSets" / "Main").is_dir()


def read_voc(folder: Path, split: str, *, name: str) -> DetectionSet:
    """Read one split: ``ImageSets/Main/SPLIT.txt``, ``Annotations/ID.xml``, ``JPEGImages/ID.jpg``.

    Classes are all names of objects in ``Annotations``, in order of the alphabet. Corners are taken
    as written, as edges (VOC's own files count pixels from 1 and include the last one: a box there
    is half a pixel off). Difficult objects are ignored ones.

    Raises:
      QevoError: where a file is missing or an object is none; the message names file and object.
    """
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        there = sorted(file.stem for file in listed.parent.glob("*.txt"))
        raise QevoError(f"{listed}: no such list; found {', '.join(there) or 'none'}")
    lines = [line.split() for line in read_text(listed).splitlines()]
    ids = [words[0] for words in lines if words]
    if not ids:
        raise QevoError(f"{listed}: expected the id of an image in each line, found none")

    trees = {file.stem: _tree(file) for file in sorted((folder / "Annotations").glob("*.xml"))}
    classes = sorted(
        {
            _text(thing, "name", f"{folder / 'Annotations' / key}.xml, object {number}")
            for key, tree in trees.items()
            for number, thing in enumerate(tree.findall("object"), start=1)
        }
    )
    files, sizes, objects = [], [], []
    for number, key in enumerate(ids, start=1):
        if key not in trees:
            raise QevoError(
                f"{listed}, image {number}: expected {folder / 'Annotations' / key}.xml, found none"
            )
        where = f"{folder / 'Annotations' / key}.xml"
        files.append(_image(folder / "JPEGImages", key))
        height, width = (_number(trees[key], f"size/{side}", where) for side in ("height", "width"))
        sizes.append(checked_size(height, width, where))
        objects.append(checked(_marked(trees[key], where, classes), sizes[-1]))
    return gathered(
        ImageFiles(files),
        sizes,
        objects,
        name=name,
        split=split,
        ids=ids,
        classes=classes,
        source=f"VOC files listed in {listed}",
    )


def _tree(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_text(file))
    except ElementTree.ParseError as error:
        raise QevoError(f"{file}: expected XML, found {error}") from None


def _marked(tree: ElementTree.Element, where: str, classes: list[str]) -> Iterator[Marked]:
    for number, thing in enumerate(tree.findall("object"), start=1):
        told = f"{where}, object {number}"
        label = classes.index(_text(thing, "name", told))
        x0, y0, x1, y1 = (
            _number(thing, f"bndbox/{side}", told) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        difficult = (thing.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise QevoError(f"{told}: expected difficult 0 or 1, found {difficult}")
        yield Marked(told, label, (x0, y0, x1, y1), difficult == "1")


def _text(element: ElementTree.Element, path: str, where: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise QevoError(f"{where}: expected <{path.replace('/', '><')}>, found none")
    return text


def _number(element: ElementTree.Element, path: str, where: str) -> float:
    text = _text(element, path, where)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise QevoError(f"{where}: expected {path} a number, found {text}")
    return number


def _image(folder: Path, key: str) -> Path:
    for suffix in SUFFIXES:
        if (file := folder / f"{key}{suffix}").is_file():
            return file
    raise QevoError(f"{folder / key}: expected an image file ({' '.join(SUFFIXES)}), found none")
