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
from qevo.quantize.batches import over_batches

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]
BatchAugmentation = Callable[..., tuple[jax.Array, ...]]
Progress = Callable[[int, Mapping[str, float]], None]


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
      label_smoothing: share of the target spread over all classes; cross-entropy only.
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
    progress: Progress | None = None,
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
      QevoError: settings out of range, too few images for one batch, images that are not uint8,
        labels that do not match them or the network's classes, or weights that went to infinity.
    """
    config = config or TrainingConfig()
    images, labels = np.asarray(images), np.asarray(labels)
    _check_pixels(images)
    if len(images) != len(labels) or len(images) < config.batch:
        raise QevoError(
            f"training needs as many labels as images and at least one batch of {config.batch},"
            f" not {len(images)} images and {len(labels)} labels"
        )
    _float_numerics(module)
    output = _output_of(module, images).shape[1:]
    if len(output) != 1:
        raise QevoError(
            f"{type(module).__name__} gives {list(output)} for an image, and training needs logits "
            "[C]: n.flatten before n.dense and n.logits"
        )
    _check_labels(labels, *output)

    def objective(logits: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        targets = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), config.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (logits.argmax(-1) == y).mean()

    def report(step: int, variables: Any, means: np.ndarray) -> bool:
        assert progress is not None
        progress(step, {"loss": float(means[0]), "accuracy": float(means[1])})
        return False

    data = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    after = report if progress else None  # a look at the means would have the steps waited for
    found = descend(module, data, objective, 2, config, _images_only(augment), after)
    if not all(np.isfinite(part).all() for part in jax.tree.leaves(found)):
        raise QevoError("training diverged: take a smaller learning rate")
    return found


def train_autoencoder(
    module: nn.Module,
    images: np.ndarray,
    held_out: np.ndarray,
    *,
    config: TrainingConfig | None = None,
    patience: int = 5,
    augment: Augmentation | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a network with `Float` numerics to return its images, on mean squared error.

    Args:
      module: the architecture; its last layer is an `image`.
      images: uint8 ``[n, H, W, C]``.
      held_out: others, on which the network of the best epoch is chosen.
      config, augment: as for `train`.
      patience: stop after so many epochs without a smaller error on ``held_out``.
      progress: called after each epoch with the step number, the ``loss`` of that epoch's batches
        and the ``held_out`` error, both mean squares in the network's units of a pixel.

    Returns:
      ``params`` and, where the network normalises, ``batch_stats``, of the best epoch.

    Raises:
      QevoError: too few images for one batch, none held out, images that are not uint8, or a
        network that returns other shapes.
    """
    config = config or TrainingConfig()
    if len(images) < config.batch or not len(held_out) or patience < 1:
        raise QevoError(
            f"training needs at least one batch of {config.batch} images, one held out and a"
            f" patience of 1, not {len(images)}, {len(held_out)} and {patience}"
        )
    _check_pixels(images)
    _check_pixels(held_out)
    scaling = _float_numerics(module).scaling
    found = _output_of(module, images)
    if found.shape[1:] != images.shape[1:]:
        raise QevoError(
            f"{type(module).__name__} makes {list(found.shape[1:])} of images"
            f" {list(images.shape[1:])}, and an autoencoder returns the same shape"
        )

    def objective(output: jax.Array, x: jax.Array) -> tuple[jax.Array]:
        return (jnp.square(output - scaling(x)).mean(),)

    @jax.jit
    def errors(x: jax.Array, variables: Any) -> jax.Array:
        output: Any = module.apply(variables, x)
        return jnp.square(output - scaling(x)).mean((1, 2, 3))

    best: dict[str, Any] = {}
    least, waited = np.inf, 0

    def keep_best(step: int, variables: Any, means: np.ndarray) -> bool:
        nonlocal best, least, waited
        error = over_batches(errors, held_out, variables=variables).mean(dtype=np.float64)
        if progress is not None:
            progress(step, {"loss": float(means[0]), "held_out": float(error)})
        waited += 1
        if error < least:
            # Copies: the next step writes over the arrays that it is given.
            best, least, waited = jax.tree.map(np.array, variables), error, 0
        return waited >= patience

    data = (jnp.asarray(images),)
    descend(module, data, objective, 1, config, _images_only(augment), keep_best)
    if not best:
        raise QevoError("training diverged in its first epoch: take a smaller learning rate")
    return best


def _float_numerics(module: nn.Module) -> Float:
    numerics = getattr(module, "numerics", None)
    if not isinstance(numerics, Float):
        raise QevoError(f"training needs Float numerics, not {numerics!r}")
    return numerics


def _output_of(module: nn.Module, images: np.ndarray) -> Any:
    """Shape and type of the output for one image."""
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], images[:1])


def _check_pixels(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise QevoError(
            f"images must be uint8 [n, H, W, C] of 0 to 255, not {images.dtype} "
            f"{list(images.shape)}: the network scales pixels itself"
        )


def _check_labels(labels: np.ndarray, classes: int) -> None:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise QevoError(
            f"labels must be integers [n], one class an image, not {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise QevoError(
            f"labels must be 0 to {classes - 1} for a network of {classes} classes, not "
            f"{labels.min()} to {labels.max()}"
        )


def _images_only(augment: Augmentation | None) -> BatchAugmentation | None:
    """For batches whose other parts stay as they are."""
    if augment is None:
        return None
    return lambda key, images, *others: (augment(key, images), *others)


def descend(
    module: nn.Module,
    data: tuple[jax.Array, ...],
    objective: Callable[..., tuple[jax.Array, ...]],
    measures: int,
    config: TrainingConfig,
    augment: BatchAugmentation | None,
    after_epoch: Callable[[int, Any, np.ndarray], bool] | None,
    *,
    start: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """Gradient descent over epochs.

    Args:
      module: the network.
      data: images ``[n, H, W, C]`` and whatever else there is of each.
      objective: of the output and a batch of ``data``: the loss, and more for the log, so many
        ``measures`` in all.
      config: how.
      augment: of a key and a batch of ``data``; returns the batch.
      after_epoch: given the step number, the variables, and the epoch's means of the objective;
        whether to stop.
      start: makes other variables of the random ones, where training shall begin.
    """
    module = module.clone(numerics=dataclasses.replace(_float_numerics(module), train=True))
    if config.epochs < 1 or config.batch < 1:
        raise QevoError(
            f"epochs and batch must be at least 1, got {config.epochs} and {config.batch}"
        )
    if not 0 <= config.warmup < 1:
        raise QevoError(f"warmup is a share of all steps, 0 to 1, below 1, got {config.warmup}")
    count = len(data[0])
    steps = count // config.batch
    optimizer = _optimizer(config, config.epochs * steps)
    key_init, key_run = jax.random.split(jax.random.key(config.seed))
    variables = module.init(key_init, data[0][:1])
    variables = variables if start is None else start(variables)
    params = variables["params"]
    rest: dict[str, Any] = {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, rest: Any, batch: Any) -> Any:
        output, rest = module.apply({"params": params, **rest}, batch[0], mutable=list(rest))
        values = objective(output, *batch)
        return values[0], (rest, values)

    # Not a scan over the epoch: on a CPU XLA runs the gradients of convolutions inside loops on one
    # thread, at a quarter of the speed. Dispatch is asynchronous, so nothing waits between steps.
    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry: Any, data: Any, rows: Any, key: jax.Array, index: Any) -> Any:
        params, rest, state, totals = carry
        batch = tuple(array[rows] for array in data)
        batch = batch if augment is None else augment(jax.random.fold_in(key, index), *batch)
        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (_, (rest, values)), gradient = gradient_fn(params, rest, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), rest, state, totals + jnp.stack(values)

    carry: Any = params, rest, optimizer.init(params), jnp.zeros(measures)
    for epoch, key in enumerate(jax.random.split(key_run, config.epochs)):
        key_order, key_augment = jax.random.split(key)
        order = np.asarray(jax.random.permutation(key_order, count))
        for index in range(steps):
            rows = order[index * config.batch : (index + 1) * config.batch]
            carry = step(carry, data, rows, key_augment, np.int32(index))
        if after_epoch is not None:
            means = np.asarray(carry[3]) / steps
            if after_epoch((epoch + 1) * steps, {"params": carry[0], **carry[1]}, means):
                break
        carry = *carry[:3], jnp.zeros(measures)
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
