"""What each part of the coevolution is worth: one change at a time, at the same budget.

    QEVO_DATA_DIR=... python experiments/cc_ablation.py [--variants base labels]

A ternary ResNet-8 on CIFAR-10, from its published float weights, rounded on 4,000 images. Every
variant scores the same number of candidate images and is judged by validation images alone; test
images are not opened. Writes results/cc_ablation.json and, for people, results/cc_ablation.md.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any, Literal

from float_networks import PUBLISHED
from printing import console, table
from records import Record, claim, command, kept, settings, write_record
from stages import CONSTANTS, WEIGHTS, stage

from qevo.algorithms import CoevolutionConfig
from qevo.data import Dataset
from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.outputs import accuracy, divergence, float_logits
from qevo.run import StageConfig, TrainConfig
from qevo.run.preparation import Preparation, load_data, prepare
from qevo.run.provenance import origin
from qevo.run.searching import Targets, search
from qevo.run.session import script


@dataclasses.dataclass(frozen=True)
class Variant:
    """One change from the base, and why it is of interest."""

    what: str
    search: CoevolutionConfig
    genes: Literal["constants", "weights"] = "constants"
    batch: int = 512
    targets: Literal["labels", "teacher"] = "teacher"
    start: Literal["evolutionary", "layerwise", "nearest"] = "evolutionary"


ENTROPY = CoevolutionConfig(population=32, group=3000, rate=1.0, margin=0.002)


def change(**fields: Any) -> CoevolutionConfig:
    """The base with other settings."""
    return dataclasses.replace(CONSTANTS, **fields)


VARIANTS = {
    "base": Variant("all multipliers and biases, 32 candidates on 512 images", CONSTANTS),
    "wide": Variant("128 candidates on 128 images", change(population=128), batch=128),
    "medium": Variant("64 candidates on 256 images", change(population=64), batch=256),
    "narrow": Variant("16 candidates on 1,024 images", change(population=16), batch=1024),
    "slow": Variant("half the learning rate", change(rate=0.25)),
    "fast": Variant("twice the learning rate", change(rate=1.0)),
    "level_rate": Variant("no annealing", change(final_rate=1.0)),
    "spread": Variant("twice the spread", change(spread=0.4)),
    "radius": Variant("windows of 5 levels", change(radius=2)),
    "margin": Variant("four times the margin", change(margin=0.02)),
    "plain": Variant("no antithetic pairs", change(antithetic=False)),
    "entropy": Variant("100 of the 692 genes at a time, by entropy", change(group=100)),
    "random": Variant("100 at a time, at random", change(group=100, grouping="random")),
    "top": Variant("100 at a time, least confident first", change(group=100, grouping="top_k")),
    "subgroups": Variant("two subgroups side by side", change(subgroups=2, group=346)),
    "labels": Variant("labels for targets", CONSTANTS, targets="labels"),
    "from_fit": Variant("from the layer-wise fit", CONSTANTS, start="layerwise"),
    "from_nearest": Variant("from nearest rounding", CONSTANTS, start="nearest"),
    "weights": Variant("weights, 3,000 at a time, by entropy", ENTROPY, "weights"),
    "blocks": Variant(
        "weights, 300 at a time, within a block",
        dataclasses.replace(WEIGHTS, population=32, group=300, rate=1.0),
        "weights",
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare variants of the coevolution."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which of them."""
    images: int = 983_040
    """Candidate images that each of them scores."""
    seed: int = 0
    """Of the split and the search."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished run is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the table goes."""


def main(config: Config) -> None:
    """Run what is not there yet, then gather.

    Raises:
      QevoError: a variant that there is not.
    """
    odd = [name for name in config.variants if name not in VARIANTS]
    if odd:
        raise QevoError(f"--variants are {', '.join(VARIANTS)}, not {', '.join(odd)}")
    words = command("cc_ablation", config)
    rows = {name: record(config, name, VARIANTS[name]) for name in config.variants}
    best = sorted(rows, key=lambda name: rows[name]["divergence"][1])
    columns = "variant", "change", "divergence", "accuracy, %", "generations", "seconds"
    found = table("ternary ResNet-8, validation", columns, ())
    lines = [
        "# Coevolution, one change at a time",
        "",
        "Ternary ResNet-8, CIFAR-10, validation images alone: the mean divergence of its classes",
        "from the float network's in nats, and its accuracy, before the search and after it; best",
        f"first. Every variant scored {config.images:,} candidate images. Written by",
        f"`{words}`; `cc_ablation.json` has the rest.",
        "",
        "| variant | | divergence | accuracy, % | generations | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name in best:
        row = rows[name]
        cells = [
            name,
            row["what"],
            "{:.4f} → {:.4f}".format(*row["divergence"]),
            "{:.2f} → {:.2f}".format(*(100 * share for share in row["accuracy"])),
            f"{row['generations']}",
            f"{row['seconds']:.0f}",
        ]
        found.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    console.print(found)
    summary = {"command": words, "images": config.images, "rows": rows}
    write_record(config.results / "cc_ablation.json", summary)
    (config.results / "cc_ablation.md").write_text("\n".join(lines) + "\n")


def record(config: Config, name: str, variant: Variant) -> Record:
    """Divergence and accuracy on validation images before and after one variant's search."""
    run = run_config(config, name, variant)
    claim(run.folder, variant, free=("what",))
    return kept(run.folder / "variant.json", lambda: _measured(config, run, variant))


def _measured(config: Config, run: TrainConfig, variant: Variant) -> Record:
    data, ready = beginning(config)
    expected = float_logits(ready.module, ready.variables, data.validation.images)
    targets = ready.targets
    if run.targets == "labels":
        targets = Targets(data.search.labels, data.validation.labels)

    def judge(network: QuantizedNetwork) -> tuple[float, float]:
        logits = network(data.validation.images)
        right = accuracy(logits, data.validation.labels)
        return divergence(expected, logits / 2.0**network.fraction_bits), right

    start = ready.networks[run.start]
    network, searches = search(run, data, start, targets)
    before, after = judge(start), judge(network)
    return {
        "what": variant.what,
        "divergence": (before[0], after[0]),
        "accuracy": (before[1], after[1]),
        "generations": sum(result.generations for result in searches.values()),
        "seconds": sum(result.seconds for result in searches.values()),
        "settings": settings(run),
        **origin(),
    }


@functools.cache
def beginning(config: Config) -> tuple[Dataset, Preparation]:
    """The images, and the roundings that variants start from."""
    base = dataclasses.replace(
        run_config(config, "start", VARIANTS["base"]), roundings=("layerwise", "evolutionary")
    )
    base.folder.mkdir(parents=True, exist_ok=True)
    data = load_data(base)
    return data, prepare(base, data)


def run_config(config: Config, name: str, variant: Variant) -> TrainConfig:
    """The run of one variant."""
    generations = config.images // (variant.search.population * variant.batch)
    searched, nothing = stage(variant.search, generations), StageConfig(0, CONSTANTS)
    return TrainConfig(
        data="cifar10",
        architecture="resnet_8",
        teacher=PUBLISHED["resnet_8"],
        calibration=4000,
        name=f"cc-ablation-{config.images}-{config.seed}-{name}",
        runs=config.runs,
        seed=config.seed,
        split_seed=config.seed,
        batch=variant.batch,
        start=variant.start,
        targets=variant.targets,
        constants=searched if variant.genes == "constants" else nothing,
        weights=searched if variant.genes == "weights" else nothing,
        resume=True,
    )


if __name__ == "__main__":
    script(main, Config, __doc__)
