"""Search algorithms, one file each."""

from qevo.algorithms.coevolution import Coevolution, CoevolutionConfig, CoevolutionState
from qevo.algorithms.eda import EDA, EDAConfig, EDAState
from qevo.algorithms.genetic import Genetic, GeneticConfig, GeneticState
from qevo.algorithms.least_squares import Columns, ColumnSearch, evolve_columns, integer_columns
from qevo.algorithms.minimize import default_algorithm, minimize
from qevo.algorithms.random_search import RandomSearch, RandomSearchConfig, RandomSearchState
from qevo.algorithms.shift_es import ShiftConfig, ShiftES, ShiftState
from qevo.algorithms.vote_es import VoteConfig, VoteES, VoteState

__all__ = [
    "EDA",
    "Coevolution",
    "CoevolutionConfig",
    "CoevolutionState",
    "ColumnSearch",
    "Columns",
    "EDAConfig",
    "EDAState",
    "Genetic",
    "GeneticConfig",
    "GeneticState",
    "RandomSearch",
    "RandomSearchConfig",
    "RandomSearchState",
    "ShiftConfig",
    "ShiftES",
    "ShiftState",
    "VoteConfig",
    "VoteES",
    "VoteState",
    "default_algorithm",
    "evolve_columns",
    "integer_columns",
    "minimize",
]
