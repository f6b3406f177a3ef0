"""Anchors for the objects that there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from qevo.detection.suppression import overlaps
from qevo.errors import QevoError

_ROUNDS = 300  # of k-means; a thousand boxes settle in about twenty


def anchor_sizes(sizes: np.ndarray, count: int, *, weights: np.ndarray | None = None) -> np.ndarray:
    """Anchors for objects, small to large: k-means, where near is what overlaps.

    It starts at quantiles of the area, so that there is no chance in it, and finds a local optimum.
    Redmon and Farhadi 2017 (YOLO9000), section 2.

    Args:
      sizes: width and height ``[n, 2]`` in pixels of the network's input.
      count: of anchors.
      weights: ``[n]``, how much each object counts; the inverse of its class's number, for one,
        has rare classes count as much as others.

    Returns:
      float64 ``[count, 2]``.

    Raises:
      QevoError: fewer sizes than anchors, an empty one, or weights that are none of theirs.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    if not 1 <= count <= len(sizes) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise QevoError(
            f"expected 1 to {len(sizes)} anchors of as many sizes above 0, found {count} and a"
            f" smallest side of {sizes.min() if len(sizes) else 'none'}"
        )
    weights = np.ones(len(sizes)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != sizes.shape[:1] or not (weights.min() >= 0 and 0 < weights.sum() < np.inf):
        raise QevoError(
            f"expected {len(sizes)} weights of 0 or more, one above 0, found {list(weights.shape)}"
            f" from {weights.min(initial=np.inf)} to {weights.max(initial=-np.inf)}"
        )
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    found = sizes[order[np.searchsorted(share, (np.arange(count) + 0.5) / count)]]
    for _ in range(_ROUNDS):
        nearest = shape_overlaps(sizes[:, None], found[None]).argmax(axis=1)
        means = [
            np.average(sizes[mine], axis=0, weights=weights[mine]) if mine.any() else found[index]
            for index in range(count)
            for mine in [nearest == index]
        ]
        if np.array_equal(means, found):
            break
        found = np.array(means)
    return found[np.argsort(found.prod(axis=1), kind="stable")]


def shape_overlaps(first: Any, second: Any) -> Any:
    """Intersection over union of sides ``[..., 2]``, as boxes with one corner in common.

    Arrays of JAX or of numpy; the answer is of the same kind.
    """
    xp = first.__array_namespace__()
    corners = [xp.concat([sides * 0, sides], axis=-1) for sides in (first, second)]
    return overlaps(*corners)
