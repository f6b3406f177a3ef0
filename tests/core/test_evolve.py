"""The loop: when it stops, what it reports and in which order, and what it refuses."""

import pathlib
import signal
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import Medians, Walk, onemax, quadratic, records, walk, whole_walk

from qevo.core import FunctionProblem, Leaf, Result, Space, evolve
from qevo.core.generation import Rules, first_carry, scan_generations
from qevo.errors import QevoError

GENES = 24  # of `walk`


def noisy(**settings: Any) -> Result:
    problem = Medians.of(6)
    settings = {"generations": 60, "validate_every": 4, "progress": False, "devices": 1} | settings
    return evolve(Walk(problem.space), problem, 5, **settings)


def test_a_result_says_how_the_run_went() -> None:
    result = walk()
    assert result.stopped == "generations"
    assert (result.generations, result.evaluations) == (12, 12 * 8)
    assert result.fitness == int(jnp.sum(1 - result.solution)) == result.metrics[-1]["accepted"]
    assert result.fitness < GENES - 8
    assert result.solution.dtype == result.genes.dtype == jnp.int8
    assert result.seconds > 0
    assert result.compile_seconds > 0
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes > 2**20
    assert [record["generation"] for record in result.metrics] == list(range(1, 13))
    first = min(r["generation"] for r in result.metrics if r["best"] == result.fitness)
    assert result.found == first
    for record in result.metrics:
        assert record.keys() == {"generation", "best", "median", "accepted", "kept"}
        assert record["best"] <= record["median"]


@pytest.mark.parametrize("settings", [{"scan_length": 1}, {"scan_length": 7}, {"scan_length": 50}])
def test_neither_calls_nor_chunks_change_a_bit(settings: dict[str, int]) -> None:
    chunks = {1: 1, 7: 3, 50: 8}
    expected = whole_walk()
    result = walk(**settings, candidate_chunk=chunks[settings["scan_length"]])
    np.testing.assert_array_equal(result.genes, expected.genes)
    assert result.metrics == expected.metrics
    assert jax.tree.all(jax.tree.map(jnp.array_equal, result.carry, expected.carry))


@pytest.mark.parametrize("scan_length", [1, 4, 50])
def test_target_stops_the_run_at_once(scan_length: int) -> None:
    result = walk(generations=100, target=10, scan_length=scan_length)
    assert result.stopped == "target"
    assert result.fitness <= 10
    assert result.generations == len(result.metrics) == result.found
    assert all(record["accepted"] > 10 for record in result.metrics[:-1])


@pytest.mark.parametrize("scan_length", [1, 4, 50])
def test_patience_counts_generations_without_an_accepted_improvement(scan_length: int) -> None:
    result = walk(generations=200, patience=9, scan_length=scan_length)
    assert result.stopped == "patience"
    assert result.generations == result.found + 9
    accepted = [record["accepted"] for record in result.metrics]
    assert accepted[-1] == accepted[-10] < accepted[-11]


def test_target_and_patience_follow_validation() -> None:
    result = noisy(generations=200, patience=20)
    assert result.stopped == "patience"
    assert result.generations == result.found + 20
    assert result.found % 4 == 0
    reached = noisy(generations=200, target=result.fitness)
    assert (reached.stopped, reached.generations) == ("target", result.found)


def test_a_start_that_meets_the_target_is_the_answer() -> None:
    result = walk(target=GENES)
    assert (result.stopped, result.generations, result.found) == ("target", 0, 0)
    assert (result.fitness, result.metrics) == (GENES, [])
    np.testing.assert_array_equal(result.genes, np.zeros(GENES))


def test_a_start_that_no_candidate_beats_is_kept() -> None:
    space = Space.of(Leaf((GENES,), 0, 1, 1))
    problem = FunctionProblem(space, lambda bits: jnp.sum(1 - bits, dtype=jnp.int32))
    result = evolve(Walk(space), problem, 0, generations=3, progress=False)
    assert (result.fitness, result.found, result.stopped) == (0, 0, "generations")


def test_acceptance_is_by_validation_alone() -> None:
    result = noisy()
    problem = Medians.of(6)
    validated, _ = problem.validation(result.solution)
    assert result.fitness == int(validated)
    start, _ = problem.validation(problem.space.decode(problem.space.start))
    best = int(start)
    for record in result.metrics:
        looks = record["generation"] % 4 == 0
        assert ("validation" in record) == ("farthest" in record) == looks
        if looks:
            best = min(best, record["validation"])
        assert record["accepted"] == best
    assert best < int(start)


@pytest.mark.parametrize(("generations", "found"), [(6, 6), (9, 8)])
def test_a_run_that_ends_between_two_looks_looks_once_more(generations: int, found: int) -> None:
    result = noisy(generations=generations)
    problem, archive = Medians.of(6), result.carry.archive
    assert result.found == found
    assert result.fitness == int(problem.validation(result.solution)[0])
    latest = int(problem.validation(result.carry.state.genes)[0])
    assert result.fitness == min(latest, int(archive.fitness))
    # What an extended run goes on from does not know of that look.
    assert int(archive.fitness) == result.metrics[-1]["accepted"]
    assert int(archive.generation) % 4 == 0


def test_a_session_ends_after_max_seconds() -> None:
    began = time.monotonic()
    result = walk(
        generations=10_000_000, scan_length=2, max_seconds=0.2, callback=lambda _: time.sleep(0.02)
    )
    assert result.stopped == "time"
    assert 0 < result.generations < 100
    assert time.monotonic() - began < 60
    assert result.seconds >= 0.2


def test_what_is_accepted_is_told_as_it_improves() -> None:
    told: list[tuple[np.ndarray, int]] = []
    result = walk(accepted=lambda solution, fitness: told.append((np.asarray(solution), fitness)))
    values = [fitness for _, fitness in told]
    assert len(values) > 1
    assert values == sorted(set(values), reverse=True)
    assert values[-1] == result.fitness
    np.testing.assert_array_equal(told[-1][0], result.solution)


def test_callbacks_come_once_each_in_order() -> None:
    seen: list[dict[str, int]] = []
    result = walk(callback=seen.append, scan_length=5)
    assert seen == result.metrics


def test_a_key_is_as_good_as_a_seed() -> None:
    problem = onemax(GENES)
    for seed in (jax.random.key(5), np.int64(5)):
        result = evolve(Walk(problem.space), problem, seed, generations=12, progress=False)
        np.testing.assert_array_equal(result.genes, whole_walk().genes)


def test_a_whole_run_maps_over_seeds() -> None:
    problem = onemax(GENES)
    algorithm = Walk(problem.space)

    def run(key: jax.Array) -> Any:
        carry = first_carry(algorithm, problem, key)
        options = {"length": 20, "rules": Rules(12), "chunk": None, "mesh": None}
        return scan_generations(algorithm, problem, key, carry, **options)[0]

    several = jax.jit(jax.vmap(run))(jnp.stack([jax.random.key(4), jax.random.key(5)]))
    one = jax.tree.map(lambda leaf: leaf[1], several)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, whole_walk().carry))


def test_progress_prints_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    walk(progress=True, title="bits")
    assert "bits 12/12" in capsys.readouterr().err


def test_the_first_interrupt_saves_and_ends_the_run(tmp_path: pathlib.Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def press(record: dict[str, int]) -> None:
        if record["generation"] == 3:
            signal.raise_signal(signal.SIGINT)

    result = walk(callback=press, scan_length=2, folder=tmp_path, checkpoint_seconds=1e9)
    assert result.stopped == "interrupted"
    assert result.generations == 4
    assert signal.getsignal(signal.SIGINT) is before
    resumed = walk(folder=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.genes, whole_walk().genes)
    assert result.metrics + resumed.metrics == whole_walk().metrics


def test_an_interrupt_in_the_last_call_is_one(tmp_path: pathlib.Path) -> None:
    def press(record: dict[str, int]) -> None:
        if record["generation"] == 12:
            signal.raise_signal(signal.SIGINT)

    result = walk(callback=press, folder=tmp_path)
    assert (result.stopped, result.generations) == ("interrupted", 12)
    resumed = walk(folder=tmp_path, resume=True)
    assert (resumed.stopped, resumed.metrics) == ("generations", [])
    np.testing.assert_array_equal(resumed.genes, whole_walk().genes)


def test_a_termination_signal_is_passed_on_once_all_is_saved(tmp_path: pathlib.Path) -> None:
    saved: list[int] = []

    def end(record: dict[str, int]) -> None:
        if record["generation"] == 6:
            signal.raise_signal(signal.SIGTERM)

    def note(number: int, frame: Any) -> None:
        saved.append(int(load_file(tmp_path / "checkpoint.safetensors")["generation"]))

    before = signal.signal(signal.SIGTERM, note)
    try:
        result = walk(callback=end, scan_length=4, folder=tmp_path, checkpoint_seconds=1e9)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert saved == [8]
    assert (result.stopped, result.generations) == ("interrupted", 8)
    np.testing.assert_array_equal(walk(folder=tmp_path, resume=True).genes, whole_walk().genes)


def test_a_second_interrupt_ends_at_once(tmp_path: pathlib.Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        walk(callback=lambda _: signal.raise_signal(signal.SIGINT), folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    np.testing.assert_array_equal(walk(folder=tmp_path, resume=True).genes, whole_walk().genes)


def test_a_run_works_in_a_thread() -> None:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(walk()))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0].genes, whole_walk().genes)


def test_metrics_are_json_lines(tmp_path: pathlib.Path) -> None:
    result = walk(folder=tmp_path, scan_length=5)
    assert records(tmp_path) == result.metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generations": 0}, "generations must be at least 1, got 0"),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
        ({"scan_length": 0}, "scan_length must be at least 1, got 0"),
        ({"candidate_chunk": 0}, "candidate_chunk must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"resume": True}, "resume needs the folder of the run"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        walk(**settings)


def test_a_state_may_hold_the_spaces_own_arrays() -> None:
    """The run takes over its state's buffers, not the space's."""
    walk = Walk(onemax(GENES).space)
    assert walk.start(jax.random.key(0)).genes is walk.space.start
    for _ in range(2):
        settings = {"generations": 3, "devices": 1, "progress": False}
        assert evolve(walk, onemax(GENES), 0, **settings).generations == 3
        assert int(walk.space.start.sum()) == 0


def test_metrics_are_kept_unless_told_otherwise() -> None:
    seen: list[dict[str, int]] = []
    result = walk(keep_metrics=False, callback=seen.append)
    assert (result.metrics, seen) == ([], walk().metrics)


def test_devices_that_cannot_share_a_batch() -> None:
    problem = Medians.of()

    def run(problem: Medians, **settings: Any) -> None:
        evolve(Walk(problem.space), problem, 0, generations=1, progress=False, **settings)

    with pytest.raises(QevoError, match="1 devices cannot be in groups of 2"):
        run(problem.replace(batch_chunk=8), devices=1, batch_devices=2)
    same = jax.devices()[:1] * 3
    with pytest.raises(QevoError, match="Medians's fitness is no sum over rows"):
        run(problem, devices=same[:2], batch_devices=2)
    with pytest.raises(QevoError, match="3 devices cannot share 32 rows of a batch evenly"):
        run(problem.replace(batch_chunk=8), devices=same, batch_devices=3)


def test_two_spaces_are_refused() -> None:
    with pytest.raises(QevoError, match="search different spaces"):
        evolve(Walk(onemax(7).space), onemax(8), 0, generations=1, progress=False)


def test_other_blocks_are_refused_at_once_and_on_resume(tmp_path: pathlib.Path) -> None:
    problem = quadratic()
    whole = [([part.name for part in problem.space.layout], None)]
    other = problem.replace(space=problem.space.with_blocks(whole))
    with pytest.raises(QevoError, match="search different blocks"):
        evolve(Walk(other.space), problem, 0, generations=1, progress=False)
    settings = {"folder": tmp_path, "progress": False, "devices": 1}
    evolve(Walk(problem.space), problem, 0, generations=2, **settings)
    with pytest.raises(QevoError, match="blocks: "):
        evolve(Walk(other.space), other, 0, generations=4, resume=True, **settings)
