"""Modules that are not written as a network must be, and data that do not fit: what is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

import qevo
from qevo import QevoError
from qevo.nets import Float, Numerics
from qevo.quantize import TrainingConfig, train

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (16, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(16) % 3
CONFIG = TrainingConfig(epochs=1, batch=8)


class Net(nn.Module):
    body: Callable[[Any, Any], Any]
    numerics: Numerics = Float()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        return self.body(self.numerics, images)


def whole(n: Any, images: Any) -> Any:
    return n.logits(n.flatten(n.input(images)), 3, name="out")


def no_input(n: Any, images: Any) -> Any:
    return n.logits(n.flatten(images), 3, name="out")


def no_head(n: Any, images: Any) -> Any:
    return n.dense(n.flatten(n.input(images)), 3, name="out")


def other_operation(n: Any, images: Any) -> Any:
    x = n.dense(n.flatten(n.input(images)), 4, name="hidden")
    return n.logits(nn.relu(x), 3, name="out")


def no_flatten(n: Any, images: Any) -> Any:
    return n.logits(n.conv(n.input(images), 2, (3, 3), name="conv"), 3, name="out")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (no_input, "Net must begin with n.input"),
        (no_head, "Net must end with n.logits, n.image or n.map, and not with out"),
        (other_operation, "compute with nothing but operations of n"),
    ],
)
def test_what_is_no_network_is_said(body: Callable[[Any, Any], Any], message: str) -> None:
    module = Net(body)
    variables = module.init(jax.random.key(0), IMAGES[:1])
    with pytest.raises(QevoError, match=message):
        qevo.quantize_network(module, variables, IMAGES, bits=4)


def test_weights_that_are_no_numbers() -> None:
    module = Net(whole)
    variables = jax.tree.map(lambda x: x * np.nan, module.init(jax.random.key(0), IMAGES[:1]))
    with pytest.raises(QevoError, match="params/out/bias holds NaN or infinity"):
        qevo.quantize_network(module, variables, IMAGES, bits=4)


@pytest.mark.parametrize(
    ("body", "images", "labels", "message"),
    [
        (whole, IMAGES / 255, LABELS, "uint8 [n, H, W, C] of 0 to 255, not float64 [16, 4, 4, 1]"),
        (whole, IMAGES[..., 0], LABELS, "not uint8 [16, 4, 4]"),
        (whole, IMAGES, LABELS + 1, "0 to 2 for a network of 3 classes, not 1 to 3"),
        (whole, IMAGES, np.eye(3)[LABELS], "integers [n], one class an image, not float64 [16, 3]"),
        (no_flatten, IMAGES, LABELS, "Net gives [4, 4, 3] for an image, and training needs logits"),
    ],
)
def test_training_refuses(body: Any, images: Any, labels: Any, message: str) -> None:
    with pytest.raises(QevoError, match=re.escape(message)):
        train(Net(body), images, labels, config=CONFIG)


def test_no_images_give_no_outputs() -> None:
    module = Net(whole)
    variables = module.init(jax.random.key(0), IMAGES[:1])
    network = qevo.quantize_network(module, variables, IMAGES, bits=4)
    assert network(IMAGES[:0]).shape == (0, 3)


def leaking_sum(n: Any, images: Any) -> Any:
    x = n.dense(n.flatten(n.input(images)), 4, name="left")
    y = n.dense(x, 4, name="right")
    return n.logits(n.add(x, y, activation="leaky", name="sum"), 3, name="out")


def test_a_sum_that_leaks() -> None:
    with pytest.raises(QevoError, match="sum: a sum cannot leak"):
        Net(leaking_sum).init(jax.random.key(0), IMAGES[:1])
