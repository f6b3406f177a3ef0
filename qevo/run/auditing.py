"""`qevo audit`: proof that the generation of a run holds no float."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax

from qevo.core.algorithm import Algorithm
from qevo.core.generation import Carry, Rules, first_carry, run_generation
from qevo.core.problem import Problem
from qevo.integer.audit import AuditReport, audit
from qevo.nets.integer_numerics import Arithmetic
from qevo.run import folder as files
from qevo.run.console import console, say
from qevo.run.networks import network_of
from qevo.run.preparation import kept_targets, load_data
from qevo.run.searching import machine_plan, stage_problem, stages


def audit_run(path: pathlib.Path, *, arithmetic: Arithmetic | None = None) -> bool:
    """Audit one generation of every search stage of a run; print the reports.

    With the run's own arithmetic by default. Returns whether no stage holds a float at all or, with
    "fast", outside proved exact products.

    Raises:
      QevoError: the folder is no finished run, or its data is not there.
    """
    here = path.resolve()  # a run folder may have been moved
    config = files.read_config(path)
    arithmetic = arithmetic or config.arithmetic
    config = dataclasses.replace(config, runs=here.parent, name=here.name, arithmetic=arithmetic)
    data = load_data(config)
    network = network_of(path / files.NETWORK)
    targets = kept_targets(config, data)
    machine = machine_plan(config, data, network)
    clean = True
    for stage in stages(config):
        problem = stage_problem(config, data, network, targets, stage.genes, machine)
        report = audit_generation(stage.algorithm(problem.space), problem)
        console.print(f"[bold]{stage.name}[/]: one generation, arithmetic={arithmetic!r}")
        say(str(report))
        clean &= report.integer_only if arithmetic == "int" else report.ok
    return clean


def audit_generation(algorithm: Algorithm, problem: Problem) -> AuditReport:
    """Audit draw, edit, evaluate, select, update and accept of one generation."""
    key = jax.random.key(0)
    carry = first_carry(algorithm, problem, key)

    def generation(problem: Problem, key: jax.Array, carry: Carry) -> Any:
        return run_generation(
            algorithm, problem, key, carry, rules=Rules(generations=1), chunk=1, mesh=None
        )

    return audit(generation, problem, key, carry)
