"""Published float networks for CIFAR-10, for the scripts beside it."""

from __future__ import annotations

import os
import pathlib

FOLDER = pathlib.Path(os.environ.get("QEVO_DATA_DIR", ".")) / "weights"
PUBLISHED = {
    "resnet_8": FOLDER / "resnet8_cifar10" / "resnet8_cifar10_f32_keras_names.npz",
    "resnet_20": FOLDER / "resnet_cifar10" / "resnet20_cifar10_f32.npz",
    "resnet_56": FOLDER / "resnet_cifar10" / "resnet56_cifar10_f32.npz",
}
