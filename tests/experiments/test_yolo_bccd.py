"""The whole command on a few small images: what it keeps, repeats, and refuses."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from qevo.quantize.importing.darknet import load_darknet

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "yolo_bccd.py"
CFG = """
[net]
width=16
height=16

[convolutional]
filters=4
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky

[convolutional]
filters=7
activation=linear

[yolo]
anchors=6,6
classes=2
"""


def write_images(folder: pathlib.Path) -> None:
    draw = np.random.RandomState(0)
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for row in range(count):
            Image.fromarray(draw.randint(0, 256, (20, 24, 3)).astype(np.uint8)).save(
                images / f"{row}.png"
            )
            (labels / f"{row}.txt").write_text("0 .3 .3 .3 .3\n1 .7 .6 .2 .3\n")
    text = "names: [a, b]\n" + "".join(f"{s}: images/{s}\n" for s in ("train", "val", "test"))
    (folder / "cells.yaml").write_text(text)


def run(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--data", "cells.yaml", "--cfg", "own.cfg"]
    command += ["--epochs", "3", "--batch", "3", "--score-every", "2", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_folder_and_its_record(tmp_path: pathlib.Path) -> None:
    write_images(tmp_path)
    (tmp_path / "own.cfg").write_text(CFG)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "average precision" in done.stdout
    assert "epoch 3/3" in done.stderr
    folder = tmp_path / "runs" / "yolo_bccd"
    detector, variables = load_darknet(folder / "net.cfg", folder / "net.weights")
    assert detector.heads[0].classes == 2
    assert variables["params"]["convolutional_0"]["kernel"].shape == (3, 3, 3, 4)
    record = json.loads((folder / "result.json").read_text())
    assert record["images"] == {"train": 6, "val": 3, "test": 2}
    assert [one["epoch"] for one in record["curve"]] == [1, 2, 3]
    scores = [one["score"] for one in record["curve"] if "score" in one]
    assert len(scores) == 2
    assert record["precision"]["val"]["map50"] == pytest.approx(max(scores))
    assert set(record["precision"]["test"]["ap50"]) == {"a", "b"}
    assert record["weights_bytes"] == 20 + 4 * (27 * 4 + 4 * 4 + 4 * 7 + 7)
    assert {"versions", "device", "commit", "seed", "seconds"} <= record.keys()
    assert str(tmp_path) not in record["command"]

    before = (folder / "net.weights").stat().st_mtime_ns
    assert run(tmp_path).stdout == done.stdout
    assert (folder / "net.weights").stat().st_mtime_ns == before
    other = run(tmp_path, "--learning-rate", "0.1")
    assert other.returncode == 2
    assert "holds a run of other settings" in other.stderr
