"""Which published network a file holds."""

from __future__ import annotations

import os
from typing import Any

from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.images import IMAGENET_PIXELS, RAW_PIXELS, PixelScaling
from qevo.nets.resnet import ResNet8, ResNet20, ResNet32, ResNet56
from qevo.quantize.published.archive import Archive
from qevo.quantize.published.resnet8 import load_resnet8
from qevo.quantize.published.resnet_cifar import load_resnet_cifar

_LOADERS = {"dense.kernel": load_resnet8, "linear.weight": load_resnet_cifar}
_SCALINGS: dict[type[nn.Module], PixelScaling] = {
    ResNet8: RAW_PIXELS,
    ResNet20: IMAGENET_PIXELS,
    ResNet32: IMAGENET_PIXELS,
    ResNet56: IMAGENET_PIXELS,
}


def load_published(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The network that a file of published weights holds, recognised by the names of its arrays.

    Returns:
      As `load_resnet8` or `load_resnet_cifar`, whichever the names belong to.

    Raises:
      QevoError: if they belong to neither, or as those two.
    """
    names = Archive(path, "published weights").names
    for name, loader in _LOADERS.items():
        if name in names:
            return loader(path)
    raise QevoError(
        f"{path}: no published weights: an array {' or '.join(map(repr, _LOADERS))} would say"
        f" which; there are {sorted(names)[:4]}"
    )


def published_scaling(module: nn.Module) -> PixelScaling:
    """What the published network of an architecture does to a pixel.

    Raises:
      QevoError: if there is none.
    """
    if type(module) not in _SCALINGS:
        known = ", ".join(kind.__name__ for kind in _SCALINGS)
        raise QevoError(
            f"{type(module).__name__} has no published weights that qevo reads; {known} have"
        )
    return _SCALINGS[type(module)]
