"""Numerics whose activations are single arrays."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from qevo.nets.channels import pad_channels
from qevo.nets.maps import in_a_row
from qevo.nets.numerics import Numerics
from qevo.nets.upsampling import upsample


class ArrayNumerics(Numerics):
    """The operations that move numbers and change none, alike in floats and integers."""

    def pad_channels(self, x: jax.Array, before: int, after: int) -> jax.Array:
        return pad_channels(x, before, after)

    def upsample(self, x: jax.Array, factor: int = 2) -> jax.Array:
        return upsample(x, factor)

    def concat(self, *parts: jax.Array, name: str) -> jax.Array:
        return jnp.concatenate(parts, axis=-1)

    def flatten(self, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def outputs(self, *maps: jax.Array) -> jax.Array:
        return in_a_row(maps)
