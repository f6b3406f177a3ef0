"""From float to integer networks: training, calibration, scales, rounding, layer-wise fit."""

from qevo.quantize.baselines import BestOfN, best_of_n
from qevo.quantize.bits import bits_per_layer
from qevo.quantize.calibration import calibrate
from qevo.quantize.convert import FloatTeacher, float_logits, quantize_network
from qevo.quantize.folding import fold_batch_norm
from qevo.quantize.layerwise import LayerwiseFit
from qevo.quantize.published import load_published, load_resnet8, load_resnet_cifar
from qevo.quantize.training import TrainingConfig, flip_and_crop, train

__all__ = [
    "BestOfN",
    "FloatTeacher",
    "LayerwiseFit",
    "TrainingConfig",
    "best_of_n",
    "bits_per_layer",
    "calibrate",
    "flip_and_crop",
    "float_logits",
    "fold_batch_norm",
    "load_published",
    "load_resnet8",
    "load_resnet_cifar",
    "quantize_network",
    "train",
]
