"""Fitness functions: network tasks and problems with a known answer."""

from qevo.problems.genes import network_space
from qevo.problems.network import NetworkProblem

__all__ = ["NetworkProblem", "network_space"]
