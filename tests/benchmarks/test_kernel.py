"""The kernel's benchmark: targets, the noise, what a table says, and that the peers run."""

import json
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def kernel() -> Any:
    import kernel

    return kernel


def test_a_target_within_1_percent_is_the_worst_one_that_is(kernel: Any) -> None:
    from kernel_tasks import within_1_percent

    for optimum in (-100, -101, -51233711):
        target = within_1_percent(types.SimpleNamespace(optimum=optimum))
        assert 100 * target <= 99 * optimum < 100 * (target + 1)


def test_every_algorithm_of_every_task_suits_its_problem(kernel: Any) -> None:
    from kernel_tasks import ALGORITHMS, TASKS

    for name in ("trap", "leading_ones"):
        task = TASKS[name]
        problem = task.make(0)
        for algorithm in (task.chosen, *task.others):
            assert ALGORITHMS[algorithm](problem).space.size == 500
    for task in TASKS.values():
        assert {task.chosen, *task.others} <= set(ALGORITHMS)
        assert task.chosen not in task.others


def test_noise_is_normal_and_different_for_different_bits(kernel: Any) -> None:
    from kernel_scale import NoisyOneMax, normal

    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: normal(key, 50.0)))(keys))
    assert abs(draws.mean()) < 4 * 50 / 4000**0.5
    assert 48 < draws.std() < 52
    assert 0.66 < np.mean(np.abs(draws) < 50) < 0.71

    problem = NoisyOneMax.of(1200)  # ten columns
    score = jax.jit(jax.vmap(problem.fitness, in_axes=(0, None)))
    ones = np.zeros((40, 1200), np.int8)
    ones[np.arange(40), np.arange(40) % 10] = 1
    first = np.asarray(score(ones, jnp.uint32(1)))
    assert len(np.unique(first)) > 5  # as many ones, in other columns
    assert np.array_equal(first[:10], first[10:20])  # equal bits
    assert not np.array_equal(first, score(ones, jnp.uint32(2)))


def test_noisy_onemax_is_solved_to_the_last_bit(kernel: Any) -> None:
    from kernel_scale import converge

    row = converge(300, 20.0)
    assert (row["converged"], row["zeros_left"]) == (True, 0)
    assert row["evaluations"] < 30_000


def test_endless_runs_count_in_the_median(kernel: Any) -> None:
    from kernel_quality import summary

    def run(seconds: float, fitness: int) -> dict[str, Any]:
        return {"reached": fitness <= -10, "seconds": seconds, "fitness": fitness, "target": -10}

    found = summary([run(3.0, -10), run(1.0, -11), run(9.0, -5)], short=2.0)
    assert found == {
        "reached": 2,
        "reached_in_short_seconds": 1,
        "median_seconds": 3.0,
        "median_short_of_target": 0,
    }
    assert summary([run(1.0, -10), run(9.0, -5)], short=2.0)["median_seconds"] is None


@pytest.mark.parametrize("peer", ["deap", "nevergrad", "evosax"])
def test_a_peer_solves_a_small_problem_and_stops_in_time(kernel: Any, peer: str) -> None:
    from kernel_peers import PEERS

    from qevo.problems.pbo import PBO

    if peer != "evosax":
        pytest.importorskip(peer)
    problem = PBO.of(1, 10)
    run = PEERS[peer](problem, 0, -10, 20.0)
    assert run.reached
    assert run.fitness == -10
    assert 0 < run.seconds < 20
    never = PEERS[peer](problem, 0, -11, 0.2)
    assert not never.reached
    assert 0.2 <= never.seconds < 5
    assert never.evaluations > 0


def test_every_contender_is_the_algorithm_it_says(kernel: Any) -> None:
    from kernel_throughput import numpy_masks, numpy_positions

    for make in (numpy_masks, numpy_positions):
        step = make(40)
        for _ in range(60):
            step()
        members = step.__closure__
        assert members is not None
        fitness = next(c.cell_contents for c in members if np.shape(c.cell_contents) == (64,))
        assert fitness.max() < 4  # from about 20: selection and mutation work


def test_parts_are_kept_beside_each_other(kernel: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bench.json"
    config = kernel.Config(
        parts=("throughput", "scale"), genes=(1000,), peers=False, throughput_seconds=0.01,
        scale_seconds=0.1, output=path,
    )  # fmt: skip
    path.write_text('{"command": "of an older record", "scale": {}}')
    kernel.keep(path, "quality", {"rows": []}, config)
    kernel.main(config)
    found = json.loads(path.read_text())
    assert set(found) == {"throughput", "quality", "scale"}
    assert found["quality"]["rows"] == []
    assert found["throughput"]["rows"][0]["evaluations_per_second"] > 0
    (row,) = found["scale"]["rows"]
    assert row["genes"] == 1000
    assert row["evaluations"] > 0
    assert found["scale"]["settings"]["scale_seconds"] == 0.1
    assert path.with_suffix(".png").exists() == row["converged"]
