"""A whole table of a small detector on real images: what it says, keeps and goes on from."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest

from qevo.compress import decompress
from qevo.data import load_detection
from qevo.quantize.importing.darknet import load_cfg, write_weights

CFG = """
[net]
width=32
height=32

[convolutional]
filters=8
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky

[convolutional]
filters=8
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky

[convolutional]
filters=8
activation=linear

[yolo]
anchors=6,6
classes=3
"""


@pytest.fixture
def detector(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of one with random weights."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "net.cfg").write_text(CFG)
    found = load_cfg(folder / "net.cfg")
    images = np.zeros((1, *found.image_shape), np.uint8)
    write_weights(found, found.module.init(jax.random.key(0), images), folder / "net.weights")
    return folder


@pytest.mark.data
def test_a_table(detector: pathlib.Path, tmp_path: pathlib.Path) -> None:
    import de_yolo

    config = de_yolo.Config(
        network=str(detector),
        zeros=(0.0, 0.5),
        bits=(4,),
        methods=("magnitude", "second_order", "directed"),
        calibration=6,
        generations=2,
        batch=6,
        population=4,
        examples=1,
        runs=tmp_path / "runs",
        results=tmp_path / "results",
    )
    de_yolo.main(config)
    record = json.loads((tmp_path / "results" / "de_small.json").read_text())
    assert record["images"] == [205, len(load_detection("bccd", "test"))]
    rows = record["rows"]
    assert [row["method"] for row in rows] == ["directed", *config.methods]
    for row in rows[1:]:
        # Half of 216 + 576 weights, not of the 64 that give the maps; some survivors round to 0.
        assert 396 / 856 <= row["all_zeros"] < 0.55
        assert row["bytes"] < rows[0]["bytes"]
        assert 0 < row["divergence"] < 0.1
    assert rows[3]["evaluations"] == 2 * 2 * 4

    folder = tmp_path / "runs" / "de-small-0"
    network = decompress((folder / "4-0.5-second_order.qevo").read_bytes())
    *body, maps = (np.asarray(weights) for weights in network.weights.values())
    assert np.mean(maps == 0) < 0.2 < np.mean(body[1] == 0)
    for name in ("de_small.png", "de_small_boxes.png"):
        assert (tmp_path / "results" / name).stat().st_size > 5_000

    costs = (folder / "costs.json").stat().st_mtime_ns
    (folder / "4-0.5-magnitude.json").unlink()  # as if it had been killed there
    de_yolo.main(config)
    again = json.loads((tmp_path / "results" / "de_small.json").read_text())["rows"]
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]
    assert (folder / "costs.json").stat().st_mtime_ns == costs
