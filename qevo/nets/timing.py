"""What the products of a network cost on this machine, by every exact path."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from qevo.core.devices import device_in_use
from qevo.integer.patches import explicit_padding
from qevo.integer.products import FLOAT_LIMIT, Path
from qevo.integer.requantize import requantize
from qevo.nets.integer_numerics import Arithmetic, Integer, integer_product
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.numerics import Product

CANDIDATES = 4  # per measurement, one after the other
FEW_CHANNELS = 8  # more input channels make a band matrix too large to be worth a try
REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """A product to be measured; layers with equal ones share the measurement, and the path."""

    layer: Product
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    shared: bool  # the input is the same for all candidates
    bound: int  # proved limit on the accumulator


@dataclasses.dataclass(frozen=True)
class _Recorder(Integer):
    """Notes the shapes of every product."""

    seen: list[tuple[str, Product, Any, Any]] = dataclasses.field(default_factory=list)

    def accumulate(
        self, x: jax.Array, kernel: jax.Array, layer: Product, *, name: str
    ) -> jax.Array:
        self.seen.append((name, layer, x.shape, kernel.shape))
        return super().accumulate(x, kernel, layer, name=name)


def product_jobs(network: QuantizedNetwork, rows: int) -> dict[str, Job]:
    """The products of a network on ``rows`` images, by layer, in the order of computation."""
    recorder = _Recorder(network.layers, network.ranges)
    module = network.module.clone(numerics=recorder)
    images = jax.ShapeDtypeStruct((rows, *network.image_shape), jnp.int8)
    jax.eval_shape(lambda x: forward(module, network.weights, network.constants, x), images)
    return {
        name: Job(
            layer,
            tuple(x),
            tuple(kernel),
            shared=index == 0,
            bound=network.layers[name].accumulator_bound,
        )
        for index, (name, layer, x, kernel) in enumerate(recorder.seen)
    }


def candidates(chunk: int) -> int:
    """How many candidates a measurement computes, ``chunk`` of them side by side."""
    return max(chunk, CANDIDATES)


def exact_paths(job: Job, arithmetic: Arithmetic) -> Iterator[Path]:
    """The exact paths that are worth a measurement, beside the usual one."""
    if job.layer.depthwise:
        return  # there is one
    for path in get_args(Path):
        number, _, layout = path.partition("_")
        if number != "int8" and (arithmetic == "int" or job.bound >= FLOAT_LIMIT):
            continue
        if layout and job.layer.kind == "dense":
            continue
        if layout == "banded" and job.kernel[2] > FEW_CHANNELS:
            continue
        if not layout and job.layer.kind == "conv" and device_in_use().platform != "cpu":
            continue  # a library convolution may use a transform, which is not exact
        yield path


def product_runner(job: Job, path: Path, arithmetic: Arithmetic, chunk: int) -> Callable:
    """A compiled call: the layer, requantized and summed, for `candidates`."""
    count = candidates(chunk)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 128, (1 if job.shared else count, *job.x)), jnp.int8)
    kernels = jnp.asarray(rng.integers(-1, 2, (count, *job.kernel)), jnp.int8)

    def one(x: jax.Array, kernel: jax.Array) -> jax.Array:
        acc = integer_product(
            x, kernel, job.layer, arithmetic=arithmetic, bound=job.bound, path=path
        )
        return jnp.sum(requantize(acc, 1, 7, low=0), dtype=jnp.int32)

    def run(x: jax.Array, kernels: jax.Array) -> jax.Array:
        batch_size = chunk if chunk > 1 else None
        if job.shared:
            return jax.lax.map(lambda k: one(x[0], k), kernels, batch_size=batch_size)
        return jax.lax.map(lambda pair: one(*pair), (x, kernels), batch_size=batch_size)

    compiled = jax.jit(run).lower(x, kernels).compile()
    return lambda: jax.block_until_ready(compiled(x, kernels))


def network_runner(
    network: QuantizedNetwork,
    arithmetic: Arithmetic,
    paths: Mapping[str, Path],
    chunk: int,
    rows: int,
) -> Callable:
    """A compiled call: the whole network for `candidates`."""
    count = candidates(chunk)
    module = network.integer_module(arithmetic, paths)
    low, high = network.ranges["input"]
    shape = (rows, *network.image_shape)
    images = jnp.asarray(np.random.default_rng(0).integers(low, high + 1, shape), jnp.int8)
    weights = {name: jnp.stack([kernel] * count) for name, kernel in network.weights.items()}

    def run(weights: Any, constants: Any, images: jax.Array) -> jax.Array:
        def one(weights: Any) -> jax.Array:
            return jnp.sum(forward(module, weights, constants, images), dtype=jnp.int32)

        return jax.lax.map(one, weights, batch_size=chunk if chunk > 1 else None)

    compiled = jax.jit(run).lower(weights, network.constants, images).compile()
    return lambda: jax.block_until_ready(compiled(weights, network.constants, images))


def shortest(run: Callable[[], Any], limit: float = math.inf) -> float:
    """Seconds of the fastest of several runs; of the first ones if these pass ``limit``."""
    run()
    times: list[float] = []
    while len(times) < REPEATS and (not times or min(times) < limit):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def output_size(job: Job) -> int:
    """Entries of the accumulator of one candidate."""
    count = job.x[0] * job.kernel[-1]
    if job.layer.kind == "dense":
        return count
    strides, kernel, image = job.layer.strides, job.kernel[:2], job.x[1:3]
    pads = explicit_padding(job.layer.padding, image, kernel, strides)
    for size, width, stride, pad in zip(image, kernel, strides, pads, strict=True):
        count *= (size + sum(pad) - width) // stride + 1
    return count
