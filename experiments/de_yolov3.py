"""YOLOv3 at full size through one cycle of directed evolution per kind of layer, and into a file.

    QEVO_DATA_DIR=... python experiments/de_yolov3.py [--weights yolov3.weights]

What the whole pipeline takes for 62 million weights on images of 416 x 416: calibration, rounding
to 8 bits, and for one layer of each kind (3x3, 3x3 with stride 2, 1x1, and a head) 4 bits, a share
of zeros that sets of tentatively zeroed weights are chosen for in the whole integer network, and
the file. Without --weights the weights are random ones of the true shapes, so that times, memory
and sizes count, and no precision is measured. Prints each step as it ends; writes
results/de_yolov3.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from printing import console
from records import PLACES, Record, command, write_record
from zeroing import RADIUS, Zeroing, ZeroingConfig

from qevo import NetworkProblem, QuantizedNetwork
from qevo.compress import compress, decompress, open_compressed, summarise
from qevo.core.writing import write_whole
from qevo.data import load_detection
from qevo.detection import place
from qevo.nets import FixedMaps
from qevo.quantize import FloatTeacher
from qevo.quantize.importing.darknet import Detector, load_cfg, read_weights
from qevo.quantize.pruning import removal_costs
from qevo.quantize.rounding import FloatLayer, Rounded, round_squared_error
from qevo.quantize.variables import variable_shapes
from qevo.run.provenance import origin
from qevo.run.session import script

CFG = pathlib.Path(__file__).parent / "cfg" / "yolov3.cfg"
LEAKY_GAIN = 2 / (1 + 0.1**2)  # that keeps the variance behind a leaky ReLU


@dataclasses.dataclass(frozen=True)
class Config:
    """Take YOLOv3 through the pipeline once."""

    cfg: pathlib.Path = CFG
    """The architecture."""
    weights: pathlib.Path | None = None
    """Darknet's weights; random ones of the true shapes if there are none."""
    size: int = 416
    """Height and width of the images."""
    images: int = 4
    """That everything is fitted to and scored on."""
    zeros: float = 0.9
    """Share of zeros in one layer of each kind."""
    bits: int = 4
    """Of these layers; the others have 8."""
    population: int = 4
    """Candidates of a generation; with one generation for each kind of layer, 4 kinds and 4 images
    that is 64 image evaluations."""
    seed: int = 0
    """Of random weights and the search."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where the file goes."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the record goes."""


class Steps:
    """Seconds and peak memory of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        with console.status(name):
            yield
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.steps[name] = {"seconds": seconds, "peak_gib": peak}
        console.print(f"{name}: {seconds:.0f} s, peak memory {peak:.1f} GiB")


def main(config: Config) -> None:
    """Every step once."""
    steps = Steps()
    detector = load_cfg(config.cfg, size=(config.size, config.size))
    variables = variables_of(config, detector)
    data = load_detection("coco256", "val")
    size = detector.image_shape[:2]
    images = np.stack([place(image, size)[0] for image in data.images[: config.images]])
    with steps.step("calibration"):
        teacher = FloatTeacher(detector.module, variables, images)
    with steps.step("float maps"):
        maps = teacher.outputs
    chosen = kinds(detector)
    bits = {"*": 8} | dict.fromkeys(chosen.values(), config.bits)
    costs: dict[str, np.ndarray] = {}

    def rounding(layer: FloatLayer) -> Rounded:
        rounded = round_squared_error(layer)
        if layer.name in chosen.values():
            costs[layer.name] = removal_costs(layer, rounded, made_up=False)  # but for the mean
            costs[layer.name] += np.outer(layer.means()[0] ** 2, rounded.scale**2)
        return rounded

    with steps.step("rounding"):
        network = teacher.convert(bits=bits, rounding=rounding)
    rounded = {"divergence": teacher.divergence(network), "variance": float(np.var(maps))}
    found: dict[str, Record] = {}
    for kind, layer in chosen.items():
        with steps.step(f"directed evolution of {layer}, {kind}"):
            cost = {layer: costs[layer].reshape(network.weights[layer].shape)}
            network, settings = cycle(config, detector, network, cost, images, maps)
        kernel = np.asarray(network.weights[layer])
        found[kind] = {
            "layer": layer,
            "shape": list(kernel.shape),
            "zeros": float((kernel == 0).mean()),
            "divergence": teacher.divergence(network),
            "settings": settings,
        }
    path = config.runs / "de-yolov3" / "network.qevo"
    with steps.step("encoding"):
        content = compress(network)
        write_whole(path, content)
    with steps.step("decoding"):
        again = decompress(path.read_bytes())
    for name, kernel in network.weights.items():
        np.testing.assert_array_equal(kernel, again.weights[name])
    file = summarise(open_compressed(content))
    parts = {layer.name: layer for layer in file.layers}
    for part in found.values():
        part |= {"bytes": parts[part["layer"]].bytes, "weights": parts[part["layer"]].weights}
        console.print(
            f"{part['layer']}: {100 * part['zeros']:.1f} % zeros,"
            f" {4 * part['weights'] / part['bytes']:.1f}x smaller"
        )
    console.print(f"file: {file.bytes:,} bytes for {file.parameters:,} parameters")
    summary = {
        "command": command("de_yolov3", config, leave_out=("cfg", "weights", *PLACES)),
        "weights": "published" if config.weights else "random, of the true shapes",
        "parameters": file.parameters,
        "rounded": rounded,
        "layers": found,
        "bytes": file.bytes,
        "ratio": file.ratio,
        "steps": steps.steps,
        **origin(),
    }
    write_record(config.results / "de_yolov3.json", summary)


def kinds(detector: Detector) -> dict[str, str]:
    """The first large layer of each kind, by name: of at least 32 channels in and out."""
    shapes = variable_shapes(detector.module, detector.image_shape)
    found: dict[str, str] = {}
    for call in detector.module.calls:
        if call.operation not in ("conv", "map"):
            continue
        height, _, inputs, features = shapes[f"params/{call.name}/kernel"]
        options = dict(call.options)
        kind = "head" if call.operation == "map" else f"{height}x{height}"
        if options.get("strides", (1, 1)) != (1, 1):
            kind += " with stride"
        if min(inputs, features) >= 32:
            found.setdefault(kind, call.name)
    return found


def cycle(
    config: Config,
    detector: Detector,
    network: QuantizedNetwork,
    cost: Mapping[str, np.ndarray],
    images: np.ndarray,
    maps: np.ndarray,
) -> tuple[QuantizedNetwork, Record]:
    """One generation of tentative zeroing in the layer of a cost; what is missing goes by it.

    Returns:
      The network, and the settings of the search.
    """
    (layer,) = cost
    numbers = 5 + detector.heads[0].classes

    def problem(network: QuantizedNetwork) -> NetworkProblem:
        fixed = FixedMaps.of(network, detector.shapes, numbers)
        targets = fixed.targets(maps)
        return NetworkProblem.of(
            network,
            images,
            targets,
            images[:1],
            targets[:1],
            loss="squared_error",
            maps=fixed,
            genes=("weights",),
            layers=(layer,),
            radius=RADIUS,
            batch_size=len(images),
            arithmetic="fast",
            batch_chunk=1,
        )

    settings = ZeroingConfig(population=config.population, seed=config.seed)
    zeroing = Zeroing(settings, problem, lambda rounding: network)
    return zeroing.search(network, cost, 1, {layer: config.zeros}), zeroing.settings


def variables_of(config: Config, detector: Detector) -> Any:
    """Published weights, or random ones that keep the variance of activations."""
    if config.weights is not None:
        return read_weights(detector, config.weights)
    draw = np.random.default_rng(config.seed)

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("kernel"):
            spread = np.sqrt(LEAKY_GAIN / np.prod(shape[:-1]))
            return draw.standard_normal(shape, np.float32) * np.float32(spread)
        return np.full(shape, float(name.endswith(("norm/scale", "norm/var"))), np.float32)

    shapes = variable_shapes(detector.module, detector.image_shape)
    flat = {name: value(name, shape) for name, shape in shapes.items()}
    return jax.tree.map(jax.numpy.asarray, unflatten_dict(flat, sep="/"))


if __name__ == "__main__":
    script(main, Config, __doc__)
