"""The arrays of a published file, each checked against the architecture it is for."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from qevo.errors import QevoError
from qevo.nets.float_numerics import BATCH_NORM_EPSILON
from qevo.quantize.importing.arrays import read_arrays


class Archive:
    """The arrays of a checkpoint file (`read_arrays`), taken one by one.

    Torch's counters of batches are left out.

    Args:
      path: of the file.
      content: what it should hold, for errors.

    Raises:
      QevoError: if the file does not exist or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], content: str) -> None:
        self._path, self._content = path, content
        arrays = read_arrays(path)
        self._left = {n: a for n, a in arrays.items() if not n.endswith("num_batches_tracked")}

    @property
    def names(self) -> set[str]:
        """Of the arrays not yet taken."""
        return set(self._left)

    def take(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """One array as float32.

        Raises:
          QevoError: if it is not there, has another shape, or holds anything but finite floats.
        """
        if name not in self._left:
            raise QevoError(f"{self._path}: no array {name!r} of {self._content}")
        value = self._left.pop(name)
        if value.dtype.kind != "f" or value.shape != tuple(shape):
            raise QevoError(
                f"{self._path}: {name} must be floats {list(shape)}, not {value.dtype}"
                f" {list(value.shape)}"
            )
        if not np.isfinite(value).all():
            raise QevoError(f"{self._path}: {name} holds values that are not finite")
        return value.astype(np.float32)

    def finish(self) -> None:
        """Refuse what has not been taken: such a file holds another network.

        Raises:
          QevoError: if an array is left.
        """
        if self._left:
            raise QevoError(f"{self._path}: array {min(self._left)!r} is none of {self._content}")


def batch_norm(
    layer: str,
    *,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
) -> dict[str, np.ndarray]:
    """A layer's batch norm by our names; the variance absorbs the difference of the epsilons."""
    return {
        f"params/{layer}/norm/scale": scale,
        f"params/{layer}/norm/bias": bias,
        f"batch_stats/{layer}/norm/mean": mean,
        f"batch_stats/{layer}/norm/var": np.asarray(
            variance + (epsilon - BATCH_NORM_EPSILON), np.float32
        ),
    }
