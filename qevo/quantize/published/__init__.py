"""Published float weights, brought into the tree of our architectures."""

from qevo.quantize.published.recognize import load_published, published_scaling
from qevo.quantize.published.resnet8 import load_resnet8
from qevo.quantize.published.resnet_cifar import load_resnet_cifar

__all__ = ["load_published", "load_resnet8", "load_resnet_cifar", "published_scaling"]
