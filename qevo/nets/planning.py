"""The fastest plan for a network on this machine, found by measurement."""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import jax

from qevo.core.devices import device_in_use
from qevo.integer.products import FLOAT_LIMIT, INT_LIMIT, Path
from qevo.nets import timing
from qevo.nets.integer_numerics import Arithmetic, default_path
from qevo.nets.network import QuantizedNetwork
from qevo.nets.plan import (
    LayerPlan,
    Plan,
    describe_device,
    image_rows,
    plan_from_json,
    read_plans,
    write_plans,
)
from qevo.nets.timing import Job

MORE_ROWS = 256  # images at once, where small networks may be faster
WORTH = 0.05  # a layer's share of the time, from where on another path is tried in the network
CLOSE = 1.25  # times the fastest path's time alone, up to where a path is tried in the network
GAIN = 0.98  # of the network's time; to change a path for less would follow noise
METHOD = 3  # raised when plans are measured otherwise, so that kept ones are not used


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
    more = max(rows, min(MORE_ROWS, batch))
    jobs = timing.product_jobs(network, rows)
    if chunks is None:
        chunks = (1,) if device_in_use().platform == "cpu" else (1, 16, 64)
    device = describe_device()
    setup = [METHOD, device, jax.__version__, arithmetic, list(chunks), rows, more]
    setup += [repr(jobs), repr(network.module)]
    key = hashlib.sha256(json.dumps(setup).encode()).hexdigest()
    stored = read_plans(cache)
    if key in stored and not again:
        try:
            return plan_from_json(stored[key])
        except (AttributeError, KeyError, TypeError):  # by another version of qevo
            pass
    plans = [_measured(network, jobs, arithmetic, chunk, rows, more, device) for chunk in chunks]
    best = max(plans, key=lambda found: found.images_per_second)
    if cache is not None:
        write_plans(cache, {**read_plans(cache), key: best.to_json()})
    return best


def _measured(
    network: QuantizedNetwork,
    jobs: Mapping[str, Job],
    arithmetic: Arithmetic,
    chunk: int,
    rows: int,
    more_rows: int,
    device: str,
) -> Plan:
    """The fastest plan for ``chunk`` candidates side by side, with either number of images."""
    alone = {job: _times_alone(job, arithmetic, chunk, rows) for job in set(jobs.values())}

    def whole(chosen: Mapping[Job, Path], rows: int) -> Callable[[], float]:
        paths: dict[str, Path] = {name: chosen[job] for name, job in jobs.items()}
        run = timing.network_runner(network, arithmetic, paths, chunk, rows)
        images = timing.candidates(chunk) * rows
        return lambda: timing.shortest(run) / images

    chosen, timed = _choose(Counter(jobs.values()), alone, lambda chosen: whole(chosen, rows))
    at_once = rows
    if more_rows > rows:
        tried = whole(chosen, more_rows)
        if _is_faster(tried, timed):
            timed, at_once = tried, more_rows

    layers = {}
    for name, job in jobs.items():
        path, outputs = chosen[job], timing.output_size(job) // rows
        layers[name] = LayerPlan(
            path,
            bound=job.bound,
            exact_below=INT_LIMIT if path.startswith("int8") else FLOAT_LIMIT,
            bytes=chunk * (at_once * (math.prod(job.x[1:]) + 4 * outputs) + math.prod(job.kernel)),
            operations=outputs * math.prod(job.kernel[:-1]),
            seconds=alone[job][path],
        )
    return Plan(layers, chunk, at_once, device, arithmetic, 1 / timed())


def _times_alone(job: Job, arithmetic: Arithmetic, chunk: int, rows: int) -> dict[Path, float]:
    """Seconds per candidate and image of each exact path, the usual one first."""
    times: dict[Path, float] = {}
    paths: list[Path] = [_usual(job, arithmetic), *timing.exact_paths(job, arithmetic)]
    for path in dict.fromkeys(paths):
        run = timing.product_runner(job, path, arithmetic, chunk)
        times[path] = timing.shortest(run, limit=3 * min(times.values(), default=math.inf))
    images = timing.candidates(chunk) * rows
    return {path: seconds / images for path, seconds in times.items()}


def _usual(job: Job, arithmetic: Arithmetic) -> Path:
    return default_path(job.layer, job.x, job.kernel, arithmetic=arithmetic, bound=job.bound)


def _choose(
    jobs: Counter[Job],
    alone: Mapping[Job, Mapping[Path, float]],
    whole: Callable[[Mapping[Job, Path]], Callable[[], float]],
) -> tuple[dict[Job, Path], Callable[[], float]]:
    """Paths by which the whole network is fast, costly layers first, and a call that times it."""
    chosen: dict[Job, Path] = {job: next(iter(alone[job])) for job in jobs}
    timed = whole(chosen)
    cost = {job: count * alone[job][chosen[job]] for job, count in jobs.items()}
    for job in sorted(jobs, key=lambda job: cost[job], reverse=True):
        if cost[job] < WORTH * sum(cost.values()):
            break
        fastest = min(alone[job].values())
        for path in sorted(alone[job], key=lambda path: alone[job][path]):
            if path == chosen[job] or alone[job][path] > CLOSE * fastest:
                continue
            changed: dict[Job, Path] = {**chosen, job: path}
            tried = whole(changed)
            if _is_faster(tried, timed):
                timed, chosen = tried, changed
    return chosen, timed


def _is_faster(new: Callable[[], float], old: Callable[[], float]) -> bool:
    """Whether a call takes clearly less time than another, twice, since machines slow down and
    recover."""
    return all(new() < GAIN * old() for _ in range(2))
