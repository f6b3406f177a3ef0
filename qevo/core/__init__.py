"""The search kernel: spaces, proposals, algorithms, problems and the loop; it knows no networks."""

from qevo.core.algorithm import Algorithm, rank_weights
from qevo.core.counting import count_ones
from qevo.core.evolve import Result, evolve
from qevo.core.evosax_rounding import RoundedProblem
from qevo.core.hosts import Hosts, connected
from qevo.core.problem import FunctionProblem, Problem
from qevo.core.proposal import Proposal
from qevo.core.search import Found, search
from qevo.core.space import Leaf, Space

__all__ = [
    "Algorithm",
    "Found",
    "FunctionProblem",
    "Hosts",
    "Leaf",
    "Problem",
    "Proposal",
    "Result",
    "RoundedProblem",
    "Space",
    "connected",
    "count_ones",
    "evolve",
    "rank_weights",
    "search",
]
