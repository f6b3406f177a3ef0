"""The CIFAR-10 ResNets of He et al., in torch names and layouts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.images import IMAGENET_PIXELS
from qevo.nets.resnet import ResNet20, ResNet32, ResNet56
from qevo.quantize.published.archive import Archive, batch_norm
from qevo.quantize.variables import variable_shapes

_EPSILON = 1e-5
_BY_BLOCKS = {3: ResNet20, 5: ResNet32, 9: ResNet56}


def load_resnet_cifar(path: str | os.PathLike[str]) -> tuple[ResNet20, dict[str, Any]]:
    """A float ResNet-20, -32 or -56 for CIFAR-10, from a file with its torch names.

    Of github.com/akamaster/pytorch_resnet_cifar10 (Idelbayev): shortcut A, kernels OIHW, pixels
    normalised as torchvision's networks for ImageNet have them.

    Returns:
      The architecture of the file's depth with that pixel rule, and its variables.

    Raises:
      QevoError: if the file does not exist or cannot be read, has another depth, or an array is
        missing, left over, of another shape, or not finite.
    """
    archive = Archive(path, "a ResNet for CIFAR-10")
    blocks = len({name.split(".")[1] for name in archive.names if name.startswith("layer1.")})
    if blocks not in _BY_BLOCKS:
        raise QevoError(
            f"{path}: a ResNet-20, -32 or -56 has 3, 5 or 9 blocks layer1.i; found {blocks}"
        )
    module = _BY_BLOCKS[blocks](Float(scaling=IMAGENET_PIXELS))
    shape = variable_shapes(module, (32, 32, 3))
    flat: dict[str, np.ndarray] = {}
    for layer, conv, norm in _layers(blocks):
        height, width, inputs, features = shape[f"params/{layer}/kernel"]
        kernel = archive.take(f"{conv}.weight", (features, inputs, height, width))
        flat[f"params/{layer}/kernel"] = kernel.transpose(2, 3, 1, 0)
        flat |= batch_norm(
            layer,
            scale=archive.take(f"{norm}.weight", (features,)),
            bias=archive.take(f"{norm}.bias", (features,)),
            mean=archive.take(f"{norm}.running_mean", (features,)),
            variance=archive.take(f"{norm}.running_var", (features,)),
            epsilon=_EPSILON,
        )
    inputs, classes = shape["params/logits/kernel"]
    flat["params/logits/kernel"] = archive.take("linear.weight", (classes, inputs)).T
    flat["params/logits/bias"] = archive.take("linear.bias", (classes,))
    archive.finish()
    return module, unflatten_dict(flat, sep="/")


def _layers(blocks: int) -> Iterator[tuple[str, str, str]]:
    """Our name of each convolution, and torch's of it and of its batch norm."""
    yield "stem", "conv1", "bn1"
    for i in range(3):
        for j in range(blocks):
            for k in range(2):
                block = f"layer{i + 1}.{j}"
                yield f"block_{i}_{j}/conv_{k}", f"{block}.conv{k + 1}", f"{block}.bn{k + 1}"
