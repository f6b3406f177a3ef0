"""Selection in stages: what is scored on which rows, who goes on, and the same bits anywhere."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import Medians, Walk, on_devices, onemax, state

from qevo.algorithms import ShiftConfig, ShiftES
from qevo.core import FunctionProblem, Proposal, Result, Space, evolve
from qevo.core.proposal import Share
from qevo.core.selection import WORST, Stage, check_stages, ranks, staged_scores
from qevo.errors import QevoError

ROWS = 20


@pytest.mark.parametrize("size", [1, 7, 512, 513, 1000])
def test_ranks_are_those_of_a_stable_sort(size: int) -> None:
    values = np.random.RandomState(size).randint(-5, 5, size).astype(np.int32)
    values[-1] = WORST
    expected = np.empty(size, np.int32)
    expected[np.argsort(values, kind="stable")] = np.arange(size)
    found = jax.jit(ranks)(jnp.asarray(values))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)


class Recorder:
    """Scores from a table ``[P, rows]``, and how often each entry was asked for."""

    def __init__(self, table: np.ndarray):
        self.table = table
        self.asked = np.zeros(table.shape, int)

    def __call__(self, share: Share, batch: dict[str, jax.Array]) -> jax.Array:
        candidates = np.asarray(share.values[:, 0], int)
        np.testing.assert_array_equal(share.rows, candidates)
        np.testing.assert_array_equal(batch["twice"], 2 * np.asarray(batch["row"]))
        part = np.ix_(candidates, np.asarray(batch["row"]))
        self.asked[part] += 1
        return jnp.asarray(self.table[part].sum(1), jnp.int32)


def share_of(population: int) -> Share:
    values = jnp.arange(population, dtype=jnp.int8)[:, None]
    return Proposal(jnp.zeros((population, 1), jnp.int32), values).share


def reference(table: np.ndarray, stages: Any, spared: int) -> tuple[np.ndarray, np.ndarray]:
    """Fitness, and which entries of the table count, one candidate at a time."""
    left = list(range(len(table)))
    seen = np.zeros(table.shape, int)
    done = 0
    for candidates, rows in stages:

        def so_far(candidate: int, end: int = done) -> tuple[bool, int]:
            return candidate >= spared, int(table[candidate, :end].sum())

        left = sorted(left, key=so_far)[:candidates]
        seen[left, done:rows] = 1
        done = rows
    fitness = np.full(len(table), WORST)
    fitness[left] = table[left].sum(1)
    return fitness, seen


@pytest.mark.parametrize(
    ("stages", "spared"),
    [
        ([(12, 20)], 0),
        ([(12, 1), (12, 20)], 2),
        ([(12, 4), (6, 10), (3, 20)], 0),
        ([(12, 4), (6, 10), (6, 11), (2, 20)], 1),
        ([(12, 2), (5, 20)], 3),
    ],
)
@pytest.mark.parametrize("values", [1000, 3], ids=["", "ties"])
def test_candidates_drop_out_by_their_score_so_far(
    stages: list[tuple[int, int]], spared: int, values: int
) -> None:
    draw = np.random.RandomState(len(stages) + values)
    table = draw.randint(-values, values, (12, ROWS))
    table[:spared] += 5 * values  # those that are spared are the worst
    batch = {"row": jnp.arange(ROWS), "twice": 2 * jnp.arange(ROWS)}
    record = Recorder(table)
    found = staged_scores(record, share_of(12), batch, [Stage(*s) for s in stages], spared)
    fitness, seen = reference(table, stages, spared)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, fitness)
    np.testing.assert_array_equal(record.asked, seen)  # no row twice
    assert np.sum(fitness < WORST) == stages[-1][0]
    assert np.all(fitness[:spared] == table[:spared].sum(1))


def test_without_stages_all_are_scored_on_all_rows() -> None:
    table = np.random.RandomState(0).randint(0, 9, (5, ROWS))
    record = Recorder(table)
    batch = {"row": jnp.arange(ROWS), "twice": 2 * jnp.arange(ROWS)}
    found = staged_scores(record, share_of(5), batch, ())
    np.testing.assert_array_equal(found, table.sum(1))
    assert np.all(record.asked == 1)


def test_the_least_and_the_largest_scores_keep_their_order() -> None:
    """Spared candidates go before those of the least int32, dropped ones come after all."""
    table = np.array([[2**31 - 2, 0], [-(2**31) + 2, 0], [5, 1], [-(2**31) + 1, 1], [0, 0]])
    record = Recorder(table)
    batch = {"row": jnp.arange(2), "twice": 2 * jnp.arange(2)}
    found = staged_scores(record, share_of(5), batch, [Stage(5, 1), Stage(3, 2)], 1)
    expected = [2**31 - 2, -(2**31) + 2, WORST, -(2**31) + 2, WORST]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("stages", "spared"),
    [
        ([(7, 4), (2, 9)], 0),
        ([(8, 4), (9, 9)], 0),
        ([(8, 4), (2, 9), (4, 10)], 0),
        ([(8, 4), (2, 4)], 0),
        ([(8, 4), (2, 3)], 0),
        ([(8, 0), (2, 3)], 0),
        ([(8, 4), (0, 5)], 0),
        ([(8, 4), (2, 5)], 2),
    ],
)
def test_stages_that_cannot_be(stages: list[tuple[int, int]], spared: int) -> None:
    message = (
        rf"begin with all 8 candidates .* no more of them, but at least {spared + 1}, on more rows "
        rf"of the batch, got \(candidates, rows\) \[\({stages[0][0]}, {stages[0][1]}\)"
    )
    with pytest.raises(QevoError, match=message):
        check_stages([Stage(*stage) for stage in stages], 8, spared)


def test_stages_that_can_be() -> None:
    check_stages((), 8, 3)
    check_stages([Stage(8, 1)], 8)
    check_stages([Stage(8, 4), Stage(8, 5), Stage(3, 6)], 8, 2)


STAGES = ((32, 8), (4, 32))


def staged_search(
    folder: pathlib.Path | None = None, *, stages: Any = STAGES, **settings: Any
) -> Result:
    """A shift strategy on `Medians`, whose batch has 32 rows."""
    problem = dataclasses.replace(Medians.of(), batch_chunk=5)
    algorithm = ShiftES(
        problem.space, ShiftConfig(population=32, slots=12, siblings=1, stages=stages)
    )
    return evolve(
        algorithm,
        problem,
        11,
        generations=24,
        validate_every=4,
        scan_length=3,
        folder=folder,
        checkpoint_generations=1,
        progress=False,
        **settings,
    )


MANY = """
import json, pathlib, sys
import jax
from test_selection import staged_search
from support import state

folder = pathlib.Path(sys.argv[1])
found = {}
for name, settings, used in (
    ("default", {}, 4),
    ("two", {"devices": 2, "candidate_chunk": 3}, 2),
    ("rows", {"devices": 4, "batch_devices": 2, "candidate_chunk": 1}, 4),
):
    result = staged_search(folder / name, **settings)
    found[name] = state(result, folder / name)
    assert len(result.carry.generation.devices()) == used
print(json.dumps(found))
"""


@pytest.mark.slow
def test_stages_give_the_same_bits_on_any_devices(tmp_path: pathlib.Path) -> None:
    found = json.loads(on_devices(8, MANY, tmp_path / "many"))
    alone = staged_search(tmp_path / "alone", devices=1)
    expected = state(alone, tmp_path / "alone")
    names = ("default", "two", "rows")
    assert found == dict.fromkeys(names, expected)

    # Nor does it matter where a run was interrupted.
    first = staged_search(tmp_path / "parts", devices=1, max_seconds=0.0)
    assert first.generations == 3
    resumed = staged_search(tmp_path / "parts", devices=1, resume=True)
    assert state(resumed, tmp_path / "parts") == expected
    with pytest.raises(QevoError, match="stages: "):
        staged_search(tmp_path / "parts", devices=1, resume=True, stages=((32, 9), (4, 32)))

    assert alone.fitness < alone.metrics[3]["validation"]
    for record in alone.metrics:
        assert record["best"] <= record["median"] < WORST  # of those that came to the end


class StagedWalk(Walk):
    """A search that knows nothing of stages but their setting."""

    stages = (Stage(8, 4), Stage(2, 32))


@pytest.mark.parametrize(
    ("problem", "settings", "message"),
    [
        (Medians.of(6), {}, r"no sum over rows .* so neither stages nor devices can share"),
        (onemax(6), {}, "FunctionProblem's fitness is no sum over rows of its batch"),
        (
            Medians.of(6).replace(batch_chunk=8),
            {"stages": (Stage(8, 4), Stage(2, 16))},
            "last stage must be scored on the whole batch of 32 rows, not on 16",
        ),
        (
            Medians.of(6).replace(batch_chunk=8),
            {"stages": (Stage(8, 5), Stage(4, 32)), "devices": jax.devices()[:1] * 2},
            "2 devices cannot share 5 rows of a batch evenly",
        ),
        (
            Medians.of(6).replace(batch_chunk=8),
            {"stages": (Stage(6, 4), Stage(4, 32))},
            "stages must begin with all 8 candidates",
        ),
        (
            Medians.of(6).replace(batch_chunk=8),
            {"spared": 2},
            "no more of them, but at least 3, on more rows",
        ),
    ],
)
def test_stages_that_do_not_fit_a_problem(
    problem: Medians | FunctionProblem, settings: dict[str, Any], message: str
) -> None:
    walk = StagedWalk(problem.space)
    devices = settings.get("devices", jax.devices()[:1])
    for name in settings.keys() - {"devices"}:
        setattr(walk, name, settings[name])
    with pytest.raises(QevoError, match=message):
        evolve(
            walk,
            problem,
            0,
            generations=1,
            devices=devices,
            batch_devices=len(devices),
            progress=False,
        )


def test_any_algorithm_can_have_stages_and_says_so() -> None:
    assert Walk(Space.integers(3, 0, 1)).describe().keys() == {"type", "population_size"}
    problem = Medians.of(6).replace(batch_chunk=8)
    walk = StagedWalk(problem.space)
    described = walk.describe()
    assert described["stages"] == [[8, 4], [2, 32]]
    assert json.loads(json.dumps(described)) == described
    result = evolve(walk, problem, 0, generations=30, devices=1, progress=False)
    assert result.fitness < int(problem.validation(jnp.zeros(6, jnp.int8))[0])
