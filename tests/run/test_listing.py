"""`qevo runs`: finished, running, stopped and damaged runs."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import time

import pytest
import tiny
from rich.console import Console

from qevo.core.folder import METRICS
from qevo.errors import QevoError
from qevo.run import folder as files
from qevo.run import listing
from qevo.run.claim import LOCK
from qevo.run.listing import RunsConfig, list_runs, summarise

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def runs(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A finished run, an hour old, and copies of it in other states."""
    for name in ("done", "going", "halted", "broken"):
        shutil.copytree(finished, tmp_path / name)
    for name in ("going", "halted"):
        (tmp_path / name / files.RESULT).unlink()
    (tmp_path / "broken" / files.CONFIG).write_text("{")
    (tmp_path / "no run").mkdir()
    now = time.time()
    for age, name in enumerate(("going", "halted", "broken", "done")):
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (now - 3600 * age, now - 3600 * age))
    return tmp_path


def test_states_and_order(runs: pathlib.Path, capsys: Capture) -> None:
    with (runs / "going" / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = list_runs(RunsConfig(runs))
    states = {run.name: run.state for run in found}
    assert states == {
        "done": "finished", "broken": "damaged", "halted": "stopped", "going": "running",
    }  # fmt: skip
    assert list(states) == ["done", "broken", "halted", "going"]
    done, _, halted, _ = found
    accuracy = files.read_json(runs / "done" / files.RESULT)["accuracy"]["evolved"]
    assert (done.validation, done.test) == (accuracy["validation"], accuracy["test"])
    assert (done.generations, done.planned) == (30, 30)
    assert (halted.generations, halted.test) == (30, None)
    printed = capsys.readouterr().out
    assert f"{100 * accuracy['test']:.2f}" in printed


def test_an_extension_that_was_cut_off_is_not_finished(runs: pathlib.Path) -> None:
    path = runs / "done" / files.CONFIG
    settings = files.read_json(path)
    settings["weights"]["generations"] += 10
    files.write_json(path, settings)
    found = summarise(path.parent)
    assert (found.state, found.generations, found.planned) == ("stopped", 30, 40)
    assert (found.validation, found.test) == (None, None)


def test_a_disk_without_locks(runs: pathlib.Path) -> None:
    """What changed a moment ago is running."""
    for name in ("going", "halted"):
        (runs / name / LOCK).unlink()
    states = {run.name: run.state for run in list_runs(RunsConfig(runs))}
    assert (states["going"], states["halted"]) == ("running", "stopped")


def test_one_damaged_run_hides_no_other(runs: pathlib.Path) -> None:
    for name, text in (("done", '{"accuracy": [1]}'), ("going", "[]")):
        result = files.read_json(runs / "halted" / files.CONFIG)
        planned = files.planned(result)
        text = text.replace("{", f'{{"planned": {json.dumps(planned)}, ')
        (runs / name / files.RESULT).write_text(text)
    states = {run.name: run.state for run in list_runs(RunsConfig(runs))}
    assert [states[name] for name in ("done", "going", "halted")] == ["damaged"] * 2 + ["stopped"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_any_width(
    runs: pathlib.Path, width: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "console", Console(width=width))
    list_runs(RunsConfig(runs))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(len(line) <= width for line in lines)


def test_json(runs: pathlib.Path, capsys: Capture) -> None:
    assert tiny.exit_code("runs", runs, "--json") == 0
    names = [run["name"] for run in json.loads(capsys.readouterr().out)]
    assert names == ["done", "broken", "halted", "going"]


def test_nothing_there(tmp_path: pathlib.Path, capsys: Capture) -> None:
    assert list_runs(RunsConfig(tmp_path)) == []
    assert "no runs in" in capsys.readouterr().out
    with pytest.raises(QevoError, match="expected a folder of runs"):
        list_runs(RunsConfig(tmp_path / "gone"))


def test_a_line_on_its_way_is_no_generation(runs: pathlib.Path) -> None:
    with (runs / "halted" / "2_weights" / METRICS).open("a") as log:
        log.write('{"generation": 2')
    assert summarise(runs / "halted").generations == 30


def test_a_run_that_has_just_begun(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(finished / files.CONFIG, tmp_path)
    found = summarise(tmp_path)
    assert (found.generations, found.planned) == (0, 30)
