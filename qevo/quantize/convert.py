"""From a trained float network to a quantized one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.network import QuantizedNetwork
from qevo.nets.numerics import Head
from qevo.quantize.bits import BitsByPattern, bits_per_layer
from qevo.quantize.calibration import calibrate
from qevo.quantize.converting import Converting, last_limits
from qevo.quantize.folding import fold_batch_norm
from qevo.quantize.outputs import divergence, float_logits
from qevo.quantize.rounding import Rounding
from qevo.quantize.variables import variable_shapes


class FloatTeacher:
    """A float network, folded and calibrated: everything conversions of it share.

    Args:
      module: the float network, with `Float` numerics, whose pixel rule is taken over.
      variables: its ``params`` and, where it normalises, ``batch_stats``.
      images: uint8 ``[n, H, W, C]``, calibration images; about 1,000 do. No labels are needed.
      activation_bits: 8 or 4, for every activation but the input (8).

    Raises:
      QevoError: images that are not uint8 NHWC, a module without `Float` numerics, or variables
        that do not fit it.
    """

    def __init__(
        self,
        module: nn.Module,
        variables: Mapping[str, Any],
        images: np.ndarray,
        *,
        activation_bits: int = 8,
    ) -> None:
        numerics = getattr(module, "numerics", None)
        if not isinstance(numerics, Float):
            raise QevoError(
                f"{type(module).__name__} must have a field numerics with Float numerics, not"
                f" {numerics!r}"
            )
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
            raise QevoError(
                "calibration images must be uint8 [n, H, W, C] with n at least 1, not"
                f" {images.dtype} {list(images.shape)}"
            )
        self.module = module.clone(numerics=Float(scaling=numerics.scaling))
        _check_variables(self.module, variables, images)
        self.variables = variables
        self.images = images
        self.scaling = numerics.scaling
        self.activation_bits = activation_bits
        self.folded = fold_batch_norm(variables)
        self.calibration = calibrate(
            module, self.folded, images, scaling=numerics.scaling, activation_bits=activation_bits
        )

    def convert(
        self,
        *,
        bits: BitsByPattern,
        rounding: Rounding,
        fit_bias: bool = True,
        make_up: bool = True,
    ) -> QuantizedNetwork:
        """One walk over the network, in which each layer is rounded on the inputs it will have.

        Args:
          bits: "ternary" or 2 to 8, for all layers or by name pattern; see `bits_per_layer`.
          rounding: the method.
          fit_bias: match each channel's mean output to the float layer's on the images.
          make_up: fit a layer without activation, whose output goes into a residual sum first, to
            the float sum less the other summand in integers, so that errors do not add up from
            block to block. Of two such layers the one with more inputs does it, of equals the
            second summand. The bias follows too.

        Raises:
          QevoError: bits out of range, a pattern without a layer, or a bound that cannot be proved
            (naming the layer).
        """
        layer_bits = bits_per_layer(bits, self.layer_names)
        fraction_bits = self._shared_fraction_bits(layer_bits)
        numerics = Converting(
            self.calibration.sites,
            layer_bits,
            rounding,
            fit_bias,
            make_up,
            self.scaling,
            fraction_bits,
        )
        self.module.clone(numerics=numerics).apply({"params": self.folded}, self.images)
        parts = numerics.parts
        for unused in [*parts.waiting.values()]:
            unused.round_to(unused.real)
        height, width, channels = self.images.shape[1:]
        return QuantizedNetwork(
            module=self.module,
            image_shape=(height, width, channels),
            weights={name: parts.weights[name] for name in parts.layers},
            constants=parts.constants,
            layers=parts.layers,
            ranges=parts.ranges,
            fraction_bits=parts.fraction_bits,
            bits=layer_bits,
            activation_bits=self.activation_bits,
            scales=parts.scales,
        )

    def _shared_fraction_bits(self, bits: Mapping[str, str | int]) -> int | None:
        """Of an output that several layers give, as many as fit them all."""
        sites, outputs = self.calibration
        if len(outputs) < 2:
            return None
        flat: dict[str, Any] = flatten_dict(self.folded, sep="/")
        found = []
        for name, output in outputs.items():
            kernel = flat[f"{name}/kernel"]
            matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
            reach = max(output.reach, float(np.abs(flat[f"{name}/bias"]).max()))
            _, fits = last_limits(name, matrix, bits[name], sites[output.site], 1.0, reach)
            found.append(fits)
        return min(found)

    @property
    def layer_names(self) -> list[str]:
        """Of the layers with weights."""
        return layer_names(self.folded)

    @property
    def head(self) -> Head:
        """What the network returns."""
        return next(iter(self.calibration.outputs.values())).head

    def divergence(self, network: QuantizedNetwork) -> float:
        """`divergence` of a network's output from the teacher's, on the calibration images."""
        found = network(self.images) * network.output_scale
        return divergence(self.outputs, found, self.head)

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """The teacher's logits or images, float32, for the calibration images."""
        return float_logits(self.module, self.variables, self.images)


def _check_variables(module: nn.Module, variables: Mapping[str, Any], images: np.ndarray) -> None:
    wanted = variable_shapes(module, images.shape[1:])
    found: dict[str, Any] = flatten_dict({name: variables[name] for name in variables}, sep="/")
    shapes = {name: np.shape(value) for name, value in found.items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != shapes.get(name):
            raise QevoError(
                f"variables do not fit {type(module).__name__} on images of {images.shape[1:]}:"
                f" {name} should be {wanted.get(name, 'absent')}, not {shapes.get(name, 'absent')}"
            )
        if not np.isfinite(np.asarray(found[name])).all():
            raise QevoError(f"{name} holds NaN or infinity: did training diverge?")


def layer_names(folded: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Names of the layers with weights in folded ``params``."""
    if "kernel" in folded:
        return ["/".join(path)]
    return [name for key, part in folded.items() for name in layer_names(part, (*path, key))]
