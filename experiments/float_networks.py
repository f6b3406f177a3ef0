"""Float networks that the scripts beside it begin with: published, or trained here and kept."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from printing import console

from qevo.data import Dataset
from qevo.nets import Autoencoder, LeNet5
from qevo.quantize import TrainingConfig, train, train_autoencoder
from qevo.run import folder as files

WEIGHTS = pathlib.Path(os.environ.get("QEVO_DATA_DIR", ".")) / "weights"
PUBLISHED = {  # for CIFAR-10
    "resnet_8": WEIGHTS / "resnet8_cifar10" / "resnet8_cifar10_f32_keras_names.npz",
    "resnet_20": WEIGHTS / "resnet_cifar10" / "resnet20_cifar10_f32.npz",
    "resnet_56": WEIGHTS / "resnet_cifar10" / "resnet56_cifar10_f32.npz",
}


class Trained(NamedTuple):
    """Variables of a network, and the seconds of the training, if its folder says them."""

    variables: Any
    seconds: float | None


def caffe_lenet_5() -> LeNet5:
    """What the compression literature calls LeNet-5: Caffe's, of 431,080 parameters."""
    return LeNet5(channels=(20, 50), hidden=(500,), padding="VALID")


def trained_classifier(
    module: nn.Module,
    data: Dataset,
    folder: pathlib.Path,
    *,
    epochs: int = 20,
    weight_decay: float = 0.3,
    seed: int,
) -> Trained:
    """The network kept in a run folder, trained on the search images if there is none."""
    training = TrainingConfig(
        epochs=epochs,
        batch=min(250, len(data.search)),
        learning_rate=2e-3,
        weight_decay=weight_decay,
        seed=seed,
    )
    images, labels = data.search.images, data.search.labels
    return _kept(folder, lambda: train(module, images, labels, config=training))


def trained_autoencoder(
    module: Autoencoder, data: Dataset, folder: pathlib.Path, *, epochs: int, seed: int
) -> Trained:
    """As `trained_classifier`, for reconstructions; held-out images choose the epoch."""
    search, held_out = data.search.images, data.validation.images
    training = TrainingConfig(
        epochs=epochs,
        batch=min(64, len(search)),
        learning_rate=3e-3,
        weight_decay=0.0,
        seed=seed,
    )
    return _kept(folder, lambda: train_autoencoder(module, search, held_out, config=training))


def _kept(folder: pathlib.Path, training: Callable[[], Any]) -> Trained:
    path, record = folder / files.TEACHER, folder / files.SECONDS
    if not path.exists():
        began = time.monotonic()
        with console.status("training"):
            variables = jax.block_until_ready(training())
        # First, so that no network is without its seconds.
        files.write_json(record, {"teacher": time.monotonic() - began})
        files.save_arrays(path, variables)
    seconds = files.read_json(record)["teacher"] if record.exists() else None
    return Trained(files.load_arrays(path), seconds)
