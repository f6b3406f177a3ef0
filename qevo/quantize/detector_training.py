"""Training a float detector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qevo.detection import yolo_loss
from qevo.detection.letterbox import GREY
from qevo.errors import QevoError
from qevo.nets.maps import apart
from qevo.quantize.importing.darknet import Detector
from qevo.quantize.training import Progress, TrainingConfig, descend


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How an image is varied, and its boxes with it; each image its own way.

    Attributes:
      mirror: half of the images, left to right.
      upside_down: half of the images; for what has no up or down.
      scale: about the centre, by a factor up to this much above or below 1 (as a ratio).
      stretch: of width against height, the same way.
      shift: share of height and width, either way.
      brightness: each colour's factor, the same way as ``scale``; all three share most of it.
    """

    mirror: bool = True
    upside_down: bool = False
    scale: float = 0.2
    stretch: float = 0.1
    shift: float = 0.1
    brightness: float = 0.2


def train_detector(
    detector: Detector,
    images: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    *,
    config: TrainingConfig | None = None,
    jitter: Jitter | None = None,
    ignore: float = 0.5,
    score: Callable[[Any], float] | None = None,
    score_every: int = 10,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a detector with `Float` numerics on `qevo.detection.yolo_loss`.

    Args:
      detector: the architecture, with heads of one number of classes.
      images: uint8 ``[n, H, W, 3]`` of the detector's size; `qevo.detection.fitted` makes them, and
        boxes and labels in their form.
      boxes: float ``[n, K, 4]``, corners in pixels of these images; an empty one is no object.
      labels: integers ``[n, K]``, -1 where there is nothing to find.
      config: how; 16 images a step and 100 epochs by default. There is no ``label_smoothing``.
      jitter: how images are varied; by default they are taken as they are.
      ignore: as for `qevo.detection.yolo_loss`.
      score: of variables, such as the average precision on images held out: those with the largest
        are returned, and without it the last.
      score_every: epochs between scores; the last is always scored.
      progress: called after each epoch with the step number, the ``loss`` of that epoch's batches
        and its parts ``boxes``, ``objectness`` and ``classes``, and ``score`` where it was taken.

    Returns:
      ``params`` and, where the network normalises, ``batch_stats``.

    Raises:
      QevoError: too few images for one batch, arrays that do not match each other or the detector,
        or a loss that is not finite.
    """
    config = config or TrainingConfig(epochs=100, batch=16)
    count, most = np.shape(labels)
    if images.shape != (count, *detector.image_shape) or boxes.shape != (count, most, 4):
        raise QevoError(
            f"expected images {[count, *detector.image_shape]} and boxes {[count, most, 4]} for"
            f" labels {[count, most]}, found {list(images.shape)} and {list(boxes.shape)}"
        )
    if count < config.batch or score_every < 1:
        raise QevoError(
            f"training needs at least one batch of {config.batch} images and a score_every of 1,"
            f" not {count} and {score_every}"
        )
    classes = detector.heads[0].classes
    if labels.min(initial=-1) < -1 or labels.max(initial=-1) >= classes:
        raise QevoError(
            f"expected labels -1 to {classes - 1}, found {labels.min()} to {labels.max()}"
        )

    def objective(output: Any, _: jax.Array, boxes: jax.Array, labels: jax.Array) -> Any:
        maps = apart(output, detector.shapes)
        size = detector.image_shape[:2]
        return yolo_loss(maps, boxes, labels, detector.heads, size=size, ignore=ignore)

    def augment(key: jax.Array, *batch: jax.Array) -> tuple[jax.Array, ...]:
        assert jitter is not None
        return varied(key, *batch, jitter=jitter)

    best: dict[str, Any] = {}
    most_scored = -np.inf

    def after_epoch(step: int, variables: Any, means: np.ndarray) -> bool:
        nonlocal best, most_scored
        if not np.isfinite(means).all():
            raise QevoError("training diverged: take a smaller learning rate")
        names = ("loss", "boxes", "objectness", "classes")
        said = {name: float(mean) for name, mean in zip(names, means, strict=True)}
        epoch = step // (count // config.batch)
        if score is not None and (epoch % score_every == 0 or epoch == config.epochs):
            said["score"] = found = score(variables)
            if found > most_scored:
                # Copies: the next step writes over the arrays that it is given.
                best, most_scored = jax.tree.map(np.array, variables), found
        if progress is not None:
            progress(step, said)
        return False

    data = (
        jnp.asarray(images),
        jnp.asarray(boxes, jnp.float32),
        jnp.asarray(labels, jnp.int32),
    )
    share = (labels >= 0).sum() / count / sum(math.prod(shape) for shape in detector.shapes)
    last = descend(
        detector.module,
        data,
        objective,
        4,
        config,
        augment if jitter else None,
        after_epoch,
        start=lambda variables: _expecting(detector, variables, share * (5 + classes)),
    )
    return best or last


def _expecting(detector: Detector, variables: Any, share: float) -> Any:
    """With objectness at first the share of anchors that have an object.

    From one half everywhere, the first epochs only learn that objects are rare. Lin et al. 2017
    ("Focal loss"), section 4.1.
    """
    params = dict(variables["params"])
    prior = float(np.clip(share, 1e-4, 0.5))
    for head, place in zip(detector.heads, detector.module.calls[-1].inputs, strict=True):
        name = detector.module.calls[place - 1].name
        bias = params[name]["bias"].reshape(-1, 5 + head.classes)
        bias = bias.at[:, 4].set(np.log(prior / (1 - prior))).ravel()
        params[name] = {**params[name], "bias": bias}
    return {**variables, "params": params}


def varied(
    key: jax.Array, images: jax.Array, boxes: jax.Array, labels: jax.Array, *, jitter: Jitter
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images and their objects, each image mirrored, scaled, shifted and lit its own way.

    What comes from beyond an image is grey. Boxes are clipped; an object whose centre leaves the
    image is no longer to be found, and what is left of it is nobody's mistake.

    Args:
      key: of the draws.
      images: uint8 ``[B, H, W, C]``.
      boxes: float32 ``[B, K, 4]``, corners in pixels.
      labels: int32 ``[B, K]``.
      jitter: how much.

    Returns:
      The same three.
    """
    count, height, width, channels = images.shape
    keys = jax.random.split(key, 6)

    def factor(key: jax.Array, most: float, *shape: int) -> jax.Array:
        return jnp.exp(jnp.log1p(most) * jax.random.uniform(key, (count, *shape), minval=-1.0))

    def side(key: jax.Array, flip: bool) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, 0.5 * flip, (count,)), -1.0, 1.0)

    size = jnp.array([width, height], jnp.float32)
    flips = jnp.stack([side(keys[0], jitter.mirror), side(keys[1], jitter.upside_down)], axis=1)
    ratio = jnp.sqrt(factor(keys[2], jitter.stretch))
    zoom = factor(keys[3], jitter.scale)[:, None] * jnp.stack([ratio, 1 / ratio], axis=1)
    scale = flips * zoom  # [B, 2], x and y
    middle = size * (0.5 + jitter.shift * jax.random.uniform(keys[4], (count, 2), minval=-1.0))
    offset = middle - scale * size / 2

    bright = factor(keys[5], jitter.brightness, 1)
    tint = factor(jax.random.fold_in(keys[5], 1), jitter.brightness / 3, channels)
    lit = images.astype(jnp.float32) * (bright * tint)[:, None, None, :]
    seen = jax.vmap(_placed)(lit, scale, offset)
    images = jnp.round(seen).clip(0, 255).astype(jnp.uint8)

    corners = boxes.reshape(count, -1, 2, 2) * scale[:, None, None] + offset[:, None, None]
    low, high = corners.min(axis=2), corners.max(axis=2)
    centre = (low + high) / 2
    inside = jnp.all((centre >= 0) & (centre < size), axis=-1)
    boxes = jnp.concatenate([low.clip(0, size), high.clip(0, size)], axis=-1)
    return images, boxes, jnp.where(inside, labels, -1)


def _placed(image: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """One image [H, W, C] at place · scale + offset, linear between pixels, grey beyond it."""
    for axis, (by, start) in enumerate(zip(scale[::-1], offset[::-1], strict=True)):
        length = image.shape[axis]
        at = (jnp.arange(length) + 0.5 - start) / by - 0.5
        first = jnp.floor(at)
        shape = [1, 1, 1]
        shape[axis] = length
        part = (at - first).reshape(shape)
        first = first.astype(jnp.int32)
        low, high = (
            jnp.take(image, index.clip(0, length - 1), axis=axis) for index in (first, first + 1)
        )
        inside = ((at >= -0.5) & (at <= length - 0.5)).reshape(shape)
        image = jnp.where(inside, low + part * (high - low), GREY)
    return image
