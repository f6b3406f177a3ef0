"""How a network's candidates are computed on this machine: a path for each layer, by measurement.

A plan changes no result, only the time: every path gives the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from qevo.integer.patches import explicit_padding
from qevo.integer.products import FLOAT_LIMIT, INT_LIMIT, Path
from qevo.integer.requantize import requantize
from qevo.nets.integer_numerics import Arithmetic, Integer, integer_product
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.numerics import Product

ROWS = 64  # images of a convolutional network at once: its patches stay in the cache
CANDIDATES = 4  # per measurement, one after the other
FEW_CHANNELS = 8  # more input channels make a band matrix too large to be worth a try
REPEATS = 5


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one layer is computed, and what that costs."""

    path: Path
    bound: int  # proved limit on the accumulator
    exact_below: int  # what the path needs of the bound
    bytes: int  # of input, kernel and accumulator of the candidates and images computed at once
    operations: int  # multiply-adds per image
    seconds: float  # per candidate and image


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a population is evaluated.

    Attributes:
      layers: by name, in the order of computation.
      candidate_chunk: candidates side by side; 1 for one after the other.
      rows: images at once.
      device: what it was measured on.
      arithmetic: "int" or "fast".
    """

    layers: Mapping[str, LayerPlan]
    candidate_chunk: int
    rows: int
    device: str
    arithmetic: Arithmetic

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each layer."""
        return {name: layer.path for name, layer in self.layers.items()}

    @property
    def images_per_second(self) -> float:
        """Images of one candidate per second, as the sum of the layers' times."""
        return 1 / sum(layer.seconds for layer in self.layers.values())


def plan(
    network: QuantizedNetwork,
    *,
    arithmetic: Arithmetic = "fast",
    batch: int = 1024,
    chunks: Sequence[int] | None = None,
    cache: pathlib.Path | None = None,
    again: bool = False,
) -> Plan:
    """The fastest way to evaluate a network's candidates here.

    Measures every exact path of every layer, for candidates one after the other and, except on a
    CPU, side by side (which turns convolutions into grouped ones, patches into batched matrix
    products, and a first layer into one product with the candidates' channels stacked).

    Args:
      network: whose shapes and bounds count; its weights do not.
      arithmetic: "int" leaves the float paths out.
      batch: B, images of a generation.
      chunks: candidates side by side to try.
      cache: a file that keeps plans by device and shapes; ``None`` keeps none.
      again: measure even where the cache holds a plan.

    Returns:
      The plan of least total time.
    """
    rows = image_rows(network, batch)
    jobs = _jobs(network, rows)
    if chunks is None:
        chunks = (1,) if jax.default_backend() == "cpu" else (1, 16, 64)
    device = describe_device()
    shapes = [(name, repr(job), network.layers[name].accumulator_bound) for name, job in jobs]
    setup = [device, jax.__version__, arithmetic, list(chunks), rows, shapes]
    key = hashlib.sha256(json.dumps(setup).encode()).hexdigest()
    stored = _read(cache)
    if key in stored and not again:
        try:
            return _from_json(stored[key])
        except (AttributeError, KeyError, TypeError):  # by another version of qevo
            pass
    plans = [_measured(network, jobs, arithmetic, chunk, rows, device) for chunk in chunks]
    best = max(plans, key=lambda found: found.images_per_second)
    if cache is not None:
        _write(cache, {**_read(cache), key: dataclasses.asdict(best)})
    return best


def image_rows(network: QuantizedNetwork, batch: int) -> int:
    """Images to compute at once: `ROWS` where there are convolutions, else the batch."""
    convolutions = any(kernel.ndim == 4 for kernel in network.weights.values())
    return min(ROWS, batch) if convolutions else batch


def describe_device() -> str:
    """The kind of device that JAX runs on; for a CPU, its model and the cores of this process."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    model = platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines: dict[str, str] = {}
        for line in info.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            lines[name.strip()] = value.strip()
        features = hashlib.sha256(lines.get("flags", "").encode()).hexdigest()[:8]
        model = f"{lines.get('model name', model)}, features {features}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


@dataclasses.dataclass(frozen=True)
class _Job:
    """A product to be measured; layers with equal ones share the measurement."""

    layer: Product
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    shared: bool  # the input is the same for all candidates


@dataclasses.dataclass(frozen=True)
class _Recorder(Integer):
    """Notes the shapes of every product."""

    seen: list[tuple[str, Product, Any, Any]] = dataclasses.field(default_factory=list)

    def accumulate(
        self, x: jax.Array, kernel: jax.Array, layer: Product, *, name: str
    ) -> jax.Array:
        self.seen.append((name, layer, x.shape, kernel.shape))
        return super().accumulate(x, kernel, layer, name=name)


def _jobs(network: QuantizedNetwork, rows: int) -> list[tuple[str, _Job]]:
    recorder = _Recorder(network.layers, network.ranges)
    module = network.module.clone(numerics=recorder)
    images = jax.ShapeDtypeStruct((rows, *network.image_shape), jnp.int8)
    jax.eval_shape(lambda x: forward(module, network.weights, network.constants, x), images)
    return [
        (name, _Job(layer, tuple(x), tuple(kernel), shared=index == 0))
        for index, (name, layer, x, kernel) in enumerate(recorder.seen)
    ]


def _measured(
    network: QuantizedNetwork,
    jobs: list[tuple[str, _Job]],
    arithmetic: Arithmetic,
    chunk: int,
    rows: int,
    device: str,
) -> Plan:
    found: dict[Any, tuple[Path, float]] = {}
    layers = {}
    for name, job in jobs:
        facts = network.layers[name]
        case = (job, facts.accumulator_bound)
        if case not in found:
            times = {}
            for path in _paths(job, facts.accumulator_bound, arithmetic):
                run = _runner(job, path, facts.accumulator_bound, arithmetic, chunk)
                times[path] = _shortest(run, limit=3 * min(times.values(), default=math.inf))
            path = min(times, key=lambda path: times[path])
            found[case] = path, times[path] / (max(chunk, CANDIDATES) * rows)
        path, seconds = found[case]
        outputs = _outputs(job)
        layers[name] = LayerPlan(
            path,
            facts.accumulator_bound,
            INT_LIMIT if path.startswith("int8") else FLOAT_LIMIT,
            chunk * (math.prod(job.x) + math.prod(job.kernel) + 4 * outputs),
            outputs * math.prod(job.kernel[:-1]) // rows,
            seconds,
        )
    return Plan(layers, chunk, rows, device, arithmetic)


def _paths(job: _Job, bound: int, arithmetic: Arithmetic) -> Iterator[Path]:
    """The exact paths that are worth a measurement."""
    for path in get_args(Path):
        number, _, layout = path.partition("_")
        if number != "int8" and (arithmetic == "int" or bound >= FLOAT_LIMIT):
            continue
        if layout and job.layer.kind == "dense":
            continue
        if layout == "banded" and job.kernel[2] > FEW_CHANNELS:
            continue
        if not layout and job.layer.kind == "conv" and jax.default_backend() != "cpu":
            continue  # a library convolution may use a transform, which is not exact
        yield path


def _runner(job: _Job, path: Path, bound: int, arithmetic: Arithmetic, chunk: int) -> Callable:
    """A compiled call: the layer, requantized and summed, for `CANDIDATES` or ``chunk`` of them."""
    count = max(chunk, CANDIDATES)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 128, (1 if job.shared else count, *job.x)), jnp.int8)
    kernels = jnp.asarray(rng.integers(-1, 2, (count, *job.kernel)), jnp.int8)

    def one(x: jax.Array, kernel: jax.Array) -> jax.Array:
        acc = integer_product(x, kernel, job.layer, arithmetic=arithmetic, bound=bound, path=path)
        return jnp.sum(requantize(acc, 1, 7, low=0), dtype=jnp.int32)

    def run(x: jax.Array, kernels: jax.Array) -> jax.Array:
        batch_size = chunk if chunk > 1 else None
        if job.shared:
            return jax.lax.map(lambda k: one(x[0], k), kernels, batch_size=batch_size)
        return jax.lax.map(lambda pair: one(*pair), (x, kernels), batch_size=batch_size)

    compiled = jax.jit(run).lower(x, kernels).compile()
    return lambda: jax.block_until_ready(compiled(x, kernels))


def _shortest(run: Callable[[], Any], limit: float) -> float:
    """Seconds of the fastest of several runs; of the first ones if these pass ``limit``."""
    run()
    times: list[float] = []
    while len(times) < REPEATS and (not times or min(times) < limit):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _outputs(job: _Job) -> int:
    """Entries of the accumulator of one candidate."""
    count = job.x[0] * job.kernel[-1]
    if job.layer.kind == "dense":
        return count
    strides, kernel, image = job.layer.strides, job.kernel[:2], job.x[1:3]
    pads = explicit_padding(job.layer.padding, image, kernel, strides)
    for size, width, stride, pad in zip(image, kernel, strides, pads, strict=True):
        count *= (size + sum(pad) - width) // stride + 1
    return count


def _read(cache: pathlib.Path | None) -> dict[str, Any]:
    """The plans in a file; none where it is missing or unreadable: they can be measured again."""
    try:
        stored = json.loads(cache.read_text()) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _write(cache: pathlib.Path, stored: dict[str, Any]) -> None:
    """Replace the file; a plan that cannot be kept is no reason to fail."""
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        new = cache.with_name(f"{cache.name}.{os.getpid()}")
        new.write_text(json.dumps(stored))
        new.replace(cache)


def _from_json(stored: dict[str, Any]) -> Plan:
    layers = {name: LayerPlan(**layer) for name, layer in stored["layers"].items()}
    return Plan(**{**stored, "layers": layers})
