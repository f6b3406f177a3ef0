"""Small networks with random weights, and a search on one; also for processes that tests start."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core import Result, evolve
from qevo.integer.products import Path
from qevo.nets import Float, LeNet300, Numerics, QuantizedNetwork
from qevo.problems import NetworkProblem
from qevo.quantize import quantize_network
from qevo.quantize.rounding import round_max_abs


class Mine(nn.Module):
    """An architecture that is not qevo's, with a block of its own."""

    numerics: Numerics = Float()
    width: int = 6

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), self.width, strides=(2, 2), name="first")
        return n.logits(n.average_pool(x, name="pool"), 3, name="last")


def random_variables(module: Any, shape: tuple[int, ...]) -> Any:
    """Random weights, biases and batch norm statistics; drawn by numpy, so nothing compiles."""
    draw = np.random.RandomState(1)

    def fill(leaf: Any) -> np.ndarray:
        if len(leaf.shape) > 1:
            spread = np.sqrt(2 / math.prod(leaf.shape[:-1]))
            return draw.normal(0, spread, leaf.shape).astype(np.float32)
        return draw.uniform(0.1, 1.2, leaf.shape).astype(np.float32)

    image = np.zeros((1, *shape), np.uint8)
    return jax.tree.map(fill, jax.eval_shape(module.init, jax.random.key(0), image))


def random_images(shape: tuple[int, ...], count: int = 24, seed: int = 0) -> np.ndarray:
    """Uniform pixels: uint8 ``[count, *shape]``."""
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def quantized(
    module: Any, images: np.ndarray | tuple[int, ...], variables: Any = None, **options: Any
) -> QuantizedNetwork:
    """Calibrated on images, random ones of a shape; where not told, random weights and max-abs."""
    images = random_images(images) if isinstance(images, tuple) else images
    if variables is None:
        variables = random_variables(module, images.shape[1:])
    return quantize_network(module, variables, images, **{"method": round_max_abs} | options)


def mixed_paths(network: QuantizedNetwork) -> dict[str, Path]:
    """A path of each kind, as a plan may choose them; "fast" alone is "int" on a CPU."""
    kinds: tuple[Path, ...] = ("float32", "float32_im2col", "int8_banded")
    layers = enumerate(network.weights.items())
    return {name: kinds[place % 3 if w.ndim == 4 else 0] for place, (name, w) in layers}


@functools.cache
def block_problem() -> NetworkProblem:
    """Two layers, the first one searched by channels with an overlapping last run."""
    images, labels = random_images((4, 4, 1), 60), np.random.RandomState(1).randint(0, 3, 60)
    network = quantized(LeNet300(hidden=(8,), classes=3), images[:20], bits=4)
    parts = images[:40], labels[:40], images[40:], labels[40:]
    return NetworkProblem.of(network, *parts, batch_size=16, channels=3, batch_chunk=6)


def block_search(
    folder: pathlib.Path, *, paths: dict[str, Path] | None = None, **settings: Any
) -> Result:
    """Coevolution on `block_problem`, block by block, its layers computed by the given paths."""
    problem = block_problem()
    if paths:
        problem = with_paths(problem, paths)
    config = CoevolutionConfig(
        population=16, group=9, grouping="block", subgroups=2, spread=0.3, rate=4.0
    )
    return evolve(
        Coevolution(problem.space, config),
        problem,
        3,
        generations=12,
        validate_every=3,
        folder=folder,
        progress=False,
        **settings,
    )


def with_paths(problem: NetworkProblem, paths: dict[str, Path]) -> NetworkProblem:
    """The problem in "fast" arithmetic, its layers computed by these paths."""
    module: Any = problem.module
    numerics = dataclasses.replace(module.numerics, arithmetic="fast", paths=FrozenDict(paths))
    return dataclasses.replace(problem, module=module.clone(numerics=numerics))
