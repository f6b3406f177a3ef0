"""The engine's benchmark: what its numbers are made of."""

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def engine() -> Any:
    import engine

    return engine


@pytest.mark.slow
def test_a_generation_costs_what_its_blocks_cost_in_the_mean(engine: Any) -> None:
    network, images, labels = engine.ternary_network("lenet_300_100")
    problem = engine.NetworkProblem.of(
        network, images, labels, images[:8], labels[:8], batch_size=16
    )
    alone = engine.Alone(network, images, engine.plan(network, batch=16))
    found = engine.generations(problem, 4, "block", 0.1, alone)
    blocks = found["blocks"]
    assert [part["leaves"] for part in blocks] == [
        [f"{kind}/{layer}" for kind in ("biases", "multipliers", "weights")]
        for layer in ("dense_0", "dense_1", "logits")
    ]
    assert sum(part["visits"] for part in blocks) == pytest.approx(1)
    assert blocks[0]["visits"] > 0.8  # 235,800 of 267,820 genes
    mean = sum(part["visits"] * part["seconds"] for part in blocks)
    assert found["images_per_second"] == pytest.approx(4 * 16 / mean)
    one = found["single_images_per_second"]
    assert found["share_of_inference"] == pytest.approx(found["images_per_second"] / one)


def test_parts_hold_every_gene_once(engine: Any) -> None:
    from qevo import Space

    space = Space.integers((4, 6), -1, 1)
    for grouping in ("entropy", "block"):
        inside = [part for _, part in engine._places(space, grouping)]
        assert np.array_equal(np.sum(inside, axis=0), np.ones(24))
