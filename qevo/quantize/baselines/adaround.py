"""AdaRound-style rounding: learn by gradients whether each weight goes up or down."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qevo.nets.float_numerics import activate
from qevo.nets.numerics import Activation
from qevo.quantize.rounding import FloatLayer, Rounded, each_channel
from qevo.quantize.scales import squared_error_scale

_STRETCH = -0.1, 1.1  # range of the sigmoid before it is cut to 0..1
_EXPONENT = 20.0, 2.0  # of the regulariser, at its beginning and at the end
MAX_ROWS = 1 << 15  # of the layer's inputs


@dataclasses.dataclass(frozen=True)
class AdaRound:
    """Minimise the error of a layer's activated output over roundings up or down, by gradients.

    Each weight is ``floor(w / s) + h(v)`` with a rectified sigmoid h; a regulariser, annealed from
    flat to sharp, drives every h to 0 or 1. Scales are those of the least squared error, inputs
    come from the already quantized layers, and outputs are compared after the ReLU, as in Nagel et
    al. 2020 (AdaRound), whose learning rate, regulariser, annealing and batch of rows are taken
    over as far as they are known here. A row is one image or one output position of one image; the
    paper draws whole images.

    Attributes:
      iterations: steps of Adam; the paper takes 10,000.
      batch: rows of the layer's inputs in a step.
      learning_rate: of Adam.
      weight: of the regulariser.
      warmup: share of the iterations without it.
      seed: of the rows drawn.
    """

    iterations: int = 2000
    batch: int = 256
    learning_rate: float = 1e-2
    weight: float = 1e-2
    warmup: float = 0.2
    seed: int = 0

    def __call__(self, layer: FloatLayer) -> Rounded:
        if layer.depthwise:
            return each_channel(self, layer)
        scale = squared_error_scale(layer.kernel, layer.low, layer.high, layer.grid)
        exact = (layer.kernel / scale).astype(np.float32)  # one floor, here and where h is learned
        mean_input, mean_output = layer.means()
        parts = zip(*layer.rows.pairs(layer.outputs, MAX_ROWS), strict=True)
        inputs, outputs = (np.concatenate(part) for part in parts)
        sample = _Sample(
            jnp.asarray(inputs),
            jnp.asarray(outputs, jnp.float32),
            jnp.float32(layer.rows.scale),
            jnp.asarray(mean_input, jnp.float32),
            jnp.asarray(mean_output, jnp.float32),
        )
        up = _learn(
            jax.random.key(self.seed),
            sample,
            jnp.asarray(exact),
            jnp.asarray(scale, jnp.float32),
            low=layer.low,
            high=layer.high,
            activation=layer.rows.layer.activation,
            config=self,
        )
        levels = np.clip(np.floor(exact) + np.asarray(up), layer.low, layer.high)
        return Rounded(levels.astype(np.int8), scale)


class _Sample(NamedTuple):
    inputs: jax.Array  # int8 [n, K]
    outputs: jax.Array  # float32 [n, C], before the activation
    unit: jax.Array  # float32 [], one unit of the inputs
    mean_input: jax.Array  # float32 [K]
    mean_output: jax.Array  # float32 [C]


@functools.partial(jax.jit, static_argnames=("low", "high", "activation", "config"))
def _learn(
    key: jax.Array,
    sample: _Sample,
    exact: jax.Array,
    scale: jax.Array,
    *,
    low: int,
    high: int,
    activation: Activation,
    config: AdaRound,
) -> jax.Array:
    """Which weights ``[K, C]`` round up."""
    floor = jnp.floor(exact)
    bottom, top = _STRETCH
    rest = jnp.clip((exact - floor - bottom) / (top - bottom), 1e-3, 1 - 1e-3)
    start = jnp.log(rest / (1 - rest))  # at which h(v) is the fraction that rounding would cut off
    optimizer = optax.adam(config.learning_rate)
    free = round(config.warmup * config.iterations)

    def h(v: jax.Array) -> jax.Array:
        return jnp.clip(jax.nn.sigmoid(v) * (top - bottom) + bottom, 0, 1)

    def loss(v: jax.Array, rows: jax.Array, number: jax.Array) -> jax.Array:
        kernel = jnp.clip(floor + h(v), low, high) * scale
        x = sample.inputs[rows] * sample.unit - sample.mean_input
        found = activate(x @ kernel + sample.mean_output, activation)
        wanted = activate(sample.outputs[rows], activation)
        error = jnp.square(found - wanted).sum(-1).mean()
        done = jnp.clip((number - free) / max(config.iterations - free, 1), 0, 1)
        first, last = _EXPONENT
        exponent = last + (first - last) * (1 - done)
        sharpness = jnp.sum(1 - jnp.abs(2 * h(v) - 1) ** exponent)
        return error + jnp.where(number < free, 0, config.weight) * sharpness

    def step(carry: tuple[jax.Array, optax.OptState], number: jax.Array) -> tuple:
        v, state = carry
        draw = jax.random.fold_in(key, number)
        rows = jax.random.randint(draw, (config.batch,), 0, len(sample.inputs))
        updates, state = optimizer.update(jax.grad(loss)(v, rows, number), state)
        return (optax.apply_updates(v, updates), state), None

    numbers = jnp.arange(config.iterations)
    (v, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), numbers)
    return h(v) >= 0.5
