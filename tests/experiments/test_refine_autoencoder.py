"""The whole command, small: what it writes, that it repeats nothing, and what it refuses."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "refine_autoencoder.py"
SMALL = (
    *("--data", "fashion_mnist_small", "--normal", "1", "--bits", "3", "ternary", "--epochs", "2"),
    *("--seeds", "0", "1", "--calibration", "100", "--roundings", "best_of_n", "layerwise"),
    *("--draws", "2", "--generations", "3", "--population", "6"),
)


def run(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *SMALL, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_table_and_its_record(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "squared error" in done.stdout
    record = json.loads((tmp_path / "results" / "refine_autoencoder.json").read_text())
    assert "--normal 1 --code 4 --epochs 2 --bits 3 ternary --seeds 0 1" in record["command"]
    assert list(record["runs"]) == ["3", "ternary"]
    for runs in record["runs"].values():
        assert [one["seed"] for one in runs] == [0, 1]
        for one in runs:
            measured = one["measured"]
            assert list(measured) == ["float", "nearest", "best_of_n", "layerwise", "evolved"]
            assert measured["evolved"]["validation"] <= measured["layerwise"]["validation"]
            assert all(0 < part["auc"] <= 1 for part in measured.values())
            assert one["seconds"].keys() == measured.keys() - {"float"}
            assert (one["generations"], one["evaluations"]) == (3, 18)
            assert {"versions", "device", "commit"} <= one.keys()
    assert (tmp_path / "results" / "refine_autoencoder.png").read_bytes().startswith(b"\x89PNG")

    files = sorted((tmp_path / "runs").rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in files]
    assert run(tmp_path).stdout == done.stdout
    assert [path.stat().st_mtime_ns for path in files] == before
    other = run(tmp_path, "--code", "2")
    assert other.returncode == 2
    assert "holds a run of other settings" in other.stderr
