"""Plans: only exact paths, kept in a file, and no bit of a result changed."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.integer.products import FLOAT_LIMIT, INT_LIMIT
from qevo.nets import planning, timing
from qevo.nets.network import QuantizedNetwork
from qevo.nets.plan import LayerPlan, Plan, describe_device
from qevo.nets.planning import plan
from qevo.problems import NetworkProblem


@pytest.fixture(scope="module", params=["int", "fast"])
def made(request: Any, lenet: QuantizedNetwork) -> Plan:
    return plan(lenet, arithmetic=request.param, batch=20)


def test_every_layer_has_an_exact_path(made: Plan, lenet: QuantizedNetwork) -> None:
    assert list(made.layers) == list(lenet.layers)
    for name, layer in made.layers.items():
        assert layer.bound == lenet.layers[name].accumulator_bound < layer.exact_below
        integers = layer.path.startswith("int8")
        assert layer.exact_below == (INT_LIMIT if integers else FLOAT_LIMIT)
        assert integers or made.arithmetic == "fast"
        assert layer.bytes > 0
        assert layer.seconds > 0
    assert (made.rows, made.candidate_chunk, made.device) == (20, 1, describe_device())


def test_bytes_and_operations_of_a_layer(made: Plan) -> None:
    images, outputs = 20 * 16 * 16 * 2, 20 * 16 * 16 * 4
    assert made.layers["conv_0"].bytes == images + 25 * 2 * 4 + 4 * outputs
    assert made.layers["conv_0"].operations == 25 * 2 * outputs // 20
    assert made.layers["logits"].bytes == 20 * 11 + 11 * 6 + 4 * 20 * 6
    assert made.layers["logits"].operations == 11 * 6


def test_layers_before_and_after_upsampling(autoencoder: QuantizedNetwork) -> None:
    jobs = timing.product_jobs(autoencoder, 3)
    assert list(jobs) == list(autoencoder.layers)
    sizes = {name: (job.x, timing.output_size(job)) for name, job in jobs.items()}
    assert sizes["code"] == ((3, 4, 5, 6), 3 * 1 * 2 * 3)
    assert sizes["up_0"] == ((3, 1, 2, 3), 3 * 4 * 5 * 6)
    assert sizes["up_1"] == ((3, 8, 10, 6), 3 * 8 * 10 * 4)
    assert sizes["image"] == ((3, 16, 20, 4), 3 * 16 * 20 * 2)


def test_bounds_that_floats_cannot_hold_leave_integer_paths(lenet: QuantizedNetwork) -> None:
    job = list(timing.product_jobs(lenet, 4).values())[1]
    large = dataclasses.replace(job, bound=FLOAT_LIMIT)
    paths = list(timing.exact_paths(large, "fast"))
    assert paths == ["int8", "int8_im2col", "int8_banded"]
    assert (
        len(list(timing.exact_paths(dataclasses.replace(job, bound=FLOAT_LIMIT - 1), "fast"))) == 9
    )


def test_the_device_in_use_decides_and_not_the_machine(
    lenet: QuantizedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = list(timing.product_jobs(lenet, 4).values())[1]
    cpu, described = jax.devices("cpu")[0], describe_device()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="gpu", device_kind="X")])
    monkeypatch.setattr(jax, "local_devices", lambda backend: jax.devices())
    paths = set(timing.exact_paths(job, "fast"))
    assert describe_device() == "X"
    with jax.default_device(cpu):
        assert describe_device() == described
        assert {*timing.exact_paths(job, "fast")} - paths == {"int8", "float32", "bfloat16"}


def test_a_plan_changes_no_bit(made: Plan, lenet: QuantizedNetwork) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (20, 16, 16, 2)).astype(np.uint8)
    labels = draw.integers(0, 6, 20).astype(np.int32)

    def score(**options: Any) -> int:
        problem = NetworkProblem.of(lenet, images, labels, images, labels, **options)
        return int(jax.jit(problem.validation)(problem.space.decode(problem.space.start))[0])

    slow = dataclasses.replace(
        made,
        layers={
            name: dataclasses.replace(layer, path="int8_im2col" if "conv" in name else "int8")
            for name, layer in made.layers.items()
        },
        rows=7,
    )
    arithmetic = made.arithmetic
    assert score() == score(plan=made, arithmetic=arithmetic)
    assert score() == score(plan=slow, arithmetic=arithmetic)


def test_a_problem_takes_the_plan_whole_or_not_at_all(lenet: QuantizedNetwork) -> None:
    images, labels = np.zeros((4, 16, 16, 2), np.uint8), np.zeros(4, np.int32)
    of = functools.partial(NetworkProblem.of, lenet, images, labels, images, labels, batch_size=4)
    made = Plan({}, candidate_chunk=16, rows=2, device="", arithmetic="fast", images_per_second=1)
    assert (of().candidate_chunk, of().batch_chunk) == (1, 4)
    problem = of(plan=made, arithmetic="fast")
    assert (problem.candidate_chunk, problem.batch_chunk) == (16, 2)
    assert of(plan=made, arithmetic="fast", candidate_chunk=3).candidate_chunk == 3
    with pytest.raises(QevoError, match=r"plan\(network, arithmetic='int'\)"):
        of(plan=made)
    for arithmetic in ("int", "fast"):
        of(plan=dataclasses.replace(made, arithmetic="int"), arithmetic=arithmetic)


def test_plans_are_kept_and_measured_again_where_asked(
    lenet: QuantizedNetwork, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "new" / "plans.json"
    first = plan(lenet, arithmetic="int", batch=4, cache=cache)
    calls = []
    monkeypatch.setattr(
        planning, "_measured", lambda *args: calls.append(args) or dataclasses.replace(first)
    )
    assert plan(lenet, arithmetic="int", batch=4, cache=cache) == first
    assert not calls
    plan(lenet, arithmetic="int", batch=4, cache=cache, again=True)
    plan(lenet, arithmetic="int", batch=5, cache=cache)  # another setup
    assert len(calls) == 2
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"KEY": {"layers": 3}}', '{"KEY": {}}'])
def test_a_damaged_cache_is_measured_anew(
    text: str, lenet: QuantizedNetwork, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "plans.json"
    made = Plan({"only": LayerPlan("int8", 1, INT_LIMIT, 1, 1, 1e-6)}, 1, 4, "here", "int", 9.0)
    monkeypatch.setattr(planning, "_measured", lambda *args: made)
    plan(lenet, arithmetic="int", batch=4, cache=cache)
    (key,) = json.loads(cache.read_text())
    cache.write_text(text.replace("KEY", key))
    assert plan(lenet, arithmetic="int", batch=4, cache=cache) == made
    assert list(json.loads(cache.read_text())) == [key]


def test_a_cache_that_cannot_be_written_is_no_failure(
    lenet: QuantizedNetwork, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    made = Plan({"only": LayerPlan("int8", 1, INT_LIMIT, 1, 1, 1e-6)}, 1, 4, "here", "int", 9.0)
    monkeypatch.setattr(planning, "_measured", lambda *args: made)
    assert plan(lenet, arithmetic="int", batch=4, cache=tmp_path / "file" / "x.json") == made


def test_candidates_side_by_side_are_measured_as_one_call(lenet: QuantizedNetwork) -> None:
    job = timing.product_jobs(lenet, 2)["dense_0"]
    run = timing.product_runner(job, "int8", "int", 8)
    assert jnp.shape(run()) == (8,)


@pytest.mark.parametrize("helps", [True, False])
def test_a_path_changes_only_where_the_whole_network_gets_faster(
    helps: bool, lenet: QuantizedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, every convolution is fastest by im2col."""

    def alone(job: Any, path: str, *_: Any) -> float:
        return 1.0 if path.endswith("im2col") else 1.1

    def network(_: Any, __: Any, paths: dict[str, str], *___: Any) -> float:
        return 0.5 if helps and paths["conv_0"] == "int8_im2col" else 1.0

    monkeypatch.setattr(timing, "product_runner", alone)
    monkeypatch.setattr(timing, "network_runner", network)
    monkeypatch.setattr(timing, "shortest", lambda seconds, limit=None: seconds)
    made = plan(lenet, arithmetic="int", batch=64)
    assert (made.layers["conv_0"].path == "int8_im2col") == helps
    assert made.images_per_second == timing.CANDIDATES * 64 / (0.5 if helps else 1.0)


@pytest.mark.parametrize(("seconds", "rows"), [(1.0, 70), (70 / 64 * 0.99, 64), (1.2, 64)])
def test_more_images_at_once_where_each_takes_less_time(
    seconds: float, rows: int, lenet: QuantizedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(*arguments: Any) -> float:
        return seconds if arguments[-1] == 70 else 1.0

    monkeypatch.setattr(timing, "product_runner", lambda *_: 1.0)
    monkeypatch.setattr(timing, "network_runner", network)
    monkeypatch.setattr(timing, "shortest", lambda seconds, limit=None: seconds)
    assert plan(lenet, arithmetic="int", batch=70).rows == rows
