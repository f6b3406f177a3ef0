"""The picture of a run is a picture."""

import pathlib

import numpy as np
import pytest
from PIL import Image

import qevo
from qevo.report import draw_run
from qevo.run import folder as files


def panels(path: pathlib.Path) -> list[np.ndarray]:
    """The four quarters of a PNG, uint8 ``[H, W, 3]``."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (910, 1430, 3)
    return [part for half in np.split(pixels, 2) for part in np.split(half, 2, axis=1)]


def colours(pixels: np.ndarray) -> set[str]:
    return {"#{:02x}{:02x}{:02x}".format(*rgb) for rgb in np.unique(pixels.reshape(-1, 3), axis=0)}


def test_a_finished_run(finished: pathlib.Path) -> None:
    accuracy, progress, change, confidence = map(colours, panels(finished / files.PICTURE))
    assert {"#6b7280", "#c2410c", "#d97706", "#0e7490", "#15803d"} <= accuracy  # one bar a method
    assert "#15803d" in progress
    assert {"#15803d", "#0e7490", "#7c3aed"} <= change
    assert {"#0e7490", "#15803d"} <= confidence


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_run_without_searches(
    finished: pathlib.Path, tmp_path: pathlib.Path, value: float
) -> None:
    network = qevo.load(finished / files.NETWORK)
    methods = ("float", "nearest", "best_of_n", "layerwise", "evolved")
    draw_run(
        tmp_path / "run.png",
        accuracy={name: {"validation": value, "test": value} for name in methods},
        metrics={},
        start=network,
        network=network,
        searches={},
        validation_images=90,
    )
    assert all(np.unique(panel).size > 10 for panel in panels(tmp_path / "run.png"))
