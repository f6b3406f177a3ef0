"""A data set and a run that are small enough for tests."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from qevo import cli
from qevo.algorithms import CoevolutionConfig
from qevo.quantize.training import TrainingConfig
from qevo.run import StageConfig, TrainConfig, run_pipeline

CLASSES = 3
SHAPE = (8, 8, 1)


def blobs(count: int = 600, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of one pattern for each class: uint8 ``[n, 8, 8, 1]``, int32 ``[n]``."""
    draw = np.random.RandomState(seed)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    patterns = np.random.RandomState(7).randint(60, 200, (CLASSES, *SHAPE))
    noisy = patterns[labels] + draw.normal(0, 70, (count, *SHAPE))
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def write_blobs(path: pathlib.Path) -> pathlib.Path:
    """The blobs as a user's own .npz file."""
    images, labels = blobs()
    np.savez(path, images=images, labels=labels)
    return path


def config(data: pathlib.Path | str, runs: pathlib.Path, **changes: Any) -> TrainConfig:
    """A run of seconds in which both stages find something."""
    search = CoevolutionConfig(population=16, group=512, rate=1.0, schedule=40)
    small = TrainConfig(
        data=str(data),
        name="tiny",
        runs=runs,
        training=TrainingConfig(epochs=4, batch=60),
        calibration=200,
        draws=2,
        batch=64,
        start="nearest",
        roundings=("best_of_n", "layerwise"),
        constants=StageConfig(10, search),
        weights=StageConfig(20, search),
        validate_every=5,
        scan_length=5,
    )
    return dataclasses.replace(small, **changes)


def run(folder: pathlib.Path) -> pathlib.Path:
    """Write the data, do the run, and return its folder."""
    settings = config(write_blobs(folder / "blobs.npz"), folder / "runs")
    run_pipeline(settings)
    return settings.folder


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def words(settings: TrainConfig) -> list[str]:
    """The command line of `qevo train` that says what these settings have of their own."""
    known = flatten_dict(dataclasses.asdict(TrainConfig()), sep=".")
    ours = flatten_dict(dataclasses.asdict(settings), sep=".")
    changed = {name: value for name, value in ours.items() if value != known[name]}
    return [
        word
        for name, value in changed.items()
        for word in (
            f"--{name.replace('_', '-')}",
            *map(str, value if isinstance(value, tuple) else [value]),
        )
    ]


def exit_code(*words: object) -> int:
    """That of the command line ``qevo WORDS``."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return int(ended.value.code or 0)
