"""Resume: the same bits after any number of kills, and nothing lost where it is refused."""

import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import Medians, Walk, noisy_search, onemax

from qevo.algorithms import (
    Coevolution,
    CoevolutionConfig,
    Memetic,
    MemeticConfig,
    TabuConfig,
    TabuSearch,
)
from qevo.core import FunctionProblem, Result, Space, evolve
from qevo.core.checkpoint import FORMAT
from qevo.errors import QevoError
from qevo.problems import MaxCut

SLOW_RUN = """
import pathlib, sys, time
from support import noisy_search

folder = pathlib.Path(sys.argv[1])
noisy_search(
    folder, callback=lambda _: time.sleep(0.02), resume=(folder / "checkpoint.safetensors").exists()
)
"""


def start(folder: pathlib.Path) -> subprocess.Popen[bytes]:
    support = pathlib.Path(sys.modules["support"].__file__ or "").parent
    environment = os.environ | {"PYTHONPATH": str(support), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(folder)], env=environment)


def wait_for_progress(process: subprocess.Popen[bytes], folder: pathlib.Path) -> None:
    """Until the checkpoint of this process is younger than the process."""
    checkpoint, began = folder / "checkpoint.safetensors", time.time()
    while not checkpoint.exists() or checkpoint.stat().st_mtime < began:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() - began < 120
        time.sleep(0.005)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_end(a: pathlib.Path, b: pathlib.Path) -> None:
    """Both folders hold the same final state and metrics, byte for byte, and nothing else."""
    assert files(a).keys() == files(b).keys() == {"checkpoint.safetensors", "metrics.jsonl"}
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    mine, other = (load_file(folder / "checkpoint.safetensors") for folder in (a, b))
    assert mine.keys() == other.keys()
    for name, array in mine.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_killed_three_times_and_resumed_equals_uninterrupted(tmp_path: pathlib.Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    noisy_search(whole)
    moments = random.Random(2)
    reached = []
    for _ in range(3):
        process = start(killed)
        wait_for_progress(process, killed)
        time.sleep(moments.uniform(0, 0.35))
        process.kill()
        process.wait()
        reached.append(int(load_file(killed / "checkpoint.safetensors")["generation"]))
    assert reached == sorted(reached)
    assert 0 < reached[-1] < 90
    result = noisy_search(killed, resume=True)
    assert result.generations == 90
    same_end(whole, killed)


def test_extending_a_finished_run_equals_one_long_run(tmp_path: pathlib.Path) -> None:
    def run(folder: str, generations: int, **settings: Any) -> Result:
        problem = Medians.of(6)
        return evolve(
            Walk(problem.space),
            problem,
            3,
            generations=generations,
            validate_every=4,
            folder=tmp_path / folder,
            devices=1,
            progress=False,
            **settings,
        )

    long = run("long", 26)
    run("parts", 9, scan_length=4)
    second = run("parts", 17, scan_length=3, candidate_chunk=2, resume=True)
    assert second.metrics == long.metrics[9:17]
    third = run("parts", 26, resume=True)
    same_end(tmp_path / "long", tmp_path / "parts")
    for field in ("fitness", "found", "generations", "evaluations", "stopped"):
        assert getattr(third, field) == getattr(long, field)
    assert third.seconds > second.seconds

    before = files(tmp_path / "parts")
    for generations in (26, 20):
        again = run("parts", generations, resume=True)
        assert again.compile_seconds == 0  # nothing is left to compile for
        assert (again.generations, again.stopped, again.metrics) == (26, "generations", [])
        np.testing.assert_array_equal(again.genes, long.genes)
    assert files(tmp_path / "parts")["metrics.jsonl"] == before["metrics.jsonl"]


@dataclasses.dataclass
class Setup:
    """One setup of a short run; a test changes a part of it."""

    folder: pathlib.Path
    problem: Any
    config: CoevolutionConfig
    seed: Any = 0
    settings: Any = None

    def run(self, **settings: Any) -> Result:
        settings = {"validate_every": 3} | (self.settings or {}) | settings
        return evolve(
            Coevolution(self.problem.space, self.config),
            self.problem,
            self.seed,
            generations=2,
            folder=self.folder,
            devices=1,
            progress=False,
            **settings,
        )


@pytest.fixture
def finished(tmp_path: pathlib.Path) -> Setup:
    setup = Setup(tmp_path / "run", Medians.of(6), CoevolutionConfig(population=4, group=3))
    setup.run()
    return setup


def changed_data(problem: Medians) -> Medians:
    return problem.replace(held_out=problem.held_out + jnp.int32(1))


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({"seed": 1}, ["key: [0, 0] -> [0, 1]"]),
        (
            {"seed": jax.random.key(0, impl="rbg")},
            ["key: ", "key_implementation: threefry2x32 -> rbg"],
        ),
        ({"settings": {"patience": 5}}, ["rules.patience: None -> 5"]),
        (
            {"settings": {"target": 5, "validate_every": 2}},
            ["rules.target: ", "rules.validate_every: 3 -> 2"],
        ),
        ({"problem": changed_data(Medians.of(6))}, ["problem.sha256: "]),
        (
            {"problem": onemax(6)},
            ["problem.function: (not set) -> ", "problem.type: Medians -> Function"],
        ),
        (
            {"config": CoevolutionConfig(population=6, group=2, grouping="top_k")},
            [
                "algorithm.group: 3 -> 2",
                "algorithm.grouping: entropy -> top_k",
                "algorithm.population_size: 4 -> 6",
            ],
        ),
    ],
)
def test_a_changed_setup_is_refused_with_a_list(
    finished: Setup, change: dict[str, Any], listed: list[str]
) -> None:
    before = files(finished.folder)
    with pytest.raises(QevoError, match="belongs to another setup; changed:") as caught:
        dataclasses.replace(finished, **change).run(resume=True)
    for line in listed:
        assert f"\n  {line}" in str(caught.value)
    assert files(finished.folder) == before


def test_an_algorithms_own_patience_counts(tmp_path: pathlib.Path) -> None:
    problem = MaxCut.of(3, np.array([0, 1]), np.array([1, 2]))

    def run(patience: int, *, resume: bool) -> None:
        memetic = Memetic(
            TabuSearch(problem, TabuConfig(population=2, moves=2)), MemeticConfig(patience=patience)
        )
        settings = {"generations": 2, "devices": 1, "progress": False}
        evolve(memetic, problem, 0, folder=tmp_path / "run", resume=resume, **settings)

    run(7, resume=False)
    with pytest.raises(QevoError, match=r"algorithm\.patience: 7 -> 8"):
        run(8, resume=True)


def test_another_function_of_the_same_name_is_refused(tmp_path: pathlib.Path) -> None:
    space = Space.integers(4, 0, 20)

    def run(wanted: int, *, resume: bool) -> Result:
        def distance(solution: jax.Array) -> jax.Array:
            return jnp.sum((solution - wanted) ** 2)

        return evolve(
            Coevolution(space, CoevolutionConfig(population=8)),
            FunctionProblem(space, distance),
            0,
            generations=20,
            devices=1,
            progress=False,
            folder=tmp_path / "run",
            resume=resume,
        )

    found = run(3, resume=False).fitness
    assert run(3, resume=True).fitness == found
    with (tmp_path / "run" / "metrics.jsonl").open("a") as later:  # than the checkpoint
        later.write('{"generation": 21}\n')
    before = files(tmp_path / "run")
    with pytest.raises(QevoError, match=f"had a fitness of {found}, and has .* now: the function"):
        run(9, resume=True)
    assert files(tmp_path / "run") == before


def test_an_existing_run_is_not_overwritten(finished: Setup) -> None:
    before = files(finished.folder)
    with pytest.raises(QevoError, match="already holds a run; resume it, or choose another folder"):
        finished.run()
    (finished.folder / "checkpoint.safetensors").unlink()
    with pytest.raises(QevoError, match="already holds a run"):
        finished.run()
    assert files(finished.folder) == {"metrics.jsonl": before["metrics.jsonl"]}


def test_there_must_be_something_to_resume(tmp_path: pathlib.Path) -> None:
    problem = onemax(6)
    with pytest.raises(QevoError, match="no checkpoint to resume from"):
        evolve(
            Walk(problem.space),
            problem,
            0,
            generations=1,
            folder=tmp_path / "none",
            resume=True,
            progress=False,
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "format"])
def test_a_damaged_checkpoint_is_refused_and_kept(finished: Setup, damage: str) -> None:
    path = finished.folder / "checkpoint.safetensors"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
        message = "is damaged"
    elif damage == "flip":
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:])
        message = "is damaged: its contents do not match their checksum"
    else:
        newer = whole.replace(
            f'\\"format\\": {FORMAT}'.encode(), f'\\"format\\": {FORMAT + 1}'.encode()
        )
        assert newer != whole
        path.write_bytes(newer)
        message = f"has checkpoint format {FORMAT + 1}, this version reads format {FORMAT}"
    before = files(finished.folder)
    with pytest.raises(QevoError, match=message):
        finished.run(resume=True)
    assert files(finished.folder) == before


def test_metrics_that_ran_ahead_of_the_checkpoint_are_written_again(finished: Setup) -> None:
    metrics = finished.folder / "metrics.jsonl"
    whole = metrics.read_text()
    ahead = json.dumps({"generation": 3, "best": 0}) + "\n" + '{"generation": 4, "be'
    metrics.write_text(whole + ahead)
    finished.run(resume=True)
    assert metrics.read_text() == whole
