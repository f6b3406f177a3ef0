"""Best-of-N stochastic rounding, the plainest search that a better one has to beat."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.bits import BitsByPattern
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.converting import layer_constants
from qevo.quantize.outputs import log_probabilities
from qevo.quantize.rounding import (
    FloatLayer,
    Rounded,
    Rounding,
    fitted_bias,
    round_max_abs,
    round_squared_error,
)
from qevo.quantize.scales import ScaleGrid


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """The best of N stochastically rounded networks.

    Attributes:
      network: the best draw.
      scores: float64 ``[N]``, nats per image, smaller is better: cross-entropy against the labels
        or, without labels, `divergence` from the float network.
    """

    network: QuantizedNetwork
    scores: np.ndarray


def best_of_n(
    teacher: FloatTeacher,
    *,
    bits: BitsByPattern,
    labels: np.ndarray | None = None,
    draws: int = 64,
    seed: int = 0,
) -> BestOfN:
    """Round every weight up or down at random, in proportion to how near it is; keep the best of N.

    Draws are at the scales that nearest rounding would take (max-abs or squared error, whichever
    stays closer to the float network), with biases fitted or not as there, and are scored as
    integer networks on the teacher's images.

    Stochastic rounding: Gupta et al. 2015; best of 100 draws: Nagel et al. 2020 (AdaRound).

    Args:
      teacher: the float network.
      bits: as `FloatTeacher.convert` takes them.
      labels: integers ``[n]``, to score by; otherwise the float network's output.
      draws: N.
      seed: of the draws.

    Raises:
      QevoError: fewer than one draw, labels of another length or for a network that returns
        images, or as `FloatTeacher.convert`.
    """
    if draws < 1:
        raise QevoError(f"best of N needs at least one draw, not {draws}")
    if labels is not None and len(labels) != len(teacher.images):
        raise QevoError(f"{len(teacher.images)} images but {len(labels)} labels")
    if labels is not None and teacher.head != "logits":
        raise QevoError(
            f"labels are for logits; a network that returns {teacher.head} is scored without"
        )
    kinds = [(rule, fit) for rule in (round_squared_error, round_max_abs) for fit in (True, False)]
    # No summand makes up for another: what one lacks differs from draw to draw.
    nearest = [
        teacher.convert(bits=bits, rounding=rule, fit_bias=fit, make_up=False)
        for rule, fit in kinds
    ]
    start = _Start(teacher, bits, *kinds[int(np.argmin([*map(teacher.divergence, nearest)]))])
    generator = np.random.default_rng(seed)
    best: QuantizedNetwork | None = None
    scores: list[float] = []
    for _ in range(draws):
        network = start.draw(generator)
        if labels is None:
            score = teacher.divergence(network)
        else:
            score = cross_entropy(network, teacher.images, labels)
        if best is None or score < min(scores):
            best = network
        scores.append(score)
    assert best is not None
    return BestOfN(best, np.array(scores))


def cross_entropy(network: QuantizedNetwork, images: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of a quantized network against labels, in nats."""
    scores = log_probabilities(network, images)
    return -float(np.take_along_axis(scores, np.asarray(labels)[:, None], axis=1).mean())


class _Redraw(NamedTuple):
    """What it takes to redraw the weights of one layer."""

    kernel: np.ndarray  # float64 [K, C]
    low: int
    high: int
    grid: ScaleGrid
    scale: np.ndarray  # [C]
    means: tuple[np.ndarray, np.ndarray]  # of the inputs and of the float outputs


class _Start:
    """A nearest-rounded network and what it takes to redraw its weights."""

    def __init__(
        self, teacher: FloatTeacher, bits: BitsByPattern, rounding: Rounding, fit_bias: bool
    ) -> None:
        self.layers: dict[str, _Redraw] = {}
        self.fit_bias = fit_bias

        def recording(layer: FloatLayer) -> Rounded:
            rounded = rounding(layer)
            self.layers[layer.name] = _Redraw(
                layer.kernel, layer.low, layer.high, layer.grid, rounded.scale, layer.means()
            )
            return rounded

        self.network = teacher.convert(
            bits=bits, rounding=recording, fit_bias=fit_bias, make_up=False
        )

    def draw(self, generator: np.random.Generator) -> QuantizedNetwork:
        """A stochastically rounded network."""
        weights, constants = dict(self.network.weights), dict(self.network.constants)
        for name, layer in self.layers.items():
            exact = layer.kernel / layer.scale
            levels = np.floor(exact + generator.random(exact.shape)).clip(layer.low, layer.high)
            weights[name] = jnp.asarray(levels.reshape(weights[name].shape), jnp.int8)
            if self.fit_bias:
                bias = fitted_bias(levels * layer.scale, *layer.means)
                facts = self.network.layers[name]
                constants[name] = layer_constants(layer.scale, bias, facts, layer.grid)
        return dataclasses.replace(self.network, weights=weights, constants=constants)
