"""From float to integer networks: training, importing, calibration, rounding and its baselines."""

from qevo.quantize.baselines import GPTQ, AdaRound, BestOfN, best_of_n
from qevo.quantize.bits import bits_per_layer
from qevo.quantize.calibration import calibrate
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.detector_training import Jitter, train_detector
from qevo.quantize.evolutionary import EvolutionaryRounding
from qevo.quantize.folding import fold_batch_norm
from qevo.quantize.importing import fit_arrays, read_arrays, trace
from qevo.quantize.layerwise import LayerwiseFit
from qevo.quantize.methods import quantize_network, round_network
from qevo.quantize.outputs import accuracy, float_logits, soft_labels
from qevo.quantize.pruning import removal_costs
from qevo.quantize.published import load_published, load_resnet8, load_resnet_cifar
from qevo.quantize.sparse import SparseFit, SparsityCost, sparsity_costs
from qevo.quantize.training import TrainingConfig, flip_and_crop, train, train_autoencoder

__all__ = [
    "GPTQ",
    "AdaRound",
    "BestOfN",
    "EvolutionaryRounding",
    "FloatTeacher",
    "Jitter",
    "LayerwiseFit",
    "SparseFit",
    "SparsityCost",
    "TrainingConfig",
    "accuracy",
    "best_of_n",
    "bits_per_layer",
    "calibrate",
    "fit_arrays",
    "flip_and_crop",
    "float_logits",
    "fold_batch_norm",
    "load_published",
    "load_resnet8",
    "load_resnet_cifar",
    "quantize_network",
    "read_arrays",
    "removal_costs",
    "round_network",
    "soft_labels",
    "sparsity_costs",
    "trace",
    "train",
    "train_autoencoder",
    "train_detector",
]
