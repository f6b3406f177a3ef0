"""Float networks: trained once, and how long that took is known later too."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import tiny

from qevo.data import load
from qevo.nets import LeNet300


def test_a_network_is_trained_once_with_its_seconds(tmp_path: pathlib.Path) -> None:
    import float_networks

    data = load(str(tiny.write_blobs(tmp_path / "blobs.npz")), seed=0)
    module = LeNet300(hidden=(6,), classes=len(data.classes))
    options = {"epochs": 1, "weight_decay": 0.0, "seed": 3}
    first, again = (
        float_networks.trained_classifier(module, data, tmp_path, **options) for _ in range(2)
    )
    assert first.seconds > 0
    assert again.seconds == first.seconds
    jax.tree.map(np.testing.assert_array_equal, first.variables, again.variables)

    (tmp_path / "seconds.json").unlink()
    assert float_networks.trained_classifier(module, data, tmp_path, **options).seconds is None


def test_caffes_lenet_5_has_its_parameters() -> None:
    import float_networks

    module = float_networks.caffe_lenet_5()
    images = np.zeros((1, 28, 28, 1), np.uint8)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 431_080
