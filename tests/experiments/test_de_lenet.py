"""The whole command, small: what it writes, and that the files are what the table says."""

import json
import pathlib
import subprocess
import sys

import pytest

from qevo.compress import load, read_compressed

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "de_lenet.py"
SMALL = (
    *("--data", "fashion_mnist_small", "--ratios", "60", "--methods", "magnitude", "directed"),
    *("--epochs", "2", "--calibration", "300", "--cycles", "1", "--generations", "20"),
    *("--tries", "3"),
    *("--repair", "4", "--population", "8", "--batch", "128"),
)


@pytest.mark.slow
def test_the_table_and_its_files(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(SCRIPT), *SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "directed evolution" in done.stdout
    name = "de_lenet_300_100_fashion_mnist_small"
    record = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert (tmp_path / "results" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert record["parameters"] == 266_610
    assert [row["method"] for row in record["rows"]] == ["magnitude", "directed"]
    for row in record["rows"]:
        path = tmp_path / "runs" / "de-lenet_300_100-fashion_mnist_small-0"
        path /= f"60-{row['method']}.qevo"
        file = read_compressed(path)
        assert (file.size, file.ratio) == (row["bytes"], row["ratio"])
        assert file.ratio > row["zstd_ratio"] > 40
        kernels = load(path).weights
        assert {key: float((kernel == 0).mean()) for key, kernel in kernels.items()} == (
            pytest.approx(row["zeros"])
        )
        assert 0.3 < row["test"] < record["float"]["test"] + 0.02
        settings = row["settings"]
        assert (settings["radius"], settings["search"]["population"]) == (127, 8)
    assert {"versions", "device", "commit", "data_sha256"} <= record.keys()
    assert record["seconds"]["training"] > 0.1

    kept = sorted((tmp_path / "runs").rglob("*.*"))
    before = [path.stat().st_mtime_ns for path in kept if path.name != "config.json"]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.stdout == done.stdout
    assert [p.stat().st_mtime_ns for p in kept if p.name != "config.json"] == before
    assert json.loads((tmp_path / "results" / f"{name}.json").read_text()) == record
