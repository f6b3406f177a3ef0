"""Architectures written once, the numerics that run them, and quantized networks."""

from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.autoencoder import Autoencoder
from qevo.nets.file import load_safetensors, save_safetensors
from qevo.nets.fixed_maps import FixedMaps
from qevo.nets.float_numerics import Calibrating, Float
from qevo.nets.images import IMAGENET_PIXELS, RAW_PIXELS, UNIT_RANGE, PixelScaling
from qevo.nets.integer_numerics import Integer
from qevo.nets.lenet import LeNet5
from qevo.nets.mlp import LeNet300
from qevo.nets.network import QuantizedNetwork
from qevo.nets.numerics import Numerics, Product
from qevo.nets.reconstruction import FixedImages, reconstruct, reconstruction_errors
from qevo.nets.registry import ARCHITECTURES, architecture
from qevo.nets.resnet import ResNet, ResNet8, ResNet20, ResNet32, ResNet56
from qevo.nets.vgg import VGG16

__all__ = [
    "ARCHITECTURES",
    "IMAGENET_PIXELS",
    "RAW_PIXELS",
    "UNIT_RANGE",
    "VGG16",
    "Autoencoder",
    "Calibrating",
    "FixedImages",
    "FixedMaps",
    "Float",
    "Integer",
    "LayerArithmetic",
    "LeNet5",
    "LeNet300",
    "Numerics",
    "PixelScaling",
    "Product",
    "QuantizedNetwork",
    "ResNet",
    "ResNet8",
    "ResNet20",
    "ResNet32",
    "ResNet56",
    "architecture",
    "load_safetensors",
    "reconstruct",
    "reconstruction_errors",
    "save_safetensors",
]
