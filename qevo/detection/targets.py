"""What the maps of a YOLO network should say: who finds which object, and the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qevo.detection.anchors import shape_overlaps
from qevo.detection.heads import YoloHead, decode
from qevo.detection.suppression import overlaps

_CLAIMED = -float(np.log(3))  # a class that is given a quarter; an ignored object has 0 for all


class YoloLoss(NamedTuple):
    """Sums over a batch by the objects in it, float32."""

    total: jax.Array
    boxes: jax.Array  # squared errors of who is responsible for an object
    objectness: jax.Array  # nats
    classes: jax.Array  # nats


def responsible(
    boxes: jax.Array,
    labels: jax.Array,
    heads: Sequence[YoloHead],
    shapes: Sequence[tuple[int, int, int]],
    *,
    size: tuple[int, int],
) -> jax.Array:
    """The object that each anchor of each cell has to find.

    An object belongs to the cell that its centre is in, and there to the anchor of a head whose
    width and height overlap its own most, if that is one of the head's mask; of two objects for
    one anchor of one cell, the later. Redmon and Farhadi 2018, section 2.1, as darknet does it.

    Args:
      boxes: float ``[B, K, 4]``, corners in pixels of the input.
      labels: integers ``[B, K]``; a negative one is found by none.
      heads: of the network.
      shapes: ``(h, w, channels)`` of their maps.
      size: height and width of the input.

    Returns:
      int32 ``[B, N]``, index of an object or -1, in the order of `decode`.
    """
    batch, objects = labels.shape
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    rows = jnp.arange(batch)[:, None]
    owners = []
    for head, (height, width, _) in zip(heads, shapes, strict=True):
        best = shape_overlaps(sides[..., None, :], jnp.asarray(head.anchors, jnp.float32)).argmax(
            axis=-1
        )
        places = np.full(len(head.anchors), -1)
        places[list(head.mask)] = np.arange(len(head.mask))
        anchor = jnp.asarray(places)[best]
        cell = jnp.floor(centre * np.array([width / size[1], height / size[0]], np.float32))
        column, row = jnp.moveaxis(cell.astype(jnp.int32), -1, 0)
        column, row = jnp.clip(column, 0, width - 1), jnp.clip(row, 0, height - 1)
        slots = height * width * len(head.mask)
        slot = (row * width + column) * len(head.mask) + anchor
        there = (labels >= 0) & jnp.all(sides > 0, axis=-1)
        slot = jnp.where(there & (anchor >= 0), slot, slots)
        owner = jnp.full((batch, slots), -1, jnp.int32)
        # A maximum, since of writes to one place none is certain to be the last.
        owners.append(owner.at[rows, slot].max(jnp.arange(objects, dtype=jnp.int32), mode="drop"))
    return jnp.concatenate(owners, axis=1)


def yolo_loss(
    maps: Sequence[jax.Array],
    boxes: jax.Array,
    labels: jax.Array,
    heads: Sequence[YoloHead],
    *,
    size: tuple[int, int],
    ignore: float = 0.5,
) -> YoloLoss:
    """How far raw maps are from the objects in their images.

    Who is `responsible` for an object learns its box, its class and that there is one. All others
    learn that there is none, but for those whose box overlaps an object by more than `ignore` and
    who give its class a quarter or more, as darknet has it: otherwise a head for large classes
    would find them in small objects, and nothing would teach it not to.
    Objectness and classes are binary cross-entropies; of a box, it is the squared error of x and y
    after the sigmoid and of the raw width and height, up to twice as heavy for small objects.
    Redmon and Farhadi 2018, section 2. A loss by overlap has no gradient left where a box has
    shrunk to a point within its object.

    Args:
      maps: float ``[B, h, w, A*(5 + C)]``, one for each head.
      boxes: float ``[B, K, 4]``, corners in pixels of the input; an empty one is no object.
      labels: integers ``[B, K]``; where it is negative, the box is nobody's to find.
      heads: of the network.
      size: height and width of the input.
      ignore: overlap; darknet's ``ignore_thresh``.
    """
    shapes = [(raw.shape[1], raw.shape[2], raw.shape[3]) for raw in maps]
    said = jnp.concatenate(
        [raw.reshape(len(raw), -1, 5 + heads[0].classes) for raw in maps], axis=1
    )
    found, _ = decode(maps, heads, size=size)
    owner = responsible(boxes, labels, heads, shapes, size=size)
    finds, owner = owner >= 0, jnp.maximum(owner, 0)
    near = overlaps(jax.lax.stop_gradient(found)[:, :, None], boxes[:, None]) > ignore
    says = jnp.einsum("bnc,bkc->bnk", said[..., 5:], jax.nn.one_hot(labels, heads[0].classes))
    near = jnp.any(near & (says > _CLAIMED), axis=-1)
    known = jnp.take_along_axis(boxes, owner[..., None], axis=1)
    label = jnp.take_along_axis(labels, owner, axis=1)
    one_hot = jax.nn.one_hot(label, heads[0].classes)
    nats = optax.sigmoid_binary_cross_entropy
    count = jnp.maximum(finds.sum(), 1)
    anchors, pitch = _grid(heads, shapes, size)
    centres = (found[..., :2] + found[..., 2:] - known[..., :2] - known[..., 2:]) / 2
    sides = jnp.where(finds[..., None], known[..., 2:] - known[..., :2], anchors)
    errors = jnp.concatenate([centres / pitch, said[..., 2:4] - jnp.log(sides / anchors)], axis=-1)
    small = 2 - sides.prod(axis=-1, keepdims=True) / math.prod(size)
    parts = (
        jnp.where(finds[..., None], small * jnp.square(errors), 0),
        jnp.where(finds | ~near, nats(said[..., 4], finds.astype(jnp.float32)), 0),
        jnp.where(finds[..., None], nats(said[..., 5:], one_hot), 0),
    )
    box, objectness, classes = (part.sum() / count for part in parts)
    return YoloLoss(box + objectness + classes, box, objectness, classes)


def _grid(
    heads: Sequence[YoloHead], shapes: Sequence[tuple[int, int, int]], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of the anchor, and of the cell, at each place of `decode`: [N, 2] pixels."""
    anchors, pitch = [], []
    for head, (height, width, _) in zip(heads, shapes, strict=True):
        own = np.array([head.anchors[index] for index in head.mask], np.float32)
        anchors.append(np.tile(own, (height * width, 1)))
        cell = np.array([size[1] / width, size[0] / height], np.float32)
        pitch.append(np.tile(cell, (height * width * len(own), 1)))
    return np.concatenate(anchors), np.concatenate(pitch)
