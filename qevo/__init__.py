"""qevo: evolve integer neural networks in JAX, and search over integers in general.

Shapes are named the same everywhere: P population, G positions in a proposal, N genes in all, L
levels, B images in a batch, C classes or channels, K fan-in, S subgroups.
"""

import importlib.metadata

from qevo.algorithms.coevolution import Coevolution, CoevolutionConfig
from qevo.core.algorithm import Algorithm
from qevo.core.evolve import Result, evolve
from qevo.core.hosts import Hosts, connected
from qevo.core.problem import FunctionProblem, Problem
from qevo.core.proposal import Proposal
from qevo.core.space import Leaf, Space
from qevo.errors import QevoError
from qevo.integer.audit import AuditReport, audit
from qevo.nets.file import load
from qevo.nets.network import QuantizedNetwork
from qevo.problems.network import NetworkProblem
from qevo.quantize.methods import quantize_network

__version__ = importlib.metadata.version("qevo")

__all__ = [
    "Algorithm",
    "AuditReport",
    "Coevolution",
    "CoevolutionConfig",
    "FunctionProblem",
    "Hosts",
    "Leaf",
    "NetworkProblem",
    "Problem",
    "Proposal",
    "QevoError",
    "QuantizedNetwork",
    "Result",
    "Space",
    "audit",
    "connected",
    "evolve",
    "load",
    "quantize_network",
]
