"""What sharing buys: validation loss over wall time, genes drawn freely against block by block.

    python benchmarks/grouping.py [--output results/grouping.json]

Both searches start from the same layer-wise ternary fit of the same float teacher, which this
trains, and move weights only. Free grouping has the settings that were best for it (large groups, a
low rate); a block's generation is many times cheaper, so it takes small groups and more
generations. Compilation is not counted.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.evolve import evolve
from qevo.core.generation import first_carry
from qevo.data import load
from qevo.nets.planning import plan
from qevo.problems import NetworkProblem
from qevo.quantize import accuracy
from qevo.quantize.training import TrainingConfig
from qevo.run import TrainConfig
from qevo.run.preparation import prepare

SEARCHES = {
    "free": CoevolutionConfig(grouping="entropy", group=5000, rate=0.5, margin=0.002),
    "block": CoevolutionConfig(grouping="block", group=500, rate=1.0, margin=0.002),
}
FOREVER = 1_000_000


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare groupings at equal time."""

    data: str = "fashion_mnist"
    """Data set, as for `qevo train`."""
    networks: tuple[str, ...] = ("lenet_300_100", "lenet_5")
    """Architectures."""
    batch: tuple[int, ...] = (1024, 256)
    """Images per candidate for each."""
    seconds: float = 60.0
    """Of each search."""
    schedule: tuple[int, ...] = (400, 1500)
    """Generations, free and by blocks, over which the rate falls: about as many as fit."""
    seed: int = 1
    """Of the teacher and the searches."""
    output: pathlib.Path | None = None
    """JSON file to write; a plot goes beside it."""


def main(config: Config) -> None:
    """Search, print a table, write JSON and a plot."""
    table = Table(title=f"validation loss after {config.seconds:.0f} s, nats per image")
    for column in ("network", "grouping", "generations", "at the start", "at the end", "accuracy"):
        table.add_column(column, justify="left" if column in ("network", "grouping") else "right")
    rows = []
    for name, batch in zip(config.networks, config.batch, strict=True):
        for row in compare(name, batch, config):
            rows.append(row)
            table.add_row(
                name,
                row["grouping"],
                str(row["generations"]),
                *(f"{row['curve'][i][1]:.4f}" for i in (0, -1)),
                f"{100 * row['accuracy_at_start']:.2f} to {100 * row['accuracy']:.2f}",
            )
    Console(width=120).print(table)
    if config.output:
        ran = {name: dataclasses.asdict(search) for name, search in searches(config).items()}
        found = {"searches": ran, "rows": rows}
        write_record(config.output, record_of(__file__, config, found))
        draw(config.output.with_suffix(".png"), rows)


def searches(config: Config) -> dict[str, CoevolutionConfig]:
    """`SEARCHES` with their schedules."""
    pairs = zip(SEARCHES.items(), config.schedule, strict=True)
    return {name: dataclasses.replace(search, schedule=s) for (name, search), s in pairs}


def compare(name: str, batch: int, config: Config) -> list[dict[str, Any]]:
    """Both searches on one network, by validation data only."""
    data = load(config.data)
    with tempfile.TemporaryDirectory() as folder:
        run = TrainConfig(
            data=config.data,
            architecture=name,  # type: ignore[arg-type]
            runs=pathlib.Path(folder),
            seed=config.seed,
            draws=1,
            training=TrainingConfig(epochs=10, batch=250, learning_rate=2e-3, label_smoothing=0.05),
        )
        run.folder.mkdir(parents=True)
        ready = prepare(run, data)
    start = ready.networks["layerwise"]
    machine = plan(start, batch=batch)
    problem = NetworkProblem.of(
        start,
        data.search.images,
        ready.targets.search,
        data.validation.images,
        data.validation.labels,
        validation_targets=ready.targets.validation,
        genes=("weights",),
        batch_size=batch,
        arithmetic="fast",
        plan=machine,
    )
    nats = 1024 * len(data.validation)
    rows = []
    for grouping, search in searches(config).items():
        algorithm = Coevolution(problem.space, search)
        carry = first_carry(algorithm, problem, jax.random.key(0))
        clock = Clock(nats, [(0.0, int(carry.archive.fitness) / nats)])
        result = evolve(
            algorithm,
            problem,
            config.seed,
            generations=FOREVER,
            max_seconds=config.seconds,
            title=f"{name}, {grouping}",
            callback=clock,
        )
        network, held_out = problem.network(start, result.solution), data.validation
        rows.append(
            {
                "network": name,
                "grouping": grouping,
                "generations": result.generations,
                "seconds": result.seconds,
                "curve": clock.curve,
                "accuracy_at_start": accuracy(start(held_out.images), held_out.labels),
                "accuracy": accuracy(network(held_out.images), held_out.labels),
            }
        )
    return rows


class Clock:
    """Notes the accepted loss and when it was seen; time runs from the first generations on."""

    def __init__(self, nats: int, curve: list[tuple[float, float]]):
        self.nats, self.curve = nats, curve
        self.began = time.monotonic()
        self.first = True

    def __call__(self, record: dict[str, int]) -> None:
        if self.first:  # the first call compiles
            self.began, self.first = time.monotonic(), False
        if "validation" in record:
            self.curve.append((time.monotonic() - self.began, record["accepted"] / self.nats))


def draw(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """One panel a network, one curve a grouping."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    for axes, name in zip(np.ravel(figure.subplots(1, len(names))), names, strict=True):
        for row in (row for row in rows if row["network"] == name):
            seconds, loss = zip(*row["curve"], strict=True)
            axes.step(seconds, loss, where="post", label=row["grouping"])
        axes.set(title=name, xlabel="seconds", ylabel="validation loss, nats per image")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
