"""The full data sets: counts, splits and bytes as published."""

import hashlib

import numpy as np
import pytest

from qevo import data

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("name", "search", "shape", "test_sha256"),
    [
        (
            "mnist",
            55_000,
            (28, 28, 1),
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        ),
        (
            "fashion_mnist",
            55_000,
            (28, 28, 1),
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        ),
        (
            "cifar10",
            45_000,
            (32, 32, 3),
            "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        ),
    ],
)
def test_full_set(name: str, search: int, shape: tuple[int, ...], test_sha256: str) -> None:
    found = data.load(name, seed=0)
    for split, n in ((found.search, search), (found.validation, 5_000), (found.test, 10_000)):
        assert split.images.shape == (n, *shape)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
    shares = [np.bincount(s.labels) / len(s) for s in (found.search, found.validation)]
    assert np.abs(shares[0] - shares[1]).max() < 1 / 5_000
    planes = found.test.images.transpose(0, 3, 1, 2).tobytes()  # the order of the original files
    assert hashlib.sha256(planes).hexdigest() == test_sha256


def test_cifar10_is_not_upside_down_or_recoloured() -> None:
    """Frogs are greener than the sky-blue ships, and a ship's sky is above its water."""
    found = data.load("cifar10")
    images, labels = found.test.images.astype(np.float64), found.test.labels
    frog, ship = (
        images[labels == found.classes.index(name)].mean((0, 1, 2)) for name in ("frog", "ship")
    )
    assert ship[2] - ship[0] > 0 > frog[2] - frog[0]
    ships = images[labels == found.classes.index("ship")].mean((0, 2, 3))
    assert ships[:8].mean() > ships[24:].mean()
