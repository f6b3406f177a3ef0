"""Tables say what was measured."""

import io
import json
import os
import pathlib

import pytest
from rich.console import Console

from qevo.report import accuracy_table
from qevo.report.summary import summarise


def test_accuracy_in_percent() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    accuracy = {
        "evolved": {"validation": 0.875, "test": 1.0},
        "float": {"validation": 0.9, "test": 0.12344},
    }
    console.print(accuracy_table(accuracy))
    rows = [line.split("│")[1:-1] for line in console.export_text().splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["float teacher", "90.00", "12.34"],
        ["evolved", "87.50", "100.00"],
    ]


def test_summary_of_several_seeds(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [
        {"accuracy": {"evolved": {"validation": 0.8, "test": test}}, "seed": seed}
        for seed, test in enumerate((0.5, 0.6, 0.7))
    ]
    path = tmp_path / "results" / "summary.json"
    summarise(path, runs, command="python x.py")
    written = json.loads(path.read_text())
    test = written["accuracy"]["evolved"]["test"]
    assert test["mean"] == pytest.approx(0.6)
    assert test["deviation"] == pytest.approx(0.1)
    assert (test["least"], test["most"]) == (0.5, 0.7)
    assert written["accuracy"]["evolved"]["validation"]["deviation"] == pytest.approx(0)
    assert written["runs"] == runs
    assert written["command"] == "python x.py"
    assert "60.00 ± 10.00" in capsys.readouterr().out
    with monkeypatch.context() as full:
        full.setattr("os.replace", lambda *_: os.stat(tmp_path / "nowhere"))
        with pytest.raises(FileNotFoundError):
            summarise(path, runs, command="another")
    assert json.loads(path.read_text()) == written
