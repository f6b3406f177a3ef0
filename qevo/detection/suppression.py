"""From all that a network says to the objects that it finds: non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError


@dataclass(frozen=True, eq=False)
class Detections:
    """What is found in one image, most confident first.

    Raises:
      QevoError: where the shapes do not fit.
    """

    boxes: np.ndarray  # float32 [n, 4], corners x0, y0, x1, y1 in pixels
    scores: np.ndarray  # float32 [n], 0 to 1
    labels: np.ndarray  # int32 [n]

    def __post_init__(self) -> None:
        n = len(self.scores)
        shapes = self.boxes.shape, self.scores.shape, self.labels.shape
        if shapes != ((n, 4), (n,), (n,)):
            raise QevoError(
                f"expected boxes [n, 4], scores [n] and labels [n], found {list(map(list, shapes))}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def known(cls, boxes: np.ndarray, labels: np.ndarray) -> Detections:
        """The truth, of which one is sure: all scores are 1."""
        return cls(boxes, np.ones(len(labels), np.float32), labels)

    def above(self, confidence: float) -> Detections:
        """Those with a score above `confidence`."""
        kept = self.scores > confidence
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept])


def overlaps(first: Any, second: Any) -> Any:
    """Intersection over union of boxes ``[..., 4]`` by their corners; 0 where both are empty.

    Arrays of JAX or of numpy; the answer is of the same kind.
    """
    xp = first.__array_namespace__()
    low = xp.maximum(first[..., :2], second[..., :2])
    high = xp.minimum(first[..., 2:], second[..., 2:])
    shared = xp.prod(xp.maximum(high - low, 0), axis=-1)
    areas = [xp.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (first, second)]
    union = areas[0] + areas[1] - shared
    return xp.where(union > 0, shared / xp.where(union > 0, union, 1), 0)


def suppress(
    boxes: jax.Array | np.ndarray,
    scores: jax.Array | np.ndarray,
    *,
    threshold: float = 0.005,
    overlap: float = 0.45,
    by_class: bool = True,
    limit: int = 100,
    candidates: int = 1000,
) -> list[Detections]:
    """Greedy non-maximum suppression of a batch.

    Of the pairs of a box and a class with a score above `threshold`, the most confident is kept and
    all of its class that overlap it by more than `overlap` are dropped; and again with what is
    left. So darknet does; one box may stand for several classes. Of equal scores the first in
    ``[N, C]`` goes first.

    Args:
      boxes: float ``[B, N, 4]``, corners.
      scores: float ``[B, N, C]``.
      threshold: the default is darknet's for an average precision, which needs unsure objects too;
        to show objects darknet takes 0.25.
      overlap: of union; darknet's 0.45.
      by_class: where it is false, each box stands for its best class only and is dropped for boxes
        of any class: one label for each object, to be shown.
      limit: objects kept of an image, the most confident of all classes. COCO counts 100.
      candidates: pairs considered of an image, the most confident.

    Returns:
      One record for each of the B images.

    Raises:
      QevoError: other shapes, or a limit below 1.
    """
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape != (*scores.shape[:2], 4):
        raise QevoError(
            "expected boxes [B, N, 4] and scores [B, N, C], found "
            f"{list(boxes.shape)} and {list(scores.shape)}"
        )
    if min(limit, candidates) < 1:
        raise QevoError(f"expected limits of at least 1, found {limit} and {candidates}")
    if 0 in scores.shape[1:]:
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
        return [Detections(*none) for _ in boxes]
    pairs = scores.shape[1] * (scores.shape[2] if by_class else 1)
    candidates = min(candidates, pairs)
    limit = min(limit, candidates)
    found = _suppress(
        jnp.asarray(boxes), jnp.asarray(scores), threshold, overlap, by_class, limit, candidates
    )
    kept_boxes, kept_scores, kept_labels = map(np.asarray, found)
    ends = np.sum(kept_scores > threshold, axis=1)
    return [
        Detections(kept_boxes[row, :end], kept_scores[row, :end], kept_labels[row, :end])
        for row, end in enumerate(ends)
    ]


@partial(jax.jit, static_argnums=(4, 5, 6))
def _suppress(
    boxes: jax.Array,
    scores: jax.Array,
    threshold: float,
    overlap: float,
    by_class: bool,
    limit: int,
    candidates: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Boxes [B, limit, 4], scores and labels [B, limit]; a score of -1 where nothing is left."""
    rows = jnp.arange(len(boxes))
    if by_class:
        classes = scores.shape[2]
        scores, pairs = jax.lax.top_k(scores.reshape(len(boxes), -1), candidates)
        chosen, labels = pairs // classes, pairs % classes
    else:
        best = jnp.argmax(scores, axis=2)
        scores, chosen = jax.lax.top_k(jnp.max(scores, axis=2), candidates)
        labels = jnp.take_along_axis(best, chosen, axis=1)
    boxes = jnp.take_along_axis(boxes, chosen[..., None], axis=1)

    def keep(left: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        first = jnp.argmax(left, axis=1)  # scores fall
        box, label = boxes[rows, first], labels[rows, first]
        score = jnp.where(left[rows, first], scores[rows, first], -1)
        dropped = overlaps(boxes, box[:, None]) > overlap
        if by_class:
            dropped &= labels == label[:, None]
        left = (left & ~dropped).at[rows, first].set(False)
        return left, (box, score, label)

    _, kept = jax.lax.scan(keep, scores > threshold, length=limit)
    kept_boxes, kept_scores, kept_labels = (jnp.swapaxes(part, 0, 1) for part in kept)
    return kept_boxes, kept_scores, kept_labels.astype(jnp.int32)
