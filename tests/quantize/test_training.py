"""Training a float network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.nets import Integer, LeNet300, ResNet
from qevo.quantize import TrainingConfig, flip_and_crop, float_logits, train


def patterns(count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """One random pattern per class in noise."""
    draw = np.random.RandomState(0)
    labels = np.arange(count) % 3
    images = draw.randint(50, 200, (3, 6, 6, 1))[labels] + draw.normal(0, 25, (count, 6, 6, 1))
    return images.clip(0, 255).astype(np.uint8), labels


@pytest.mark.parametrize(
    "change", [{}, {"optimizer": "sgd", "learning_rate": 0.05, "label_smoothing": 0.1}]
)
def test_learns(change: dict[str, Any]) -> None:
    images, labels = patterns()
    module = LeNet300(hidden=(8,), classes=3)
    seen: list[tuple[int, dict[str, float]]] = []
    config = dataclasses.replace(TrainingConfig(epochs=12, batch=48, learning_rate=1e-2), **change)
    variables = train(
        module, images, labels, config=config, progress=lambda i, m: seen.append((i, dict(m)))
    )
    assert [step for step, _ in seen] == list(range(5, 61, 5))
    assert seen[-1][1]["loss"] < 0.7 * seen[0][1]["loss"]
    assert seen[-1][1]["accuracy"] > 0.9
    assert (float_logits(module, variables, images).argmax(-1) == labels).mean() > 0.9


def test_batch_norm_and_augmentation() -> None:
    images, labels = patterns()
    module = ResNet(widths=(4,), classes=3)
    config = TrainingConfig(epochs=12, batch=24, learning_rate=1e-2)
    variables = train(module, images, labels, config=config, augment=crop_by_one)
    assert set(variables) == {"params", "batch_stats"}
    assert (float_logits(module, variables, images).argmax(-1) == labels).mean() > 0.7


def crop_by_one(key: jax.Array, images: jax.Array) -> jax.Array:
    return flip_and_crop(key, images, pad=1)


def test_the_seed_decides() -> None:
    images, labels = patterns(96)
    module = LeNet300(hidden=(4,), classes=3)

    def kernel(seed: int) -> np.ndarray:
        config = TrainingConfig(epochs=1, batch=48, seed=seed)
        return np.asarray(
            train(module, images, labels, config=config)["params"]["logits"]["kernel"]
        )

    np.testing.assert_array_equal(kernel(0), kernel(0))
    assert not np.array_equal(kernel(0), kernel(1))


def test_flip_and_crop_moves_whole_images() -> None:
    images = np.random.RandomState(0).randint(1, 256, (64, 6, 5, 2)).astype(np.uint8)
    moved = np.asarray(flip_and_crop(jax.random.key(0), jnp.asarray(images), pad=2))
    assert moved.dtype == np.uint8
    found = set()
    for image, result in zip(images, moved, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        mirrored = np.pad(image[:, ::-1], ((2, 2), (2, 2), (0, 0)))
        matches = {
            (flip, i, j)
            for flip, whole in enumerate((padded, mirrored))
            for i in range(5)
            for j in range(5)
            if np.array_equal(whole[i : i + 6, j : j + 5], result)
        }
        assert len(matches) == 1
        found |= matches
    assert len(found) > 25


def test_refuses() -> None:
    images, labels = patterns(60)
    module = LeNet300(hidden=(4,), classes=3)
    with pytest.raises(QevoError, match="one batch of 128, not 60 images and 60 labels"):
        train(module, images, labels)
    with pytest.raises(QevoError, match="as many labels as images"):
        train(module, images, labels[:9], config=TrainingConfig(batch=8))
    for config, message in (
        (TrainingConfig(epochs=0, batch=8), "at least 1, got 0 and 8"),
        (TrainingConfig(batch=0), "at least 1, got 20 and 0"),
        (TrainingConfig(batch=8, warmup=1.0), r"warmup .* got 1\.0"),
    ):
        with pytest.raises(QevoError, match=message):
            train(module, images, labels, config=config)
    diverging = TrainingConfig(epochs=2, batch=8, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(QevoError, match="training diverged"):
        train(module, images, labels, config=diverging)
    unknown: Any = "lion"
    bad = TrainingConfig(batch=8, optimizer=unknown)
    with pytest.raises(QevoError, match="optimizer must be"):
        train(module, images, labels, config=bad)
    integer = module.clone(numerics=Integer({}, {}))
    with pytest.raises(QevoError, match="Float numerics"):
        train(integer, images, labels, config=TrainingConfig(batch=8))
