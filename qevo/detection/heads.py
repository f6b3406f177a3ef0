"""The heads of a YOLO network: what a raw map means, and the boxes it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError

EXPONENT_LIMIT = 16.0  # of a width or height; a box beyond it covers any image many times over


@dataclass(frozen=True)
class YoloHead:
    """One ``[yolo]`` section of a darknet network, with darknet's names.

    Raises:
      QevoError: a mask that names no anchor or one that is not there, or sizes that are none.
    """

    anchors: tuple[tuple[float, float], ...]
    """Width and height in pixels of the network's input; of all heads, as in the file."""

    mask: tuple[int, ...]
    """The anchors that this head uses, in the order of its channels."""

    classes: int
    """C, at least 1."""

    scale_x_y: float = 1.0
    """How far a centre may leave its cell: 1 is not at all (YOLOv4, Bochkovskiy et al. 2020)."""

    def __post_init__(self) -> None:
        if not self.mask or not all(0 <= index < len(self.anchors) for index in self.mask):
            raise QevoError(
                f"mask: expected indices of {len(self.anchors)} anchors, found {list(self.mask)}"
            )
        if not all(len(anchor) == 2 and min(anchor) > 0 for anchor in self.anchors):
            raise QevoError(
                f"anchors: expected pairs of positive pixels, found {list(self.anchors)}"
            )
        if self.classes < 1 or self.scale_x_y < 1:
            raise QevoError(
                "expected at least one class, and a scale_x_y of at least 1; "
                f"found {self.classes} and {self.scale_x_y}"
            )

    @property
    def channels(self) -> int:
        """Of the raw map: for each anchor x, y, w, h, objectness, and one for each class."""
        return len(self.mask) * (5 + self.classes)


def decode(
    maps: Sequence[jax.Array | np.ndarray], heads: Sequence[YoloHead], *, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Boxes and scores of all heads from their raw maps.

    In a cell at column i and row j of a map of h rows and w columns, an anchor (aw, ah) that says
    (x, y, width, height, objectness, classes) stands for a box with its centre at
    ``((i + σ(x)) / w, (j + σ(y)) / h)`` of the input, ``aw·exp(width)`` by ``ah·exp(height)``
    pixels large, of score ``σ(objectness)·σ(class)``. Redmon and Farhadi 2018 (YOLOv3), section 2,
    as darknet computes it.

    Args:
      maps: numbers ``[B, h, w, A*(5 + C)]``, one for each head; integers are taken as they are, so
        scale fixed-point ones first.
      heads: of the same number of classes.
      size: height and width of the network's input, pixels.

    Returns:
      float32 ``[B, N, 4]``, corners x0, y0, x1, y1 in pixels of the input, not clipped to it, and
      float32 ``[B, N, C]`` from 0 to 1. N counts heads, then rows, columns and anchors.

    Raises:
      QevoError: where maps and heads do not fit.
    """
    maps, heads = tuple(maps), tuple(heads)
    if not heads or len(maps) != len(heads):
        raise QevoError(f"expected one map for each head, found {len(maps)} for {len(heads)}")
    if len({head.classes for head in heads}) > 1:
        raise QevoError(
            f"expected one number of classes, found {sorted({h.classes for h in heads})}"
        )
    for index, (raw, head) in enumerate(zip(maps, heads, strict=True)):
        if raw.ndim != 4 or raw.shape[0] != maps[0].shape[0] or raw.shape[3] != head.channels:
            raise QevoError(
                f"map {index}: expected [{maps[0].shape[0]}, h, w, {head.channels}] for "
                f"{len(head.mask)} anchors and {head.classes} classes, found {list(raw.shape)}"
            )
    return _decode(maps, heads, size)


@partial(jax.jit, static_argnums=(1, 2))
def _decode(
    maps: tuple[jax.Array, ...], heads: tuple[YoloHead, ...], size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    parts = [_decode_head(raw, head, size) for raw, head in zip(maps, heads, strict=True)]
    boxes, scores = zip(*parts, strict=True)
    return jnp.concatenate(boxes, axis=1), jnp.concatenate(scores, axis=1)


def _decode_head(
    raw: jax.Array, head: YoloHead, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    count, rows, columns, _ = raw.shape
    said = raw.astype(jnp.float32).reshape(count, rows, columns, len(head.mask), 5 + head.classes)
    cell = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)[:, :, None]
    pitch = np.array([size[1] / columns, size[0] / rows], np.float32)
    within = jax.nn.sigmoid(said[..., 0:2]) * head.scale_x_y - 0.5 * (head.scale_x_y - 1)
    centre = (within + cell) * pitch
    # A network of few bits may say anything; an infinite box has no overlap to compute.
    exponent = jnp.clip(said[..., 2:4], -EXPONENT_LIMIT, EXPONENT_LIMIT)
    anchors = np.array([head.anchors[index] for index in head.mask], np.float32)
    half = jnp.exp(exponent) * anchors / 2
    scores = jax.nn.sigmoid(said[..., 4:5]) * jax.nn.sigmoid(said[..., 5:])
    boxes = jnp.concatenate([centre - half, centre + half], axis=-1)
    return boxes.reshape(count, -1, 4), scores.reshape(count, -1, head.classes)
