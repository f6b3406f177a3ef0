"""Data sets prepared by tensorflow-datasets, read without TensorFlow."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qevo.data.dataset import Parts, Split
from qevo.data.files import check_labels
from qevo.data.known import Known
from qevo.errors import QevoError


def find(name: str, roots: Iterable[Path]) -> Path | None:
    """The prepared data set `name` of the latest version, in the first of `roots` that holds one.

    Looks for ``ROOT/NAME/VERSION/features.json`` and imports nothing.
    """
    for root in roots:
        versions = [file.parent for file in (root / name).glob("*.*.*/features.json")]
        if versions:
            return max(versions, key=_version)
    return None


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else -1 for part in folder.name.split("."))


def read(folder: Path, known: Known) -> Parts:
    """Read the splits ``train`` and ``test`` of the prepared data set in `folder`.

    ArrayRecord and Parquet are read by tensorflow-datasets itself; TFRecord, its usual format, by
    the framing below, and its examples decoded by tensorflow-datasets.

    Raises:
      QevoError: where tensorflow-datasets is missing or the data is damaged or not `known`.
    """
    tfds = module(folder)
    try:
        builder = tfds.builder_from_directory(folder)
        train, test = (_split(builder, part, known, folder) for part in ("train", "test"))
    except QevoError:
        raise
    except Exception as error:  # tfds passes on what its codecs raise
        raise QevoError(
            f"{folder}: expected a prepared tensorflow-datasets data set with train and test, "
            f"found {type(error).__name__}: {error}"
        ) from error
    return Parts(train, test, known.classes, f"tensorflow-datasets {builder.info.full_name}")


def module(folder: Path) -> Any:
    """The package tensorflow_datasets.

    Raises:
      QevoError: it is missing; the message begins with the folder that needs it.
    """
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise QevoError(
            f"{folder}: reading it needs tensorflow-datasets ({error}): "
            "pip install -e '.[data]' in qevo's checkout"
        ) from None
    return tensorflow_datasets


def _split(builder: Any, part: str, known: Known, folder: Path) -> Split:
    info = builder.info.splits[part]
    n, where = info.num_examples, f"{folder}: {part}"
    images, labels = np.empty((n, *known.shape), np.uint8), np.empty(n, np.int64)
    count = 0
    for example in _examples(builder, part):
        image = np.asarray(example["image"])
        if image.dtype != np.uint8 or image.shape != known.shape:
            raise QevoError(
                f"{where}: expected images uint8 {list(known.shape)}, "
                f"found {image.dtype} {list(image.shape)} at image {count}"
            )
        if count == n:
            raise QevoError(f"{where}: expected {n} examples, found more")
        images[count], labels[count] = image, example["label"]
        count += 1
    if count < n or n == 0:
        raise QevoError(f"{where}: expected {max(n, 1)} examples, found {count}")
    check_labels(labels, len(known.classes), where)
    return Split(images, labels.astype(np.int32))


def _examples(builder: Any, part: str) -> Iterable[Mapping[str, Any]]:
    info = builder.info
    if info.file_format.value != "tfrecord":
        return builder.as_data_source(split=part)
    return (
        info.features.deserialize_example_np(record)
        for path in info.splits[part].filepaths
        for record in tfrecords(Path(path))
    )


def tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length uint64, its CRC uint32, bytes, their CRC uint32.

    The CRCs are passed over: lengths and the image codec's own checks find a truncated or damaged
    file.

    Raises:
      QevoError: where a record reaches beyond the end of the file.
    """
    data, at = path.read_bytes(), 0
    while at < len(data):
        header = data[at : at + 12]
        size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
        end = at + 12 + size + 4
        if len(header) < 12 or end > len(data):
            raise QevoError(
                f"{path}: expected whole records, found one cut off: it starts at byte {at} "
                f"of {len(data)}"
            )
        yield data[at + 12 : end - 4]
        at = end
