"""Search algorithms, one file each."""

from qevo.algorithms.coevolution import Coevolution, CoevolutionConfig, CoevolutionState
from qevo.algorithms.least_squares import Columns, ColumnSearch, evolve_columns, integer_columns
from qevo.algorithms.shift_es import ShiftConfig, ShiftES, ShiftState

__all__ = [
    "Coevolution",
    "CoevolutionConfig",
    "CoevolutionState",
    "ColumnSearch",
    "Columns",
    "ShiftConfig",
    "ShiftES",
    "ShiftState",
    "evolve_columns",
    "integer_columns",
]
