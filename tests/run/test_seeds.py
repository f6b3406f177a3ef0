"""`--seeds`: one run for each, what is complete skipped, the rest gone on with, and one table."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import statistics
from typing import Any

import pytest
import tiny
from rich.console import Console

from qevo import cli
from qevo.core.progress import ProgressReport
from qevo.errors import QevoError
from qevo.run import StageConfig, TrainConfig, run_seeds
from qevo.run import folder as files
from qevo.run.config import RefineConfig
from qevo.run.seeds import seeded, seeds_table

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def settings(finished: pathlib.Path, tmp_path: pathlib.Path) -> TrainConfig:
    """Those of the finished run, elsewhere, where its folder is that of seed 0."""
    settings = files.read_config(finished)
    shutil.copytree(finished, tmp_path / "tiny-0")
    return dataclasses.replace(settings, runs=tmp_path, name="tiny")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, finished: pathlib.Path) -> list[TrainConfig]:
    """The runs that would be done; each leaves a folder with a result of its own."""
    done: list[TrainConfig] = []
    result = files.read_json(finished / files.RESULT)
    stored = files.read_json(finished / files.CONFIG)

    def run(config: TrainConfig) -> dict[str, Any]:
        done.append(config)
        config.folder.mkdir(exist_ok=True)
        found = result | {"seed": config.seed}
        files.write_json(config.folder / files.CONFIG, stored | files.config_values(config))
        files.write_json(config.folder / files.RESULT, found)
        return found

    monkeypatch.setattr("qevo.run.seeds.run_pipeline", run)
    return done


def text_of(table: Any) -> list[str]:
    console = Console(width=120)
    with console.capture() as said:
        console.print(table)
    return said.get().splitlines()


def test_a_sweep_is_stopped_goes_on_and_is_done(
    settings: TrainConfig, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 0 is complete; seed 1 is stopped, goes on, and has its own teacher and search."""
    show = ProgressReport.__call__

    def press(self: ProgressReport, done: int, record: dict[str, int]) -> None:
        show(self, done, record)
        os.kill(os.getpid(), signal.SIGINT)

    words = ["train", *tiny.words(settings), "--seeds", "0", "1"]

    def call() -> tuple[int, str]:
        return tiny.exit_code(*words), capsys.readouterr().out

    before = tiny.contents(settings.runs / "tiny-0")
    with monkeypatch.context() as patch:
        patch.setattr(ProgressReport, "__call__", press)
        code, text = call()
    assert code == 130
    assert "tiny-0 is complete" in text
    assert "stopped at seed 1, 1 of 2 seeds done; the same command goes on from here" in text
    assert not (settings.runs / "tiny-1" / files.RESULT).exists()

    code, text = call()
    assert code == 0
    assert "test accuracy over 2 seeds" in text
    assert f"qevo report {settings.runs}/tiny-0 {settings.runs}/tiny-1" in text.splitlines()[-1]
    assert tiny.contents(settings.runs / "tiny-0") == before
    first, second = (files.read_json(settings.runs / f"tiny-{s}" / files.RESULT) for s in (0, 1))
    assert (second["seed"], second["generations"]) == (1, first["generations"])
    assert second["network_sha256"] != first["network_sha256"]

    complete = tiny.contents(settings.runs)
    code, again = call()
    assert code == 0
    assert again.count("is complete") == 2
    assert text.splitlines()[-3:] == again.splitlines()[-3:]
    assert tiny.contents(settings.runs) == complete


def test_each_seed_has_a_folder_and_the_same_images(
    settings: TrainConfig, ran: list[TrainConfig]
) -> None:
    results = run_seeds(settings, (3, 0, 5))
    assert [result["seed"] for result in results] == [3, 0, 5]
    assert [(run.folder.name, run.seed) for run in ran] == [("tiny-3", 3), ("tiny-5", 5)]
    assert {run.split_seed for run in ran} == {settings.split_seed}
    same = {dataclasses.replace(run, seed=0, name="tiny") for run in ran}
    assert same == {settings}


@pytest.mark.parametrize("config", [TrainConfig(), RefineConfig(network="net.py:Net")])
def test_a_run_without_a_name_is_named_after_what_it_does(config: Any) -> None:
    plain, named = seeded(config, (2, 7)), seeded(dataclasses.replace(config, name="x"), (2, 7))
    assert [run.folder.name for run in named] == ["x-2", "x-7"]
    assert [run.folder.name.rpartition("-")[2] for run in plain] == ["2", "7"]
    assert plain[0].folder == dataclasses.replace(config, seed=2).folder


def test_longer_runs_and_those_that_ran_out_of_time_go_on(
    settings: TrainConfig, ran: list[TrainConfig]
) -> None:
    path = settings.runs / "tiny-0" / files.RESULT
    files.write_json(path, files.read_json(path) | {"generations": 15})
    run_seeds(settings, (0,))
    assert ran == []
    run_seeds(dataclasses.replace(settings, resume=True), (0, 1))
    assert [(run.seed, run.resume) for run in ran] == [(0, True), (1, False)]
    longer = StageConfig(25, settings.weights.search)
    run_seeds(dataclasses.replace(settings, weights=longer), (0,))
    assert ran[-1].weights.generations == 25
    assert ran[-1].resume


def test_an_extension_that_was_cut_off_goes_on(
    settings: TrainConfig, ran: list[TrainConfig]
) -> None:
    longer = dataclasses.replace(settings, weights=StageConfig(25, settings.weights.search))
    path = settings.runs / "tiny-0" / files.CONFIG
    written = files.read_json(path)
    written["weights"]["generations"] = 25  # as the extension did before it was killed
    files.write_json(path, written)
    run_seeds(longer, (0,))
    assert [(run.weights.generations, run.resume) for run in ran] == [(25, True)]


def test_resumes_by_name_alone(settings: TrainConfig) -> None:
    """With the settings of the first seed that has begun, as a single run does."""
    words = ["train", "--name", "tiny", "--runs", str(settings.runs), "--resume", "--seeds"]
    command: Any = cli.parse([*words, "4", "0"])
    assert command.seeds == (4, 0)
    assert command.run == dataclasses.replace(settings, resume=True)


class TestRefused:
    """Before anything is run."""

    @pytest.mark.parametrize(
        ("seeds", "message"),
        [
            ((), "--seeds needs at least one seed, as in --seeds 0 1 2"),
            ((0, 1, 1, 2, 0), "--seeds has 0, 1 more than once"),
            ((1, -1, 2), "--seeds must be 0 to 4294967295, got -1"),
            ((1 << 32,), "--seeds must be 0 to 4294967295, got 4294967296"),
        ],
    )
    def test_lists_that_cannot_be(
        self, ran: list[TrainConfig], settings: TrainConfig, seeds: tuple[int, ...], message: str
    ) -> None:
        with pytest.raises(QevoError, match=message):
            run_seeds(settings, seeds)
        assert ran == []

    def test_on_the_command_line(
        self, ran: list[TrainConfig], settings: TrainConfig, capsys: Capture
    ) -> None:
        for words in (["--seeds"], ["--seeds", "1", "2", "--seed", "3"]):
            assert tiny.exit_code("train", "--runs", settings.runs, *words) == 2
        errors = capsys.readouterr().err
        assert "--seeds needs at least one seed" in errors
        assert "--seed 3 is for one run: give either --seed or --seeds" in errors
        assert ran == []

    def test_a_folder_that_holds_something_else(
        self, ran: list[TrainConfig], settings: TrainConfig
    ) -> None:
        (settings.runs / "tiny-8").mkdir()
        (settings.runs / "tiny-8" / "mine.txt").write_text("precious")
        with pytest.raises(QevoError, match=r"tiny-8 already exists: choose another --name"):
            run_seeds(settings, (7, 8))
        with pytest.raises(
            QevoError, match=r"tiny-0 was run with other settings; changed:\n.*batch"
        ):
            run_seeds(dataclasses.replace(settings, batch=32), (7, 0))
        assert ran == []


class TestTable:
    @pytest.fixture
    def results(self, finished: pathlib.Path) -> list[dict[str, Any]]:
        """One result three times, with other test accuracies and seconds of the search."""
        result = files.read_json(finished / files.RESULT)

        def other(test: float, seconds: float) -> dict[str, Any]:
            accuracy = result["accuracy"] | {"evolved": {"validation": 0.5, "test": test}}
            spent = result["seconds"] | {"1_constants": seconds, "2_weights": 10 * seconds}
            return result | {"accuracy": accuracy, "seconds": spent}

        return [other(0.9, 1.0), other(0.91, 2.0), other(0.95, 3.0)]

    def test_of_many_seeds(self, settings: TrainConfig, results: list[dict[str, Any]]) -> None:
        lines = text_of(seeds_table(seeded(settings, (0, 1, 2)), results))
        assert lines[0].strip() == "test accuracy over 3 seeds, %"
        assert not any("seed 0" in line for line in lines)
        (row,) = (line for line in lines if "evolved" in line)
        deviation = 100 * statistics.stdev([0.9, 0.91, 0.95])
        assert f"92.00 ± {deviation:.2f}" in row
        assert " 22.0 " in row
        taught = statistics.fmean(result["seconds"]["teacher"] for result in results)
        (row,) = (line for line in lines if "float teacher" in line)
        assert f" {taught:.1f} " in row

    def test_of_few_seeds_shows_each(
        self, settings: TrainConfig, results: list[dict[str, Any]]
    ) -> None:
        lines = text_of(seeds_table(seeded(settings, (4, 6)), results[:2]))
        (row,) = (line for line in lines if "evolved" in line)
        assert any("seed 4" in line and "seed 6" in line for line in lines)
        assert "90.50 ± 0.71" in row
        assert "90.00" in row
        assert "91.00" in row
        alone = text_of(seeds_table(seeded(settings, (4,)), results[:1]))
        assert not any("±" in line for line in alone)
        assert any("evolved" in line and "90.00" in line for line in alone)
