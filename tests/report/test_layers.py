"""The table and the picture of a refined network's layers."""

import io
import pathlib

import numpy as np
from matplotlib.image import imread
from rich.console import Console

from qevo.report.layers import draw_layers, layers_table

LAYERS = {
    "stem": {
        "bits": 8,
        "weights": 432,
        "changed": 0.25,
        "nearest": {"error": 0.02, "sensitivity": 0.001},
        "evolved": {"error": 0.01, "sensitivity": 0.0},
    },
    "block/conv": {
        "bits": "ternary",
        "weights": 36864,
        "changed": 0.5,
        "nearest": {"error": 0.3, "sensitivity": 0.2},
        "evolved": {"error": 0.2, "sensitivity": 0.1},
    },
}


def test_the_most_sensitive_layer_comes_first() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(layers_table(LAYERS))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("block/conv") < text.index("stem")
    for cell in ("ternary", "36,864", "50.0", "30 → 20", "200 → 100", "1 → 0"):
        assert cell in text


def test_the_picture(tmp_path: pathlib.Path) -> None:
    draw_layers(tmp_path / "layers.png", LAYERS)
    picture = imread(tmp_path / "layers.png")
    assert picture.shape[1] > 1000
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20
