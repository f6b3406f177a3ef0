"""Fitness functions: network tasks and problems with a known answer."""

from qevo.problems.network import NetworkProblem, network_space

__all__ = ["NetworkProblem", "network_space"]
