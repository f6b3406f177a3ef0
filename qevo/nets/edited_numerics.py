"""Integer numerics of a network that differs from a shared one in some channels of one layer."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from qevo.nets.integer_numerics import Integer, constant_names, finish, keep
from qevo.nets.numerics import Product, SumActivation


class Edited(NamedTuple):
    """An array ``[..., C]``, shared but for a run of channels: a kernel, a constant, an activation.

    Stands in the collections ``weights`` and ``constants`` in place of an array.
    """

    base: jax.Array  # [..., C], shared
    part: jax.Array  # [..., c], in place of channels first..first + c - 1
    first: jax.Array  # int32 []

    @property
    def whole(self) -> jax.Array:
        """The array with its channels replaced."""
        return jax.lax.dynamic_update_slice_in_dim(self.base, self.part, self.first, axis=-1)

    def same(self, shared: jax.Array, axis: int = -1) -> jax.Array:
        """The entries of another array that belong to the replaced channels, along ``axis``."""
        return jax.lax.dynamic_slice_in_dim(shared, self.first, self.part.shape[-1], axis)


def whole(x: Any) -> jax.Array:
    """An activation as one array."""
    return x.whole if isinstance(x, Edited) else x


class _EditedProduct(nn.Module):
    layer: Product
    numerics: EditedInteger

    @nn.compact
    def __call__(self, x: Any) -> Any:
        kernel = self.get_variable("weights", "kernel")
        layer = self.layer
        constants = {key: self.get_variable("constants", key) for key in constant_names(layer)}
        edits = [v for v in (kernel, *constants.values()) if isinstance(v, Edited)]
        name = "/".join(self.path)
        facts = self.numerics.layers[name]
        product = functools.partial(self.numerics.accumulate, layer=layer, name=name)
        if isinstance(x, Edited) and (edits or (facts.input_low < 0 and not layer.depthwise)):
            x = x.whole  # a difference of signed activations leaves int8
        if isinstance(x, Edited) and layer.depthwise:
            own = {key: x.same(value) for key, value in constants.items()}
            acc = keep(product(x.base, kernel))
            part = finish(product(x.part, x.same(kernel)), own, facts, layer)
            return Edited(keep(finish(acc, constants, facts, layer)), part, x.first)
        if isinstance(x, Edited):
            acc = keep(product(x.base, kernel))
            acc += product(x.part - x.same(x.base), x.same(kernel, axis=-2))
            return keep(finish(acc, constants, facts, layer))
        if not edits:
            acc = keep(product(x, kernel))
            return keep(finish(acc, constants, facts, layer))
        edit = edits[0]
        if isinstance(kernel, Edited):
            acc = keep(product(x, kernel.base))
            part = product(edit.same(x) if layer.depthwise else x, kernel.part)
        else:
            acc = keep(product(x, kernel))
            part = edit.same(acc)
        old = {k: v.base if isinstance(v, Edited) else v for k, v in constants.items()}
        new = {k: v.part if isinstance(v, Edited) else edit.same(v) for k, v in constants.items()}
        edited = Edited(
            keep(finish(acc, old, facts, layer)), finish(part, new, facts, layer), edit.first
        )
        return edited.whole if layer.head else edited


@dataclasses.dataclass(frozen=True)
class EditedInteger(Integer):
    """`Integer`, and kernels or constants may be `Edited`; the same bits as with the whole arrays.

    The layer with the edit computes its replaced channels only, and the product after it adds the
    change of those channels to the shared accumulator. What has been kept for all candidates
    (`qevo.core.sharing`) is not computed again.
    """

    def product(self, x: Any, layer: Product, *, name: str) -> Any:
        return _EditedProduct(layer, self, name=name)(x)

    def add(self, x: Any, y: Any, *, activation: SumActivation = "relu", name: str) -> jax.Array:
        return super().add(whole(x), whole(y), activation=activation, name=name)

    def max_pool(
        self,
        x: Any,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> jax.Array:
        return super().max_pool(whole(x), window, strides=strides, padding=padding)

    def upsample(self, x: Any, factor: int = 2) -> Any:
        if not isinstance(x, Edited):
            return super().upsample(x, factor)
        base, part = (super(EditedInteger, self).upsample(a, factor) for a in (x.base, x.part))
        return Edited(base, part, x.first)

    def concat(self, *parts: Any, name: str) -> jax.Array:
        return super().concat(*map(whole, parts), name=name)

    def average_pool(self, x: Any, *, name: str) -> jax.Array:
        return super().average_pool(whole(x), name=name)

    def pad_channels(self, x: Any, before: int, after: int) -> jax.Array:
        return super().pad_channels(whole(x), before, after)

    def flatten(self, x: Any) -> jax.Array:
        return super().flatten(whole(x))
