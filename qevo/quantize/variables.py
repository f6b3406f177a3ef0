"""The variables of a float network, by name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict


def variable_shapes(
    module: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes by names such as ``params/stem/kernel``; nothing is computed.

    Args:
      module: the architecture.
      image_shape: height, width, channels of the uint8 images that it takes.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    return shapes_by_name(jax.eval_shape(module.init, jax.random.key(0), image))


def shapes_by_name(variables: Any) -> dict[str, tuple[int, ...]]:
    """The same of variables that are there."""
    flat: dict[str, Any] = flatten_dict(variables, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}
