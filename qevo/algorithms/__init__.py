"""Search algorithms, one file each."""

from qevo.algorithms.coevolution import Coevolution, CoevolutionConfig, CoevolutionState

__all__ = ["Coevolution", "CoevolutionConfig", "CoevolutionState"]
