"""Training a float teacher."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to train a float network.

    Attributes:
      epochs: passes over the images.
      batch: B, images per step.
      optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
      learning_rate: at the peak; a cosine brings it to zero after a linear warm-up.
      warmup: share of all steps.
      weight_decay: decoupled ("adamw") or added to the gradient ("sgd"); kernels only.
      label_smoothing: share of the target spread over all classes.
      seed: of the initial weights, the order of images and the augmentation.
    """

    epochs: int = 20
    batch: int = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 1e-2
    label_smoothing: float = 0.0
    seed: int = 0


def train(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    config: TrainingConfig | None = None,
    augment: Augmentation | None = None,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train a network with `Float` numerics on cross-entropy.

    The data lies on the device; a step is one compiled call.

    Args:
      module: the architecture.
      images: uint8 ``[n, H, W, C]``.
      labels: integers ``[n]``.
      config: how.
      augment: ``fn(key, images [B, H, W, C] uint8) -> images``, such as `flip_and_crop`.
      progress: called after each epoch with the step number and ``loss`` (nats) and ``accuracy``
        of that epoch's batches.

    Returns:
      ``params`` and, where the network normalises, ``batch_stats``.

    Raises:
      QevoError: too few images for one batch, or images and labels that do not match.
    """
    config = config or TrainingConfig()
    if len(images) != len(labels) or len(images) < config.batch:
        raise QevoError(
            f"training needs as many labels as images and at least one batch of {config.batch},"
            f" not {len(images)} images and {len(labels)} labels"
        )
    numerics = getattr(module, "numerics", None)
    if not isinstance(numerics, Float):
        raise QevoError(f"training needs Float numerics, not {numerics!r}")
    module = module.clone(numerics=dataclasses.replace(numerics, train=True))
    steps = len(images) // config.batch
    optimizer = _optimizer(config, config.epochs * steps)
    data = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    key_init, key_run = jax.random.split(jax.random.key(config.seed))
    variables = module.init(key_init, data[0][:1])
    params = variables["params"]
    rest: dict[str, Any] = {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, rest: Any, x: jax.Array, y: jax.Array) -> Any:
        logits, rest = module.apply({"params": params, **rest}, x, mutable=list(rest))
        targets = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), config.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (rest, (logits.argmax(-1) == y).mean())

    # Not a scan over the epoch: on a CPU XLA runs the gradients of convolutions inside loops on one
    # thread, at a quarter of the speed. Dispatch is asynchronous, so nothing waits between steps.
    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry: Any, data: Any, rows: Any, key: jax.Array, index: Any) -> Any:
        params, rest, state, totals = carry
        x, y = data[0][rows], data[1][rows]
        x = x if augment is None else augment(jax.random.fold_in(key, index), x)
        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (rest, accuracy)), gradient = gradient_fn(params, rest, x, y)
        updates, state = optimizer.update(gradient, state, params)
        totals += jnp.stack([loss, accuracy])
        return optax.apply_updates(params, updates), rest, state, totals

    carry: Any = params, rest, optimizer.init(params), jnp.zeros(2)
    for epoch, key in enumerate(jax.random.split(key_run, config.epochs)):
        key_order, key_augment = jax.random.split(key)
        order = np.asarray(jax.random.permutation(key_order, len(images)))
        for index in range(steps):
            rows = order[index * config.batch : (index + 1) * config.batch]
            carry = step(carry, data, rows, key_augment, np.int32(index))
        if progress is not None:
            loss, accuracy = np.asarray(carry[3]) / steps
            progress((epoch + 1) * steps, {"loss": float(loss), "accuracy": float(accuracy)})
        carry = *carry[:3], jnp.zeros(2)
    return {"params": carry[0], **carry[1]}


def flip_and_crop(key: jax.Array, images: jax.Array, *, pad: int = 4) -> jax.Array:
    """Random mirror and shift by up to ``pad`` pixels, each image its own; He et al. 2016."""
    count, height, width, channels = images.shape
    key_flip, key_shift = jax.random.split(key)
    flip = jax.random.bernoulli(key_flip, shape=(count, 1, 1, 1))
    images = jnp.where(flip, images[:, :, ::-1], images)
    images = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifts = jax.random.randint(key_shift, (count, 2), 0, 2 * pad + 1)

    def crop(image: jax.Array, shift: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*shift, 0), (height, width, channels))

    return jax.vmap(crop)(images, shifts)


def _optimizer(config: TrainingConfig, steps: int) -> optax.GradientTransformation:
    warmup = round(config.warmup * steps)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, steps)

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    if config.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=config.weight_decay, mask=kernels)
    if config.optimizer == "sgd":
        decay = optax.add_decayed_weights(config.weight_decay, mask=kernels)
        return optax.chain(decay, optax.sgd(rate, momentum=0.9, nesterov=True))
    raise QevoError(f"optimizer must be 'adamw' or 'sgd', not {config.optimizer!r}")
