"""What shares of zeros are shares of, counted by hand."""

from __future__ import annotations

import jax
import pytest

from qevo.data import load


def test_multiplications_and_weights_of_a_network() -> None:
    import de_zeros
    from classifier import Classifier
    from float_networks import caffe_lenet_5

    module = caffe_lenet_5()
    data = load("fashion_mnist_small")
    variables = module.init(jax.random.key(0), data.search.images[:1])
    config = de_zeros.Config(calibration=8)
    found = Classifier(config, config.bits, data, module, variables)
    assert list(found.sizes.values()) == [5 * 5 * 20, 5 * 5 * 20 * 50, 800 * 500, 500 * 10]
    assert list(found.multiplications.values()) == [
        24 * 24 * (5 * 5 * 20),
        8 * 8 * (5 * 5 * 20 * 50),
        800 * 500,
        500 * 10,
    ]
    names = list(found.sizes)
    half = dict.fromkeys(names, 0.5)
    assert de_zeros.overall(half, found.sizes) == pytest.approx(0.5)
    one = dict.fromkeys(names, 0.0) | {names[2]: 1.0}
    assert de_zeros.overall(one, found.sizes) == pytest.approx(400_000 / 430_500)
    assert de_zeros.overall(one, found.multiplications) == pytest.approx(400_000 / 2_293_000)


def test_every_kind_of_zeros_has_a_record_of_its_own() -> None:
    import de_zeros

    def name(**settings: object) -> str:
        return de_zeros.name_of(de_zeros.Config(**settings))

    assert name() == "lenet_5"
    assert name(pattern=(2, 4)) == "lenet_5_2_of_4"
    assert name(pattern="filters", count="multiplications") == "lenet_5_filters_multiplications"
