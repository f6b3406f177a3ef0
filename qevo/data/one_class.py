"""Anomaly detection from a classification data set: one class is normal, all others are not."""

import numpy as np

from qevo.data.dataset import Dataset, Split
from qevo.errors import QevoError

NORMAL, ANOMALY = 0, 1  # labels


def one_class(data: Dataset, normal: int) -> Dataset:
    """Search and validation images of one class alone, and all test images.

    Args:
      data: of several classes.
      normal: label of the one class.

    Returns:
      Labels are `NORMAL` or `ANOMALY`; the latter are among the test images only.

    Raises:
      QevoError: no such class, or a split that lacks what it needs of it.
    """
    if not 0 <= normal < len(data.classes):
        raise QevoError(
            f"{data.name} has classes 0 to {len(data.classes) - 1}; there is no {normal}"
        )

    def ours(split: Split) -> Split:
        found = split.take(np.flatnonzero(split.labels == normal))
        return Split(found.images, np.full(len(found), NORMAL, np.int32))

    search, validation = ours(data.search), ours(data.validation)
    test = Split(
        data.test.images, np.where(data.test.labels == normal, NORMAL, ANOMALY).astype(np.int32)
    )
    name = data.classes[normal]
    if not len(search) or not len(validation) or len(set(test.labels.tolist())) < 2:
        raise QevoError(
            f"{data.name}: class {name} needs images in every split, and others in test; found"
            f" {len(search)} search, {len(validation)} validation and"
            f" {int(np.sum(test.labels == NORMAL))} of {len(test)} test images"
        )
    source = f"{data.source}; normal: {name}"
    return Dataset(data.name, search, validation, test, (name, "anomaly"), source)
