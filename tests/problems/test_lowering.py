"""A whole call of generations lowers for accelerators that are not here."""

import re
from types import SimpleNamespace
from typing import Any

import jax
import pytest
import tiny
from networks import quantized

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.generation import Rules, first_carry, scan_generations
from qevo.nets import integer_numerics
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.mlp import LeNet300
from qevo.nets.network import QuantizedNetwork
from qevo.nets.resnet import ResNet
from qevo.problems import NetworkProblem

BACKENDS = {"tpu": "tpu", "cuda": "gpu"}  # of a platform, as `jax.default_backend` names it
FLOAT = re.compile(r"tensor<(?:[^>]*x)?(?:f|bf)\d+>")


@pytest.fixture(scope="module")
def networks() -> dict[str, QuantizedNetwork]:
    """A dense one, and one of convolutions, residual sums and an average pool."""
    modules = {
        "dense": LeNet300(hidden=(12, 8), classes=tiny.CLASSES),
        "convolutions": ResNet(widths=(4,), classes=tiny.CLASSES),
    }
    images, _ = tiny.blobs(30)
    return {name: quantized(module, images, bits="ternary") for name, module in modules.items()}


@pytest.mark.parametrize("arithmetic", ["int", "fast"])
@pytest.mark.parametrize("platform", BACKENDS)
@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_generations_lower_for_an_accelerator(
    networks: dict[str, QuantizedNetwork],
    kind: str,
    platform: str,
    arithmetic: Arithmetic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = tiny.blobs(60)
    parts = images[:40], labels[:40], images[40:], labels[40:]
    problem = NetworkProblem.of(networks[kind], *parts, batch_size=16, arithmetic=arithmetic)
    algorithm = Coevolution(problem.space, CoevolutionConfig(population=8, group=16))
    key = jax.random.key(0)
    carry = first_carry(algorithm, problem, key)

    def call(problem: NetworkProblem, key: jax.Array, carry: Any) -> Any:
        options = {"length": 3, "rules": Rules(9, patience=5, target=0), "chunk": 2, "mesh": None}
        return scan_generations(algorithm, problem, key, carry, **options)

    # The exact products take other paths there.
    there = SimpleNamespace(platform=BACKENDS[platform])
    monkeypatch.setattr(jax, "default_backend", lambda: there.platform)
    monkeypatch.setattr(integer_numerics, "device_in_use", lambda: there)
    jitted = jax.jit(call, donate_argnums=2)
    exported = jax.export.export(jitted, platforms=[platform])(problem, key, carry)
    assert exported.platforms == (platform,)
    floats = FLOAT.search(exported.mlir_module())
    assert (floats is None) == (arithmetic == "int")
