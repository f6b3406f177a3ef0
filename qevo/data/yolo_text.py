"""Boxes in YOLO's text files: one a line, class x y width height, as shares of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qevo.data.boxes import DetectionSet, ImageFiles, Marked, checked, gathered, read_text
from qevo.data.folders import SUFFIXES, pillow
from qevo.errors import QevoError


def yolo_description(folder: Path) -> Path | None:
    """The one ``.yaml`` file of a folder, None where there is no such file or more than one."""
    found = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    return found[0] if len(found) == 1 else None


def read_yolo(description: Path, split: str, *, name: str) -> DetectionSet:
    """Read one split of a data set described by a ``.yaml`` file.

    The file has ``names``, a list or a mapping from 0 of class names; for each split, ``train``,
    ``val`` or ``test``, a folder of images or a ``.txt`` list of image files, from ``path`` (itself
    from the file's folder) on. The boxes of ``.../images/a/1.jpg`` are in ``.../labels/a/1.txt``;
    an image without that file has no objects.

    Raises:
      QevoError: where something is missing, or a line says no box; the message names file and line.
    """
    names, images_at = _described(description, split)
    files = _images(images_at)
    label_files = [_label_file(file) for file in files]
    if not any(file.is_file() for file in label_files):
        raise QevoError(
            f"{images_at}: expected boxes of its images in {label_files[0].parent}, found none"
        )
    sizes = [_size(file) for file in files]
    objects = [
        checked(_lines(file, len(names), size) if file.is_file() else (), size)
        for file, size in zip(label_files, sizes, strict=True)
    ]
    return gathered(
        ImageFiles(files),
        sizes,
        objects,
        name=name,
        split=split,
        ids=[file.stem for file in files],
        classes=names,
        source=f"YOLO text files of {images_at}",
    )


def _described(description: Path, split: str) -> tuple[list[str], Path]:
    """Class names, and where the images of a split are."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise QevoError(
            f"{description}: needs PyYAML: pip install -e '.[detection]' in qevo's checkout"
        ) from None
    text = read_text(description)
    try:
        said = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        told = " ".join(str(error).split())
        raise QevoError(f"{description}: expected YAML, found {told}") from None
    if not isinstance(said, dict):
        raise QevoError(f"{description}: expected names and a path for each split, found neither")
    names = said.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise QevoError(
            f"{description}: expected names: a list, or a mapping from 0, 1, 2, ... to class names"
        )
    for label, name in names.items():
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise QevoError(
                f"{description}: expected the name of class {label} as text (quote yes, no, on and "
                f"off), found {type(name).__name__}"
            )
    root, place = said.get("path", "."), said.get(split)
    if not isinstance(root, str) or not isinstance(place, str):
        there = [str(key) for key in said if key in ("train", "val", "test")]
        raise QevoError(
            f"{description}: expected {split}: a folder of images or a .txt list of them; found "
            f"splits {', '.join(there) or 'none'}"
        )
    return [str(names[label]) for label in range(len(names))], description.parent / root / place


def _images(place: Path) -> list[Path]:
    if place.suffix == ".txt":
        listed = [line.strip() for line in read_text(place).splitlines()]
        files = [place.parent / line for line in listed if line]
        for number, line in enumerate(listed, start=1):
            if line and not (place.parent / line).is_file():
                raise QevoError(f"{place}, line {number}: expected an image file, found no {line}")
    elif place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    else:
        raise QevoError(f"{place}: expected a folder of images or a .txt list of them, found none")
    if not files:
        raise QevoError(f"{place}: expected images ({' '.join(SUFFIXES)}), found none")
    return files


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    for at in reversed(range(len(parts) - 1)):
        if parts[at] == "images":
            parts[at] = "labels"
            return Path(*parts).with_suffix(".txt")
    raise QevoError(
        f"{image}: expected a folder images in its path, beside the folder labels of its boxes"
    )


def _size(file: Path) -> tuple[int, int]:
    """Height and width, from the head of an image file."""
    image_module = pillow(f"{file}: reading image files")
    try:
        with image_module.open(file) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise QevoError(f"{file}: expected an image file, found {error}") from None


def _lines(file: Path, classes: int, size: tuple[int, int]) -> Iterator[Marked]:
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            yield _line(line.split(), f"{file}, line {number}", classes, size)


def _line(words: Sequence[str], where: str, classes: int, size: tuple[int, int]) -> Marked:
    if len(words) != 5:
        raise QevoError(f"{where}: expected 5 numbers, class x y width height, found {len(words)}")
    try:
        label, (x, y, w, h) = int(words[0]), map(float, words[1:])
    except ValueError as error:
        raise QevoError(f"{where}: expected class x y width height as numbers ({error})") from None
    if not 0 <= label < classes:
        raise QevoError(f"{where}: expected a class from 0 to {classes - 1}, found {label}")
    if not all(0 <= value <= 1 for value in (x, y, w, h)):
        raise QevoError(
            f"{where}: expected x y width height as shares of the image, 0 to 1, "
            f"found {' '.join(words[1:])}"
        )
    height, width = size
    corners = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    return Marked(where, label, corners)
