"""Which devices a run takes, and whether it fits into their memory."""

import pathlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import Walk, onemax

from qevo.core import FunctionProblem, Space, devices, evolve
from qevo.core.devices import check_memory, choose_devices, device_in_use, free_memory, peak_memory
from qevo.errors import QevoError

MISSING = "gpu" if jax.default_backend() != "gpu" else "tpu"


def test_devices_by_default_number_and_kind() -> None:
    first = jax.devices()[:1]
    assert choose_devices(1, 7) == first
    assert choose_devices(first, 7) == first
    assert choose_devices(first[0].platform, 1) == first
    assert choose_devices(None, 1) == first


def test_the_device_in_use() -> None:
    first, last = jax.local_devices()[0], jax.local_devices()[-1]
    assert device_in_use() == first
    for given, expected in ((last, last), (first.platform, first), (None, first)):
        with jax.default_device(given):
            assert device_in_use() == expected == jnp.zeros(()).device


@pytest.mark.parametrize("population", [12, 8, 7, 5])
def test_as_many_devices_as_divide_the_population(
    monkeypatch: pytest.MonkeyPatch, population: int
) -> None:
    monkeypatch.setattr(jax, "devices", lambda kind=None: list("abcdefgh"))
    expected = {12: 6, 8: 8, 7: 7, 5: 5}[population]
    assert choose_devices(None, population) == list("abcdefgh")[:expected]
    assert choose_devices("cpu", population) == list("abcdefgh")[:expected]
    with pytest.raises(QevoError, match="population of 13 cannot be shared out evenly over 2"):
        choose_devices(2, 13)


def test_devices_by_default_are_in_groups_that_share_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "devices", lambda kind=None: list("abc"))
    assert choose_devices(None, 66) == list("abc")
    assert choose_devices(None, 66, 2) == list("ab")
    assert choose_devices(None, 66, 3) == list("abc")
    monkeypatch.setattr(jax, "devices", lambda kind=None: list("abcdefgh"))
    assert choose_devices(None, 9, 2) == list("abcdef")
    with pytest.raises(QevoError, match="population of 7 cannot be shared out evenly over 8"):
        choose_devices(8, 7, 2)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (MISSING, rf"no device of kind '{MISSING}' here; there is: \w+:0 \("),
        ("abacus", r"no device of kind 'abacus' here; there is: \w+:0 \("),
        (0, r"0 devices asked for, \d+ there: \w+:0 \("),
        (4096, r"4096 devices asked for, \d+ there: \w+:0 \("),
        ([], "population of 8 cannot be shared out evenly over 0 devices"),
    ],
)
def test_devices_that_are_not_there(wanted: Any, message: str) -> None:
    problem = onemax(8)
    with pytest.raises(QevoError, match=message):
        evolve(Walk(problem.space), problem, 0, generations=1, devices=wanted, progress=False)


def test_free_memory_of_a_device() -> None:
    free = free_memory(jax.devices("cpu")[0])
    if pathlib.Path("/proc/meminfo").exists():
        assert free is not None
        assert free > 2**20
    stats = {"bytes_limit": 100, "bytes_in_use": 30}
    assert free_memory(SimpleNamespace(platform="gpu", memory_stats=lambda: stats)) == 70
    assert free_memory(SimpleNamespace(platform="gpu", memory_stats=lambda: None)) is None


def test_peak_memory_of_the_fullest_device_or_of_the_process() -> None:
    def device(stats: Any) -> Any:
        return SimpleNamespace(memory_stats=lambda: stats)

    two = [device({"peak_bytes_in_use": peak}) for peak in (70, 90)]
    assert peak_memory(two) == 90
    block = np.ones(1 << 26, np.uint8)  # 64 MiB that the process must have held
    for silent in (device(None), device({"bytes_in_use": 5})):
        peak = peak_memory([silent])
        assert peak is not None
        assert block.nbytes < peak < 1 << 40


def test_the_error_says_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    program = SimpleNamespace(
        memory_analysis=lambda: SimpleNamespace(
            temp_size_in_bytes=3 * 2**30, output_size_in_bytes=2**30
        )
    )
    monkeypatch.setattr(devices, "free_memory", lambda device: 2**30)
    message = r"a population of 1000 needs 4\.0 GiB .*, 1\.0 GiB are free: about 224 would fit"
    with pytest.raises(QevoError, match=message + ", or try a smaller candidate_chunk"):
        check_memory(program, None, 1000, None)
    with pytest.raises(QevoError, match=message + "$"):
        check_memory(program, None, 1000, 1)
    monkeypatch.setattr(devices, "free_memory", lambda device: 2**33)
    check_memory(program, None, 1000, None)
    monkeypatch.setattr(devices, "free_memory", lambda device: None)
    check_memory(program, None, 1000, None)


def test_a_population_larger_than_memory_is_refused_before_it_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "free_memory", lambda device: 2**30)
    problem = FunctionProblem(Space.integers(1 << 20, 0, 1), lambda x: x.astype("int32").sum())
    walk = Walk(problem.space, 4096)
    message = r"population of 4096 needs \d+\.\d GiB .*, 1\.0 GiB are free: about \d+ would fit"
    with pytest.raises(QevoError, match=message):
        evolve(walk, problem, 0, generations=1, folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
