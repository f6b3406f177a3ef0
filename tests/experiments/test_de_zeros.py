"""What shares of zeros are shares of, counted by hand."""

from __future__ import annotations

import jax
import pytest

from qevo.data import load
from qevo.nets import LeNet5


def test_multiplications_and_weights_of_a_network() -> None:
    import de_zeros
    from classifier import Classifier

    module = LeNet5(channels=(2, 3), hidden=(7,), padding="VALID")
    data = load("fashion_mnist_small")
    variables = module.init(jax.random.key(0), data.search.images[:1])
    config = de_zeros.Config(calibration=8)
    found = Classifier(config, config.bits, data, module, variables)
    assert list(found.sizes.values()) == [5 * 5 * 2, 5 * 5 * 2 * 3, 48 * 7, 7 * 10]
    assert list(found.multiplications.values()) == [
        24 * 24 * (5 * 5 * 2),
        8 * 8 * (5 * 5 * 2 * 3),
        48 * 7,
        7 * 10,
    ]
    names = list(found.sizes)
    half = dict.fromkeys(names, 0.5)
    assert de_zeros.overall(half, found.sizes) == pytest.approx(0.5)
    one = dict.fromkeys(names, 0.0) | {names[2]: 1.0}
    assert de_zeros.overall(one, found.sizes) == pytest.approx(336 / 606)
    assert de_zeros.overall(one, found.multiplications) == pytest.approx(336 / 38_806)


def test_every_kind_of_zeros_has_a_record_of_its_own() -> None:
    import de_zeros

    def name(**settings: object) -> str:
        return de_zeros.name_of(de_zeros.Config(**settings))

    assert name() == "lenet_5"
    assert name(pattern=(2, 4)) == "lenet_5_2_of_4"
    assert name(pattern="filters", count="multiplications") == "lenet_5_filters_multiplications"
