"""Fitness functions: network tasks and problems with a known answer."""

from qevo.problems.coloring import Coloring
from qevo.problems.files import ProblemKind, problem_kind, read_problem
from qevo.problems.genes import network_space
from qevo.problems.knapsack import Knapsack
from qevo.problems.maxcut import MaxCut
from qevo.problems.network import NetworkProblem
from qevo.problems.nk import NK
from qevo.problems.pbo import PBO
from qevo.problems.qubo import QUBO
from qevo.problems.sat import SAT
from qevo.problems.traps import Trap

__all__ = [
    "NK",
    "PBO",
    "QUBO",
    "SAT",
    "Coloring",
    "Knapsack",
    "MaxCut",
    "NetworkProblem",
    "ProblemKind",
    "Trap",
    "network_space",
    "problem_kind",
    "read_problem",
]
