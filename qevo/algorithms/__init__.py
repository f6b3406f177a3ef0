"""Search algorithms, one file each."""

from qevo.algorithms.annealing import Annealing, AnnealingConfig
from qevo.algorithms.coevolution import Coevolution, CoevolutionConfig, CoevolutionState
from qevo.algorithms.directed import (
    Directed,
    DirectedConfig,
    DirectedState,
    integer_importance,
)
from qevo.algorithms.eda import EDA, EDAConfig, EDAState
from qevo.algorithms.focused import FocusedConfig, FocusedSearch
from qevo.algorithms.genetic import Genetic, GeneticConfig, GeneticState
from qevo.algorithms.least_squares import Columns, ColumnSearch, evolve_columns, integer_columns
from qevo.algorithms.local_search import ChainConfig, ChainState, LocalSearch
from qevo.algorithms.memetic import Memetic, MemeticConfig, MemeticState
from qevo.algorithms.minimize import default_algorithm, minimize
from qevo.algorithms.random_search import RandomSearch, RandomSearchConfig, RandomSearchState
from qevo.algorithms.shift_es import ShiftConfig, ShiftES, ShiftState
from qevo.algorithms.tabu import TabuConfig, TabuSearch
from qevo.algorithms.vote_es import VoteConfig, VoteES, VoteState

__all__ = [
    "EDA",
    "Annealing",
    "AnnealingConfig",
    "ChainConfig",
    "ChainState",
    "Coevolution",
    "CoevolutionConfig",
    "CoevolutionState",
    "ColumnSearch",
    "Columns",
    "Directed",
    "DirectedConfig",
    "DirectedState",
    "EDAConfig",
    "EDAState",
    "FocusedConfig",
    "FocusedSearch",
    "Genetic",
    "GeneticConfig",
    "GeneticState",
    "LocalSearch",
    "Memetic",
    "MemeticConfig",
    "MemeticState",
    "RandomSearch",
    "RandomSearchConfig",
    "RandomSearchState",
    "ShiftConfig",
    "ShiftES",
    "ShiftState",
    "TabuConfig",
    "TabuSearch",
    "VoteConfig",
    "VoteES",
    "VoteState",
    "default_algorithm",
    "evolve_columns",
    "integer_columns",
    "integer_importance",
    "minimize",
]
