"""An autoencoder of one class of clothes: trained, rounded in every way, kept, and scored."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from flax import linen as nn

from qevo import load as load_network
from qevo.data import Dataset, load, one_class
from qevo.errors import QevoError
from qevo.nets import (
    Autoencoder,
    FixedImages,
    Float,
    LeNet300,
    Numerics,
    QuantizedNetwork,
    reconstruction_errors,
)
from qevo.quantize import (
    AdaRound,
    EvolutionaryRounding,
    FloatTeacher,
    TrainingConfig,
    best_of_n,
    float_logits,
    round_network,
    train_autoencoder,
)
from qevo.quantize.sensitivity import layer_costs
from qevo.report import roc_curve

MODULE = Autoencoder(widths=(6, 8), code=3)


class Blur(nn.Module):
    """The least network that returns images."""

    numerics: Numerics = Float()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        return self.numerics.image(self.numerics.input(images), 1, name="image")


class Trained(NamedTuple):
    data: Dataset
    variables: Any
    log: list[dict[str, float]]
    teacher: FloatTeacher


@pytest.fixture(scope="module")
def trained() -> Trained:
    data = one_class(load("fashion_mnist_small"), 1)
    log: list[dict[str, float]] = []
    config = TrainingConfig(epochs=6, batch=32, learning_rate=1e-2, weight_decay=0.0)
    variables = train_autoencoder(
        MODULE,
        data.search.images,
        data.validation.images,
        config=config,
        progress=lambda _, means: log.append(dict(means)),
    )
    return Trained(data, variables, log, FloatTeacher(MODULE, variables, data.search.images[:100]))


def float_error(variables: Any, images: np.ndarray) -> float:
    return float(np.square(float_logits(MODULE, variables, images) - images / 255).mean())


def test_training_lowers_the_error_and_keeps_the_best_epoch(trained: Trained) -> None:
    held_out = [means["held_out"] for means in trained.log]
    assert held_out[-1] < 0.5 * held_out[0]
    assert trained.log[-1]["loss"] < 0.5 * trained.log[0]["loss"]
    error = float_error(trained.variables, trained.data.validation.images)
    assert error == pytest.approx(min(held_out), rel=1e-4)
    blank = np.square(trained.data.validation.images / 255).mean()
    assert error < 0.2 * blank


def test_training_stops_early() -> None:
    draw = np.random.RandomState(0)
    images, held_out = (draw.randint(0, 256, (32, 8, 8, 1)).astype(np.uint8) for _ in range(2))
    log: list[float] = []
    config = TrainingConfig(epochs=60, batch=16, learning_rate=0.3)
    variables = train_autoencoder(
        Blur(),
        images,
        held_out,
        config=config,
        patience=2,
        progress=lambda _, means: log.append(means["held_out"]),
    )
    assert len(log) == int(np.argmin(log)) + 1 + 2 < 60
    error = np.square(float_logits(Blur(), variables, held_out) - held_out / 255).mean()
    assert error == pytest.approx(min(log), rel=1e-4)


@pytest.fixture(scope="module")
def rounded(trained: Trained) -> dict[str, QuantizedNetwork]:
    """Ternary, by the methods that compile nothing for each layer."""
    methods: tuple[Any, ...] = ("nearest", "gptq", "layerwise")
    return {
        method: round_network(trained.teacher, bits="ternary", method=method) for method in methods
    }


def error_of(network: QuantizedNetwork, trained: Trained) -> float:
    errors = reconstruction_errors(network, trained.data.validation.images)
    return FixedImages.of(network).mean(errors)


def test_quality_of_the_methods(trained: Trained, rounded: dict[str, QuantizedNetwork]) -> None:
    """In the order that they have for classifiers."""
    error = {name: error_of(network, trained) for name, network in rounded.items()}
    real = float_error(trained.variables, trained.data.validation.images)
    assert error["nearest"] > 1.5 * error["gptq"] > 1.5 * error["layerwise"]
    assert real < error["layerwise"] < 2.5 * real
    eight = round_network(trained.teacher, bits=8)
    assert error_of(eight, trained) == pytest.approx(real, rel=0.02)
    assert trained.teacher.divergence(eight) < 1e-4 < trained.teacher.divergence(rounded["gptq"])


@pytest.mark.slow
def test_methods_that_compile_for_each_layer(
    trained: Trained, rounded: dict[str, QuantizedNetwork]
) -> None:
    learned, evolved = (
        round_network(trained.teacher, bits="ternary", method=method)
        for method in (AdaRound(iterations=300), EvolutionaryRounding())
    )
    assert error_of(learned, trained) < error_of(rounded["nearest"], trained)
    assert error_of(evolved, trained) < 1.1 * error_of(rounded["layerwise"], trained)


def test_best_of_n_is_the_draw_next_to_the_teacher(trained: Trained) -> None:
    found = best_of_n(trained.teacher, bits=3, draws=3)
    assert trained.teacher.divergence(found.network) == found.scores.min()
    labels = np.zeros(100, np.int32)
    with pytest.raises(QevoError, match="labels are for logits"):
        best_of_n(trained.teacher, bits=3, labels=labels)


def test_scores_tell_anomalies_apart(
    trained: Trained, rounded: dict[str, QuantizedNetwork], tmp_path: pathlib.Path
) -> None:
    """Trousers from all else; the network as it comes back from its file."""
    test = trained.data.test
    rounded["layerwise"].save(tmp_path / "network.safetensors")
    network = load_network(tmp_path / "network.safetensors")
    assert isinstance(network.module, Autoencoder)
    scores = reconstruction_errors(network, test.images)
    np.testing.assert_array_equal(scores, reconstruction_errors(rounded["layerwise"], test.images))
    assert roc_curve(scores, test.labels).auc > 0.85
    fixed = FixedImages.of(network)
    real = fixed.from_real(float_logits(MODULE, trained.variables, test.images))
    assert roc_curve(reconstruction_errors(network, test.images, real), test.labels).auc > 0.85


def test_layers_have_a_cost(trained: Trained, rounded: dict[str, QuantizedNetwork]) -> None:
    costs = layer_costs(trained.teacher, {"nearest": rounded["nearest"]})
    assert list(costs) == ["down_0", "down_1", "code", "up_0", "up_1", "image"]
    assert all(cost["nearest"].sensitivity > 0 for cost in costs.values())


def test_refuses() -> None:
    images = np.zeros((40, 18, 16, 1), np.uint8)
    config = TrainingConfig(batch=8)
    with pytest.raises(QevoError, match=r"Autoencoder makes \[20, 16, 1\] of images \[18, 16, 1\]"):
        train_autoencoder(MODULE, images, images, config=config)
    with pytest.raises(QevoError, match=r"LeNet300 makes \[10\] of images"):
        train_autoencoder(LeNet300(), images, images, config=config)
    for held_out, patience in ((images[:0], 5), (images, 0)):
        with pytest.raises(QevoError, match="one held out and a patience of 1"):
            train_autoencoder(MODULE, images, held_out, config=config, patience=patience)
    with pytest.raises(QevoError, match="at least one batch of 128 images"):
        train_autoencoder(MODULE, images, images)
