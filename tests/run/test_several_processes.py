"""`qevo train` in two processes that share no folder: one run, in the first one's."""

import pathlib
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
from support import environment

from qevo.run import TrainConfig
from qevo.run import folder as files


def run_two(first: list[str], second: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Both commands at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = ("--hosts.coordinator", address, "--hosts.processes", "2", "--hosts.heartbeat", "20")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "qevo", "train", *words, *hosts, "--hosts.process", str(index)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, words in enumerate((first, second))
    ]
    said = [process.communicate(timeout=300) for process in processes]
    return [
        subprocess.CompletedProcess((), process.returncode, *texts)
        for process, texts in zip(processes, said, strict=True)
    ]


def words_of(finished: pathlib.Path, runs: pathlib.Path) -> list[str]:
    """The run that is finished, once more."""
    settings: TrainConfig = files.read_config(finished)
    return tiny.words(replace(settings, runs=runs, teacher=finished / files.TEACHER))


@pytest.mark.slow
def test_two_processes_leave_the_same_network(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first, second = (words_of(finished, tmp_path / name) for name in ("first", "second"))
    begun = run_two(first, second)
    assert [done.returncode for done in begun] == [0, 0], begun
    folder = tmp_path / "first" / finished.name
    assert not (tmp_path / "second").exists()
    assert "evolved" in begun[0].stdout
    assert "evolved" not in begun[1].stdout
    assert "weights" not in begun[1].stderr
    for name in (files.NETWORK, "1_constants/metrics.jsonl", "2_weights/metrics.jsonl"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name

    before = tiny.contents(folder)
    again = run_two(first, second)
    assert [done.returncode for done in again] == [2, 2]
    assert "already holds a run" in again[0].stderr
    assert "process 0: " in again[1].stderr
    assert "already holds a run" in again[1].stderr
    assert tiny.contents(folder) == before


@pytest.mark.slow
def test_two_processes_sweep_seeds_together(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    first, second = (words_of(finished, tmp_path / name) for name in ("first", "second"))
    swept = run_two([*first, "--seeds", "0", "1"], [*second, "--seeds", "0", "1"])
    assert [done.returncode for done in swept] == [0, 0], swept
    assert not (tmp_path / "second").exists()
    assert "test accuracy over 2 seeds" in swept[0].stdout
    assert "test accuracy" not in swept[1].stdout
    networks = [(tmp_path / f"first/tiny-{seed}" / files.NETWORK).read_bytes() for seed in (0, 1)]
    assert networks[0] == (finished / files.NETWORK).read_bytes()
    assert networks[1] != networks[0]
