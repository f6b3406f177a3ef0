"""Architectures by name, for files and the command line."""

from __future__ import annotations

from collections.abc import Callable

from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.autoencoder import Autoencoder
from qevo.nets.lenet import LeNet5
from qevo.nets.mlp import LeNet300
from qevo.nets.resnet import ResNet, ResNet8, ResNet20, ResNet32, ResNet56
from qevo.nets.traced import Traced
from qevo.nets.vgg import VGG16

# Classifiers, which commands choose by name.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "lenet_300_100": LeNet300,
    "lenet_5": LeNet5,
    "resnet_8": ResNet8,
    "resnet_20": ResNet20,
    "resnet_32": ResNet32,
    "resnet_56": ResNet56,
    "vgg_16": VGG16,
}
# What a file may name: also what returns images, and what its fields alone describe.
STORED: dict[str, Callable[..., nn.Module]] = {
    **ARCHITECTURES,
    "resnet": ResNet,
    "autoencoder": Autoencoder,
    "traced": Traced,
}


def architecture(name: str, **fields: object) -> nn.Module:
    """The named architecture with the given fields, such as ``classes``.

    Raises:
      QevoError: for an unknown name, or a field that the architecture does not have.
    """
    if name not in STORED:
        raise QevoError(f"unknown architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    try:
        return STORED[name](**fields)
    except TypeError as error:
        raise QevoError(f"architecture {name}: {error}") from None
