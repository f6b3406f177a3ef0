"""A file of published weights is known by the names in it."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.nets import VGG16, ResNet8, ResNet20, ResNet56
from qevo.quantize import load_published
from qevo.quantize.published import published_scaling


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "made"),
    [
        ("resnet8_cifar10/resnet8_cifar10_f32_keras_names.npz", ResNet8),
        ("resnet_cifar10/resnet20_cifar10_f32.npz", ResNet20),
        ("resnet_cifar10/resnet56_cifar10_f32.npz", ResNet56),
        ("resnet_cifar10/resnet20-12fca82f.th", ResNet20),
    ],
)
def test_any_name_will_do(file: str, made: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some.npz"
    shutil.copy(pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / file, path)
    module, _ = load_published(path)
    assert type(module) is made
    assert module.numerics.scaling == published_scaling(made())


def test_refuses(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(QevoError, match=r"some\.npz: no published weights.*'images', 'labels'"):
        load_published(path)
    with pytest.raises(QevoError, match=r"VGG16 has no published weights.*ResNet8, ResNet20"):
        published_scaling(VGG16())
