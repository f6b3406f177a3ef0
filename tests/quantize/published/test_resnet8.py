"""MLPerf Tiny's ResNet-8, from its published float weights."""

from __future__ import annotations

import os
import pathlib

import jax
import numpy as np
import pytest

from qevo.data import load
from qevo.errors import QevoError
from qevo.nets import ResNet8
from qevo.quantize import float_logits, load_resnet8, quantize_network

FILE = "weights/resnet8_cifar10/resnet8_cifar10_f32_keras_names.npz"


@pytest.mark.data
def test_published_accuracy_in_float_and_at_8_bits() -> None:
    path = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / FILE
    module, variables = load_resnet8(path)
    wanted = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    assert jax.tree.map(lambda a: a.shape, variables) == jax.tree.map(lambda a: a.shape, wanted)
    data = load("cifar10")
    images, labels = data.test.images[:1000], data.test.labels[:1000]
    real = (float_logits(module, variables, images).argmax(-1) == labels).mean()
    assert real == pytest.approx(0.881, abs=0.0015)
    network = quantize_network(module, variables, data.search.images[:256], bits=8)
    assert (network(images).argmax(-1) == labels).mean() > real - 0.01


def test_refuses_other_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match="no such file"):
        load_resnet8(tmp_path / "none.npz")
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(QevoError, match=r"other\.npz: no array 'dense\.kernel'"):
        load_resnet8(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(QevoError, match=r"other\.npz: not a readable npz"):
        load_resnet8(path)
    path.write_text("text")
    with pytest.raises(QevoError, match="not a readable npz"):
        load_resnet8(path)


def test_takes_raw_pixels() -> None:
    assert ResNet8().shortcut_batch_norm is False
