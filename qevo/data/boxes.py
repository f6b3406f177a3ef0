"""Images with boxes, and what the readers of them share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from qevo.data.folders import decode_image
from qevo.errors import QevoError

SPLITS = ("train", "val", "test")
LARGEST = 1 << 16  # pixels of a side
TOLERANCE = 1.0  # pixels that a box may reach beyond its image: rounding of those who wrote it


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """One split of a data set of images, of any size each, with the objects in them.

    Raises:
      QevoError: where the parts do not fit together.
    """

    name: str
    split: str  # one of `SPLITS`
    images: Sequence[np.ndarray]  # uint8 [h, w, 3]; may be read and decoded only when asked for
    sizes: np.ndarray  # int32 [n, 2], height and width of each image
    boxes: tuple[np.ndarray, ...]  # float32 [k, 4], corners x0, y0, x1, y1 in pixels, 0 to w and h
    labels: tuple[np.ndarray, ...]  # int32 [k]
    ignored: tuple[np.ndarray, ...]  # bool [k]: COCO's crowds, VOC's difficult; count neither way
    ids: tuple[str, ...]
    classes: tuple[str, ...]  # in label order
    source: str  # where it came from, one line
    dropped: int = 0  # boxes of no area, left out

    def __post_init__(self) -> None:
        n = len(self.ids)
        parts = self.images, self.sizes, self.boxes, self.labels, self.ignored
        if {len(part) for part in parts} != {n} or self.sizes.shape != (n, 2):
            raise QevoError(
                f"{self.name}: expected all parts of {n} images, as there are ids, "
                f"found {[len(part) for part in parts]}"
            )
        for row in range(n):
            boxes, labels, ignored = self.boxes[row], self.labels[row], self.ignored[row]
            k = len(labels)
            if (boxes.shape, labels.shape, ignored.shape) != ((k, 4), (k,), (k,)):
                raise QevoError(
                    f"{self.name}, image {self.ids[row]}: expected boxes [k, 4], labels [k] and "
                    f"ignored [k], found {boxes.shape}, {labels.shape} and {ignored.shape}"
                )
            if k and not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise QevoError(
                    f"{self.name}, image {self.ids[row]}: expected labels 0 to "
                    f"{len(self.classes) - 1}, found {labels.min()} to {labels.max()}"
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def objects(self) -> int:
        """How many objects there are, ignored ones included."""
        return sum(map(len, self.labels))

    def image(self, row: int) -> np.ndarray:
        """One image, uint8 ``[h, w, 3]``.

        Raises:
          QevoError: where it cannot be read, or is not of the size that its boxes were made for.
        """
        image = self.images[row]
        expected = *map(int, self.sizes[row]), 3
        if image.dtype != np.uint8 or image.shape != expected:
            raise QevoError(
                f"{self.name}, image {self.ids[row]}: expected uint8 {list(expected)}, as its "
                f"annotation says, found {image.dtype} {list(image.shape)}"
            )
        return image

    def take(self, rows: Sequence[int] | np.ndarray) -> DetectionSet:
        """Those images, in that order, or those of a mask bool ``[n]``; they are not read."""
        if (chosen := np.asarray(rows)).dtype == bool:
            rows = np.flatnonzero(chosen)
        rows = [int(row) for row in rows]
        boxes, labels, ignored = (
            tuple(part[row] for row in rows) for part in (self.boxes, self.labels, self.ignored)
        )
        ids = tuple(self.ids[row] for row in rows)
        return DetectionSet(
            self.name,
            self.split,
            Chosen(self.images, rows),
            self.sizes[rows].reshape(-1, 2),
            boxes,
            labels,
            ignored,
            ids,
            self.classes,
            self.source,
            self.dropped,
        )


class Reading(Sequence[np.ndarray]):
    """A sequence whose items are made when asked for; a slice is a list of them."""

    def one(self, row: int) -> np.ndarray:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        rows = range(len(self))[index]
        return self.one(rows) if isinstance(rows, int) else [self.one(row) for row in rows]


class Chosen(Reading):
    """Some images of others."""

    def __init__(self, images: Sequence[np.ndarray], rows: list[int]) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def one(self, row: int) -> np.ndarray:
        return self.images[self.rows[row]]


class ImageFiles(Reading):
    """Image files, decoded to RGB by Pillow when asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def one(self, row: int) -> np.ndarray:
        image = decode_image(self.files[row])
        return np.repeat(image, 3 // image.shape[2], axis=2)


class Marked(NamedTuple):
    """One object as its file has it."""

    where: str  # for errors: the file, and the line or object in it
    label: int
    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
    ignored: bool = False


class Objects(NamedTuple):
    """The objects of one image, checked."""

    boxes: np.ndarray  # float32 [k, 4]
    labels: np.ndarray  # int32 [k]
    ignored: np.ndarray  # bool [k]
    dropped: int


def checked_size(height: float, width: float, where: str) -> tuple[int, int]:
    """Height and width as integers.

    Raises:
      QevoError: where they are no sides of an image.
    """
    if not all(1 <= side <= LARGEST and float(side).is_integer() for side in (height, width)):
        raise QevoError(
            f"{where}: expected an image of 1 to {LARGEST} pixels a side, found {width} x {height}"
        )
    return int(height), int(width)


def checked(marked: Iterable[Marked], size: tuple[int, int]) -> Objects:
    """Clip boxes to their image, height and width `size`, and leave out those of no area.

    Raises:
      QevoError: corners that are not finite, lie the wrong way round, or are more than a pixel
        outside the image.
    """
    height, width = size
    kept, dropped = [], 0
    for where, label, corners, ignored in marked:
        x0, y0, x1, y1 = corners
        told = f"({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
        if not np.isfinite(corners).all() or x1 < x0 or y1 < y0:
            raise QevoError(f"{where}: expected a box from low to high corner, found {told}")
        lowest, beyond = min(x0, y0), max(x1 - width, y1 - height)
        if lowest < -TOLERANCE or beyond > TOLERANCE:
            raise QevoError(
                f"{where}: expected a box within an image of {width} x {height} pixels, "
                f"found {told}"
            )
        box = np.clip(np.array(corners, np.float32), 0, np.array([width, height] * 2, np.float32))
        if box[2] > box[0] and box[3] > box[1]:
            kept.append((box, label, ignored))
        else:
            dropped += 1
    boxes = np.array([box for box, _, _ in kept], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in kept], np.int32)
    return Objects(boxes, labels, np.array([passed for *_, passed in kept], bool), dropped)


def gathered(
    images: Sequence[np.ndarray],
    sizes: Sequence[tuple[int, int]],
    objects: Sequence[Objects],
    *,
    name: str,
    split: str,
    ids: Sequence[str],
    classes: Sequence[str],
    source: str,
) -> DetectionSet:
    """A set from what a reader found of each image."""
    return DetectionSet(
        name,
        split,
        images,
        np.array(sizes, np.int32).reshape(-1, 2),
        tuple(one.boxes for one in objects),
        tuple(one.labels for one in objects),
        tuple(one.ignored for one in objects),
        tuple(ids),
        tuple(classes),
        source,
        sum(one.dropped for one in objects),
    )


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
      QevoError: where it is not there or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QevoError(f"{path}: expected a file of UTF-8 text ({error})") from None
