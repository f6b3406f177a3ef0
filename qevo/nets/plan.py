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

from qevo.core.devices import cores
from qevo.integer.patches import explicit_padding
from qevo.integer.products import FLOAT_LIMIT, INT_LIMIT, Path
from qevo.integer.requantize import requantize
from qevo.nets.integer_numerics import Arithmetic, Integer, default_path, integer_product
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.numerics import Product

ROWS = 64  # images of a convolutional network at once: its patches stay in the cache
MORE_ROWS = 256  # where small networks may be faster
CANDIDATES = 4  # per measurement, one after the other
FEW_CHANNELS = 8  # more input channels make a band matrix too large to be worth a try
REPEATS = 5
WORTH = 0.05  # a layer's share of the time, from where on another path is tried in the network
CLOSE = 1.25  # times the fastest path's time alone, up to where a path is tried in the network
GAIN = 0.98  # of the network's time; to change a path for less would follow noise
METHOD = 2  # raised when plans are measured otherwise, so that kept ones are not used


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one layer is computed, and what that costs."""

    path: Path
    bound: int  # proved limit on the accumulator
    exact_below: int  # what the path needs of the bound
    bytes: int  # of input, kernel and accumulator of the candidates and images computed at once
    operations: int  # multiply-adds per image
    seconds: float  # per candidate and image, of this layer alone


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a population is evaluated.

    Attributes:
      layers: by name, in the order of computation.
      candidate_chunk: candidates side by side; 1 for one after the other.
      rows: images at once.
      device: what it was measured on.
      arithmetic: "int" or "fast".
      images_per_second: images of one candidate per second through the whole network.
    """

    layers: Mapping[str, LayerPlan]
    candidate_chunk: int
    rows: int
    device: str
    arithmetic: Arithmetic
    images_per_second: float

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each layer."""
        return {name: layer.path for name, layer in self.layers.items()}


def plan(
    network: QuantizedNetwork,
    *,
    arithmetic: Arithmetic = "fast",
    batch: int = 1024,
    chunks: Sequence[int] | None = None,
    cache: pathlib.Path | None = None,
    again: bool = False,
) -> Plan:
    """A fast way to evaluate a network's candidates here, for those that differ in every layer.

    Measures every exact path of every layer, for candidates one after the other and, except on a
    CPU, side by side (which turns convolutions into grouped ones, patches into batched matrix
    products, and a first layer into one product with the candidates' channels stacked). What a path
    costs within the network may be several times what it costs alone, since the compiler fuses what
    comes before into it; so the plan begins with the paths of `default_path`, tries those of the
    costly layers that are about as fast as any alone, and changes one only where the whole network
    gets faster by it.

    Args:
      network: whose shapes and bounds count; its weights do not.
      arithmetic: "int" leaves the float paths out.
      batch: B, images of a generation.
      chunks: candidates side by side to try.
      cache: a file that keeps plans by device and shapes; ``None`` keeps none.
      again: measure even where the cache holds a plan.

    Returns:
      The fastest plan found.
    """
    rows = image_rows(network, batch)
    jobs = _jobs(network, rows)
    if chunks is None:
        chunks = (1,) if jax.default_backend() == "cpu" else (1, 16, 64)
    device = describe_device()
    shapes = [(name, repr(job), network.layers[name].accumulator_bound) for name, job in jobs]
    more = max(rows, min(MORE_ROWS, batch))
    setup = [METHOD, device, jax.__version__, arithmetic, list(chunks), rows, more, shapes]
    setup.append(repr(network.module))
    key = hashlib.sha256(json.dumps(setup).encode()).hexdigest()
    stored = _read(cache)
    if key in stored and not again:
        try:
            return _from_json(stored[key])
        except (AttributeError, KeyError, TypeError):  # by another version of qevo
            pass
    plans = [_measured(network, jobs, arithmetic, chunk, rows, more, device) for chunk in chunks]
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
    return f"{model}, {cores()} cores"


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
    more_rows: int,
    device: str,
) -> Plan:
    count = max(chunk, CANDIDATES)
    cases: dict[tuple[_Job, int], list[str]] = {}  # layers of equal shapes take the same path
    for name, job in jobs:
        cases.setdefault((job, network.layers[name].accumulator_bound), []).append(name)
    alone: dict[tuple[_Job, int], dict[Path, float]] = {}  # seconds per candidate and image
    chosen: dict[tuple[_Job, int], Path] = {}
    for case in cases:
        job, bound = case
        usual = default_path(job.layer, job.x, job.kernel, arithmetic=arithmetic, bound=bound)
        chosen[case] = usual
        times: dict[Path, float] = {}
        exact: list[Path] = [usual, *_paths(job, bound, arithmetic)]
        for path in exact:
            if path in times:
                continue
            run = _runner(job, path, bound, arithmetic, chunk)
            limit = 3 * min(times.values(), default=math.inf)
            times[path] = _shortest(run, limit)
        alone[case] = {path: seconds / (count * rows) for path, seconds in times.items()}

    def whole(chosen: Mapping[tuple[_Job, int], Path], rows: int = rows) -> Callable[[], float]:
        paths: dict[str, Path] = {n: chosen[case] for case, names in cases.items() for n in names}
        run = _network_runner(network, arithmetic, paths, chunk, rows)
        return lambda: _shortest(run, limit=math.inf) / (count * rows)

    def cost(case: tuple[_Job, int]) -> float:
        return len(cases[case]) * alone[case][chosen[case]]

    timed, total = whole(chosen), sum(map(cost, cases))
    for case in sorted(cases, key=cost, reverse=True):
        if cost(case) < WORTH * total:
            break
        fastest = min(alone[case].values())
        for path in sorted(alone[case], key=lambda path: alone[case][path]):
            if path == chosen[case] or alone[case][path] > CLOSE * fastest:
                continue
            changed: dict[tuple[_Job, int], Path] = {**chosen, case: path}
            tried = whole(changed)
            if _is_faster(tried, timed):
                timed, chosen = tried, changed
    at_once = rows
    if more_rows > rows:
        tried = whole(chosen, more_rows)
        if _is_faster(tried, timed):
            timed, at_once = tried, more_rows

    layers = {}
    for name, job in jobs:
        case = (job, network.layers[name].accumulator_bound)
        outputs = _outputs(job) // rows
        layers[name] = LayerPlan(
            chosen[case],
            case[1],
            INT_LIMIT if chosen[case].startswith("int8") else FLOAT_LIMIT,
            chunk * (at_once * (math.prod(job.x[1:]) + 4 * outputs) + math.prod(job.kernel)),
            outputs * math.prod(job.kernel[:-1]),
            alone[case][chosen[case]],
        )
    return Plan(layers, chunk, at_once, device, arithmetic, 1 / timed())


def _is_faster(new: Callable[[], float], old: Callable[[], float]) -> bool:
    """Whether a call takes clearly less time than another, twice, since machines slow down and
    recover."""
    return all(new() < GAIN * old() for _ in range(2))


def _paths(job: _Job, bound: int, arithmetic: Arithmetic) -> Iterator[Path]:
    """The exact paths that are worth a measurement, beside the usual one."""
    if job.layer.depthwise:
        return  # there is one
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


def _network_runner(
    network: QuantizedNetwork,
    arithmetic: Arithmetic,
    paths: Mapping[str, Path],
    chunk: int,
    rows: int,
) -> Callable:
    """A compiled call: the whole network for `CANDIDATES` or ``chunk`` candidates."""
    count = max(chunk, CANDIDATES)
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
