"""What evolution has to beat: other ways to round the same float network.

All of them take the calibration images, the activation scales and the biases that
`qevo.quantize.quantize_network` gives; nearest rounding is its ``method="nearest"``.
"""

from qevo.quantize.baselines.adaround import AdaRound
from qevo.quantize.baselines.best_of_n import BestOfN, best_of_n
from qevo.quantize.baselines.gptq import GPTQ

__all__ = ["GPTQ", "AdaRound", "BestOfN", "best_of_n"]
