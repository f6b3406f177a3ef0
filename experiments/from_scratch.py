"""A ternary network trained by evolution alone: random weights, no float network, no gradients.

    QEVO_DATA_DIR=... python experiments/from_scratch.py [--data mnist] [--minutes 30]

Every weight starts at -1, 0 or 1 at random. Floats are used once, to choose the dyadic constants
that fit the random network's activations to int8; from there cooperative coevolution, whose
program is audited for floating point before it starts, moves weights, multipliers and biases on
the labels of the search images. It works on a few output channels at a time, so that a generation
computes what its candidates share once. The network is chosen by validation loss, and the official
test images are looked at once, at the end. Writes results/scratch_NETWORK_DATA.json with the curve,
and a plot beside it; a run that was cut off goes on from its folder.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Literal

import jax
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from printing import console
from records import Record, command, write_record
from searching import finished

from qevo import NetworkProblem, QuantizedNetwork, evolve
from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.evolve import Result
from qevo.core.folder import CHECKPOINT, METRICS, read_metrics
from qevo.data import Dataset, load
from qevo.errors import QevoError
from qevo.nets.registry import architecture
from qevo.quantize import FloatTeacher, accuracy, float_logits
from qevo.quantize.rounding import round_squared_error
from qevo.report.picture import STYLE
from qevo.run import folder as files
from qevo.run.auditing import audit_generation
from qevo.run.provenance import origin
from qevo.run.session import script

CALIBRATION = 1000  # images that the constants of the random network are fitted to
EVERY = 100  # generations between looks at validation images
POINTS = 400  # of the curve that is kept
RADIUS = 2  # from -1 to 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a ternary network from random weights."""

    architecture: Literal["lenet_300_100", "lenet_5"] = "lenet_300_100"
    """Network."""
    data: str = "mnist"
    """Data set, as for `qevo train`."""
    minutes: float = 60.0
    """Wall time of the search, earlier sessions not counted."""
    generations: int = 140_000
    """At most, and those over which the learning rate falls."""
    population: int = 64
    """Candidates per generation."""
    batch: int = 1024
    """Images per candidate."""
    channels: int = 4
    """Output channels of a wide dense layer that a generation works on."""
    group: int = 1000
    """Genes of a generation."""
    rate: float = 4.0
    """Learning rate."""
    spread: float = 0.2
    """Share of a fresh table's mass off the random start."""
    margin: float = 0.012
    """Least mass of every level."""
    confidence: float = 3.0
    """Deviation of the random network's logits, in nats."""
    seed: int = 0
    """Of the random weights, the split and the search."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where the run folder lies."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the summary and the plot go."""


def main(config: Config) -> None:
    """Draw, search or go on, and report."""
    data = load(config.data, seed=config.seed)
    folder = config.runs / f"scratch-{config.architecture}-{data.name}-{config.seed}"
    start = random_network(config, data)
    problem = problem_of(config, data, start)
    search = CoevolutionConfig(
        population=config.population,
        group=config.group,
        grouping="block",
        rate=config.rate,
        spread=config.spread,
        margin=config.margin,
        schedule=config.generations,
    )
    algorithm = Coevolution(problem.space, search)
    report_of_audit = audit_generation(algorithm, problem)
    if not report_of_audit.ok:
        raise QevoError(f"the search computes in floats:\n{report_of_audit}")
    found = finished(
        evolve(
            algorithm,
            problem,
            config.seed,
            generations=config.generations,
            validate_every=EVERY,
            scan_length=EVERY,
            max_seconds=60 * config.minutes,
            folder=folder,
            resume=(folder / CHECKPOINT).exists(),
            title=folder.name,
        )
    )
    settings = {"calibration": CALIBRATION, "radius": RADIUS, "validate_every": EVERY}
    settings |= {"search": dataclasses.asdict(search)}
    report(config, data, start, found, folder, settings)


def random_network(config: Config, data: Dataset) -> QuantizedNetwork:
    """Ternary weights drawn at random, and constants that fit what they make of the images.

    Weights are scaled so that sums keep their size from layer to layer (He, Zhang, Ren and Sun
    2015), and in the last layer so that logits deviate by ``confidence``.
    """
    images = data.search.images[:CALIBRATION]
    module = architecture(config.architecture, classes=len(data.classes))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images[:1])
    draw = np.random.default_rng(config.seed)

    def random(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) == 1:  # a bias
            return np.zeros(leaf.shape, np.float32)
        levels = draw.integers(-1, 2, leaf.shape).astype(np.float32)
        return levels * np.float32(math.sqrt(3 / math.prod(leaf.shape[:-1])))

    variables = jax.tree.map(random, shapes)
    deviation = float_logits(module, variables, images).std()
    variables["params"]["logits"]["kernel"] *= config.confidence / deviation
    teacher = FloatTeacher(module, variables, images)
    return teacher.convert(bits="ternary", rounding=round_squared_error, fit_bias=False)


def problem_of(config: Config, data: Dataset, network: QuantizedNetwork) -> NetworkProblem:
    """All weights, multipliers and biases, scored on the labels of the search images."""
    return NetworkProblem.of(
        network,
        data.search.images,
        data.search.labels,
        data.validation.images,
        data.validation.labels,
        radius=RADIUS,
        batch_size=config.batch,
        arithmetic="fast",
        channels=config.channels,
    )


def report(
    config: Config,
    data: Dataset,
    start: QuantizedNetwork,
    found: Result,
    folder: pathlib.Path,
    settings: Record,
) -> None:
    """Measure the network, write what was found and draw how."""
    network = problem_of(config, data, start).network(start, found.solution)
    network.save(folder / files.NETWORK)
    parts = {"validation": data.validation, "test": data.test}

    def accuracies(network: QuantizedNetwork) -> dict[str, float]:
        return {name: accuracy(network(part.images), part.labels) for name, part in parts.items()}

    generations = [r for r in read_metrics(folder / METRICS) if "validation_errors" in r]
    images = len(data.validation)
    seconds = found.seconds / found.generations
    summary = {
        "command": command("from_scratch", config),
        "accuracy": {"random": accuracies(start), "evolved": accuracies(network)},
        "parameters": sum(kernel.size for kernel in network.weights.values()),
        "generations": found.generations,
        "evaluations": found.evaluations,
        "images": found.evaluations * config.batch,
        "seconds": found.seconds,
        "compile_seconds": found.compile_seconds,
        "peak_memory_bytes": found.peak_memory_bytes,
        "curve": [
            {
                "evaluations": r["generation"] * config.population,
                "seconds": round(r["generation"] * seconds, 1),
                "validation": 1 - r["validation_errors"] / images,
            }
            for r in generations[:: max(1, len(generations) // POINTS)]
        ],
        "data_sha256": data.fingerprint(),
        "settings": settings,
        **origin(),
    }
    name = f"scratch_{config.architecture}_{data.name}"
    write_record(config.results / f"{name}.json", summary)
    draw(config.results / f"{name}.png", summary["curve"], f"{config.architecture}, {data.name}")
    for kind, value in summary["accuracy"].items():
        shares = ", ".join(f"{100 * share:.2f} % {name}" for name, share in value.items())
        console.print(f"{kind:8} {shares}")
    console.print(
        f"{found.evaluations:,} networks evaluated on {config.batch:,} images each in "
        f"{found.seconds / 60:.1f} minutes"
    )


def draw(path: pathlib.Path, curve: list[dict[str, float]], title: str) -> None:
    """Validation error over networks evaluated, and over seconds."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, x in zip(axes, ("evaluations", "seconds"), strict=True):
            errors = [100 * (1 - point["validation"]) for point in curve]
            ax.plot([point[x] for point in curve], errors, color="#15803d", lw=1.4)
            ax.set_yscale("log")
            ax.set_yticks([1, 2, 3, 5, 10, 20, 50, 90], [1, 2, 3, 5, 10, 20, 50, 90])
            ax.grid(axis="y", color="0.9", lw=0.6)
            ax.set_xlabel({"evaluations": "networks evaluated", "seconds": "seconds of search"}[x])
        axes[0].set_ylabel("validation error, %")
        axes[0].set_title(f"{title}: ternary, from random weights", loc="left")
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    script(main, Config, __doc__)
