"""Boxes of data sets prepared by tensorflow-datasets, COCO above all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qevo.data.boxes import DetectionSet, Marked, Objects, Reading, checked, checked_size, gathered
from qevo.data.folders import pillow
from qevo.data.tfds import module, tfrecords
from qevo.errors import QevoError

IGNORED = ("is_crowd", "is_difficult")  # COCO's word, and VOC's


def read_prepared(folder: Path, split: str, *, name: str) -> DetectionSet:
    """Read one split of the prepared data set in `folder`; ``val`` is its ``validation``.

    Its examples have an ``image`` and ``objects``, each with a ``bbox`` and a ``label``. Images
    stay encoded on the disk until they are asked for.

    Raises:
      QevoError: where tensorflow-datasets is missing, or the data is damaged or of another kind.
    """
    tfds = module(folder)
    part = "validation" if split == "val" else split
    try:
        builder = tfds.builder_from_directory(folder)
        features: Any = builder.info.features
        classes = features["objects"].feature["label"].names
        examples = _examples(builder, part, tfds.decode.SkipDecoding())
        sizes, objects, ids = _read(examples, len(classes), f"{folder}: {part}")
    except QevoError:
        raise
    except Exception as error:  # tfds passes on what its codecs raise
        raise QevoError(
            f"{folder}: expected a prepared tensorflow-datasets data set with {part}, and objects "
            f"in its images, found {type(error).__name__}: {error}"
        ) from error
    return gathered(
        PreparedImages(examples, f"{folder}: {part}"),
        sizes,
        objects,
        name=name,
        split=split,
        ids=ids,
        classes=classes,
        source=f"tensorflow-datasets {builder.info.full_name}",
    )


class PreparedImages(Reading):
    """The images of examples, decoded to RGB by Pillow when asked for."""

    def __init__(self, examples: Sequence[Mapping[str, Any]], where: str) -> None:
        self.examples, self.where = examples, where

    def __len__(self) -> int:
        return len(self.examples)

    def one(self, row: int) -> np.ndarray:
        with _opened(self.examples[row]["image"], f"{self.where}, image {row}") as image:
            return np.asarray(image.convert("RGB"))


class _Records(Sequence[Mapping[str, Any]]):
    """The examples of TFRecord files, read where they lie when asked for."""

    def __init__(self, features: Any, files: Sequence[Path], skip: Any) -> None:
        self.features, self.skip = features, skip
        self.spans: list[tuple[Path, int, int]] = []
        for file in files:
            at = 0
            for record in tfrecords(file):
                self.spans.append((file, at + 12, len(record)))  # 12 bytes of length and its CRC
                at += 12 + len(record) + 4

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: Any) -> Any:
        path, start, size = self.spans[index]
        with path.open("rb") as file:
            file.seek(start)
            record = file.read(size)
        return self.features.deserialize_example_np(record, decoders={"image": self.skip})


def _examples(builder: Any, part: str, skip: Any) -> Sequence[Mapping[str, Any]]:
    info = builder.info
    if info.file_format.value != "tfrecord":
        return builder.as_data_source(split=part, decoders={"image": skip})
    files = [Path(path) for path in info.splits[part].filepaths]
    examples = _Records(info.features, files, skip)
    if len(examples) != info.splits[part].num_examples:
        raise QevoError(
            f"{files[0].parent}: {part}: expected {info.splits[part].num_examples} examples, "
            f"found {len(examples)}"
        )
    return examples


def _read(
    examples: Sequence[Mapping[str, Any]], classes: int, where: str
) -> tuple[list[tuple[int, int]], list[Objects], list[str]]:
    sizes, objects, ids = [], [], []
    for row in range(len(examples)):
        example, told = examples[row], f"{where}, image {row}"
        with _opened(example["image"], told) as image:
            height, width = checked_size(image.height, image.width, told)
        found, marked = example["objects"], []
        boxes, labels = np.asarray(found["bbox"], np.float64), np.asarray(found["label"])
        passed = next((found[key] for key in IGNORED if key in found), np.zeros(len(labels), bool))
        for number in range(len(labels)):
            at = f"{told}, object {number}"
            if not 0 <= labels[number] < classes:
                raise QevoError(
                    f"{at}: expected a label from 0 to {classes - 1}, found {labels[number]}"
                )
            y0, x0, y1, x1 = boxes[number] * (height, width, height, width)
            marked.append(Marked(at, int(labels[number]), (x0, y0, x1, y1), bool(passed[number])))
        sizes.append((height, width))
        objects.append(checked(marked, sizes[-1]))
        ids.append(str(example.get("image/id", row)))
    return sizes, objects, ids


@contextlib.contextmanager
def _opened(encoded: bytes, where: str) -> Iterator[Any]:
    """Pillow's image, whose data is read when it is asked for."""
    image_module = pillow(f"{where}: reading images")
    try:
        with image_module.open(io.BytesIO(encoded)) as image:
            yield image
    except QevoError:
        raise
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise QevoError(f"{where}: expected a whole encoded image, found {error}") from None
