"""A small YOLO that finds blood cells, in float, from random weights (BCCD, MIT licence).

    QEVO_DATA_DIR=... python experiments/yolo_bccd.py [--epochs 70] [--seed 0]

Trains on the official training images; the validation images choose the epoch, and the test images
are opened once, for the record. The run folder has the network as darknet keeps one, `net.cfg` and
`net.weights`, and result.json. Prints mean average precision at an overlap of 0.5.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from printing import console, table
from records import Record, claim, command, kept
from rich.table import Table

from qevo.core.progress import ProgressReport
from qevo.data import DetectionSet, load_detection
from qevo.detection import Fitted, Precision, average_precision, fitted
from qevo.quantize import TrainingConfig, float_logits
from qevo.quantize.detector_training import Jitter, train_detector
from qevo.quantize.importing.darknet import Detector, load_cfg, write_weights
from qevo.run import folder as files
from qevo.run.provenance import origin
from qevo.run.session import script

NAME = "yolo_bccd"
CFG = "net.cfg"
WEIGHTS = "net.weights"


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a small detector."""

    data: str = "bccd"
    """Images with boxes, with parts train, val and test."""
    cfg: pathlib.Path = pathlib.Path(__file__).parent / "cfg" / "yolo-bccd.cfg"
    """The architecture."""
    epochs: int = 70
    """Passes over the training images."""
    batch: int = 8
    """Images per step."""
    learning_rate: float = 2e-3
    """At the peak, of AdamW."""
    weight_decay: float = 1e-2
    """Decoupled."""
    score_every: int = 10
    """Epochs between looks at the validation images."""
    seed: int = 0
    """Of the initial weights, the order of images and their variations."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where the run folder lies; a finished run is not repeated."""


def main(config: Config) -> None:
    """Train if that is not done yet, and show the record."""
    folder = config.runs / (NAME if config.seed == 0 else f"{NAME}-{config.seed}")
    named = dataclasses.replace(config, cfg=pathlib.Path(config.cfg.name))
    claim(folder, named, free=("runs",))
    console.print(table_of(kept(folder / files.RESULT, lambda: run(config, folder))))


def run(config: Config, folder: pathlib.Path) -> Record:
    """Train, keep the network, and measure it."""
    training_set, validation = (load_detection(config.data, part) for part in ("train", "val"))
    detector = load_cfg(config.cfg, classes=len(training_set.classes))
    size = detector.image_shape[:2]
    images, held_out = fitted(training_set, size), fitted(validation, size)
    training = TrainingConfig(
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    began = time.monotonic()
    curve: list[dict[str, float]] = []
    steps = len(training_set) // config.batch
    with ProgressReport(config.epochs, 0, title="epoch", enabled=True) as report:

        def show(step: int, measured: Mapping[str, float]) -> None:
            curve.append({"epoch": step // steps, **measured})
            best = max(one.get("score", 0.0) for one in curve)
            report.show(step // steps, f"loss {measured['loss']:.3f}  best mAP50 {best:.3f}")

        variables = train_detector(
            detector,
            images.images,
            images.boxes,
            images.labels,
            config=training,
            jitter=Jitter(upside_down=True),  # a smear has no up or down
            score=lambda found: precision(detector, found, validation, held_out).map50,
            score_every=config.score_every,
            progress=show,
        )
    seconds = time.monotonic() - began
    shutil.copyfile(config.cfg, folder / CFG)
    write_weights(detector, variables, folder / WEIGHTS)
    test = load_detection(config.data, "test")
    parts = {"val": (validation, held_out), "test": (test, fitted(test, size))}
    measured = {part: precision(detector, variables, *pair) for part, pair in parts.items()}
    return {
        "command": command(NAME, config, leave_out=("cfg", "runs")),
        "cfg": config.cfg.name,
        "precision": {
            part: {
                "map50": found.map50,
                "map50_95": found.map50_95,
                "ap50": dict(zip(test.classes, found.ap50.tolist(), strict=True)),
            }
            for part, found in measured.items()
        },
        "images": {"train": len(training_set), "val": len(validation), "test": len(test)},
        "weights_bytes": os.path.getsize(folder / WEIGHTS),
        "curve": curve,
        "seconds": seconds,
        "seed": config.seed,
        **origin(),
    }


def precision(detector: Detector, variables: Any, data: DetectionSet, images: Fitted) -> Precision:
    """Of the float network, in pixels of the data's own images."""
    outputs = float_logits(detector.module, variables, images.images)
    found = detector.detections(np.asarray(outputs), images.placements)
    return average_precision(found, data)


def table_of(record: Mapping[str, Any]) -> Table:
    """Average precision of each class, %."""
    found = record["precision"]
    title = f"average precision at an overlap of 0.5, %; {record['seconds'] / 60:.0f} min"
    shown = table(title, ("images",), ("mean", *found["test"]["ap50"], "mean of 0.5 to 0.95"))
    for part, one in found.items():
        values = one["map50"], *one["ap50"].values(), one["map50_95"]
        shown.add_row(part, *(f"{100 * value:.1f}" for value in values))
    return shown


if __name__ == "__main__":
    script(main, Config, __doc__)
