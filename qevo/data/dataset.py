"""Images with labels, and the seeded class-stratified split into search, validation and test."""

import hashlib
from dataclasses import dataclass

import numpy as np

from qevo.errors import QevoError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, held as read-only views.

    Raises:
      QevoError: where the shapes or types are not those below.
    """

    images: np.ndarray  # uint8 [n, H, W, C]
    labels: np.ndarray  # int32 [n]

    def __post_init__(self) -> None:
        images, labels = self.images.view(), self.labels.view()
        if images.dtype != np.uint8 or images.ndim != 4:
            raise QevoError(
                f"images: expected uint8 [n, H, W, C], found {images.dtype} {list(images.shape)}"
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise QevoError(
                f"labels: expected int32 [{len(images)}], one per image, "
                f"found {labels.dtype} {list(labels.shape)}"
            )
        images.flags.writeable = labels.flags.writeable = False
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """Copy the images and labels at `rows`, int [m], in that order."""
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Parts:
    """What a reader found: a training part and, where the source has one, its own test part."""

    train: Split
    test: Split | None
    classes: tuple[str, ...]  # in label order
    source: str  # where it came from, one line


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits: one to search on, one to accept and stop on, one for the report."""

    name: str
    search: Split  # in a seeded random order
    validation: Split  # in a seeded random order
    test: Split
    classes: tuple[str, ...]  # in label order
    source: str  # where it came from, one line, for the report

    def fingerprint(self) -> str:
        """SHA-256, in hex, over the shapes and bytes of all six arrays."""
        digest = hashlib.sha256()
        for split in (self.search, self.validation, self.test):
            digest.update(f"{split.images.shape}".encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels, "<i4").data)
        return digest.hexdigest()


def divide(parts: Parts, *, name: str, seed: int, validation: int | None = None) -> Dataset:
    """Divide what a reader found into search, validation and test.

    A test part of the source is kept whole and in its own order; without one, 15 % of all images
    are drawn as test. Validation images are then drawn from the rest. Every draw keeps the class
    shares and depends on labels and `seed` only.

    Args:
      parts: the images; at least one image of every class in the training part.
      name: of the data set, for the result and for errors.
      seed: of the draws; the same seed gives the same splits on every platform.
      validation: images to hold out; by default 15 % of the training part and any drawn test.

    Raises:
      QevoError: where so many images are held out that a class would have none to search on.
    """
    train, test = parts.train, parts.test
    share = max(1, round(0.15 * len(train)))
    try:
        if test is None:
            kept, drawn = stratified(train.labels, share, key=f"test {seed}")
            train, test = train.take(kept), train.take(drawn)
        size = share if validation is None else validation
        kept, drawn = stratified(train.labels, size, key=f"validation {seed}")
    except QevoError as error:
        raise QevoError(f"{name} ({parts.source}): {error}") from None
    return Dataset(name, train.take(kept), train.take(drawn), test, parts.classes, parts.source)


def stratified(labels: np.ndarray, size: int, *, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw `size` rows with the class shares of `labels`; return (kept, drawn), both shuffled.

    Shares are rounded by largest remainder (ties to the lower class) and leave every class at least
    one kept row.

    Args:
      labels: int [n], from 0.
      size: rows to draw.
      key: names the draw.

    Returns:
      int64 ``[n - size]`` and int64 ``[size]``, disjoint.

    Raises:
      QevoError: where `size` is below 1 or too large to leave a row of every class.
    """
    counts = np.bincount(labels)
    limit = len(labels) - np.count_nonzero(counts)
    if limit < 1:
        raise QevoError(
            f"cannot hold out {size} of {len(labels)} images: each of {np.count_nonzero(counts)} "
            "classes needs one to search on besides; add images"
        )
    if not 1 <= size <= limit:
        raise QevoError(
            f"cannot hold out {size} of {len(labels)} images: expected 1 to {limit}, so that "
            f"each of {np.count_nonzero(counts)} classes keeps an image to search on"
        )
    quota, remainder = np.divmod(size * counts, len(labels))
    by_remainder = np.argsort(-remainder, kind="stable")
    while left := size - quota.sum():
        room = by_remainder[(counts - quota > 1)[by_remainder]]
        quota[room[:left]] += 1

    order = shuffled(len(labels), key=key)
    drawn = np.zeros(len(labels), bool)
    for label, n in enumerate(quota):
        drawn[order[labels[order] == label][:n]] = True
    return order[~drawn[order]], order[drawn[order]]


def shuffled(n: int, *, key: str) -> np.ndarray:
    """A permutation of ``range(n)``, int64 [n], fixed by `key` alone.

    Rows are ordered by 64-bit words of SHAKE-256, a published function: the stream of a numpy
    generator may change between versions.
    """
    words = hashlib.shake_256(f"qevo {key}".encode()).digest(8 * n)
    return np.argsort(np.frombuffer(words, "<u8"), kind="stable")
