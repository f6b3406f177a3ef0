"""qevo: evolve integer neural networks in JAX, and search over integers in general.

Shapes are named the same everywhere: P population, G positions in a proposal, N genes in all, L
levels, B images in a batch, C classes or channels, K fan-in, S subgroups.
"""

import importlib.metadata

from qevo.algorithms.coevolution import Coevolution, CoevolutionConfig
from qevo.algorithms.eda import EDA, EDAConfig
from qevo.algorithms.genetic import Genetic, GeneticConfig
from qevo.algorithms.minimize import minimize
from qevo.algorithms.random_search import RandomSearch, RandomSearchConfig
from qevo.algorithms.shift_es import ShiftConfig, ShiftES
from qevo.algorithms.vote_es import VoteConfig, VoteES
from qevo.compress.container import load
from qevo.core.algorithm import Algorithm
from qevo.core.evolve import Result, evolve
from qevo.core.hosts import Hosts, connected
from qevo.core.problem import FunctionProblem, Problem
from qevo.core.proposal import Proposal
from qevo.core.search import Found, search
from qevo.core.space import Leaf, Space
from qevo.errors import QevoError
from qevo.integer.audit import AuditReport, audit
from qevo.nets.network import QuantizedNetwork
from qevo.problems.network import NetworkProblem
from qevo.quantize.methods import quantize_network

__version__ = importlib.metadata.version("qevo")

__all__ = [
    "EDA",
    "Algorithm",
    "AuditReport",
    "Coevolution",
    "CoevolutionConfig",
    "EDAConfig",
    "Found",
    "FunctionProblem",
    "Genetic",
    "GeneticConfig",
    "Hosts",
    "Leaf",
    "NetworkProblem",
    "Problem",
    "Proposal",
    "QevoError",
    "QuantizedNetwork",
    "RandomSearch",
    "RandomSearchConfig",
    "Result",
    "ShiftConfig",
    "ShiftES",
    "Space",
    "VoteConfig",
    "VoteES",
    "audit",
    "connected",
    "evolve",
    "load",
    "minimize",
    "quantize_network",
    "search",
]
