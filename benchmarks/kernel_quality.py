"""How many runs reach a known target, and how soon: ours beside each other and beside peers.

The chosen algorithm of a task has all seeds and seconds; the other algorithms and the peers have
fewer of both. So that all can be compared at equal time, the table says how many runs had reached
the target by the shorter limit as well. A seed is an instance too, where instances are random.
Compilation is not counted, save in the processor time that each run has in the file, which other
programs on the machine disturb less than the clock.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

from kernel_peers import PEERS
from kernel_tasks import ALGORITHMS, TASKS, WALKS
from rich.table import Table

from qevo.core.evolve import evolve
from qevo.core.problem import Problem

_FOREVER = 1 << 30  # generations; the clock or the target ends a run
_CALL = 20  # generations between looks at the clock, where one takes milliseconds


class Settings(Protocol):
    """The settings that this part reads."""

    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def peers(self) -> bool: ...
    @property
    def seeds(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def other_seeds(self) -> int: ...
    @property
    def peer_seeds(self) -> int: ...
    @property
    def peer_seconds(self) -> float: ...


def measure(config: Settings, say: Callable[[str], Any]) -> dict[str, Any]:
    """All tasks, each with its algorithms and the peers."""
    rows = []
    for name in config.tasks:
        task = TASKS[name]
        plan = [(task.chosen, "chosen", config.seeds, config.seconds)]
        plan += [(n, "other", config.other_seeds, config.peer_seconds) for n in task.others]
        if config.peers and task.peers:
            plan += [(n, "peer", config.peer_seeds, config.peer_seconds) for n in PEERS]
        instances: dict[int, Problem] = {}
        for contender, kind, seeds, seconds in plan:
            if kind == "peer" and importlib.util.find_spec(contender) is None:
                say(f"{contender} is not installed: pip install -e '.[bench]' in qevo's checkout")
                continue
            runs = []
            for seed in range(seeds):
                say(f"{task.title}: {contender}, seed {seed}")
                problem = instances.get(seed) or instances.setdefault(seed, task.make(seed))
                target = task.target(problem)
                runs.append(_run(contender, kind, problem, seed, target, seconds))
            if runs:
                rows.append(
                    {"task": name, "title": task.title, "contender": contender, "kind": kind}
                    | {"limit_seconds": seconds, "runs": runs}
                    | summary(runs, min(config.peer_seconds, seconds))
                )
    return {"rows": rows, "short_seconds": config.peer_seconds}


def _run(
    contender: str, kind: str, problem: Problem, seed: int, target: int, seconds: float
) -> dict[str, Any]:
    """One run, as it stands in the JSON file."""
    before = time.process_time()
    if kind == "peer":
        run = PEERS[contender](problem, seed, target, seconds)
        found: dict[str, Any] = run._asdict()
    else:
        result = evolve(
            ALGORITHMS[contender](problem),
            problem,
            seed,
            generations=_FOREVER,
            target=target,
            max_seconds=seconds,
            scan_length=1 if contender in WALKS else _CALL,
            progress=False,
        )
        found = {
            "fitness": result.fitness,
            "reached": result.stopped == "target",
            "seconds": result.seconds,
            "evaluations": None if contender in WALKS else result.evaluations,  # moves are not
            "compile_seconds": result.compile_seconds,
        }
    spent = time.process_time() - before
    return {"seed": seed, "target": target, "processor_seconds": spent} | found


def summary(runs: list[dict[str, Any]], short: float) -> dict[str, Any]:
    """Runs that reached the target, and the median of how far off and how long.

    The median time is that of all runs, where one without success counts as endless: ``None`` where
    half or more did not succeed.
    """
    reached = [run for run in runs if run["reached"]]
    times = sorted(run["seconds"] for run in reached) + [None] * (len(runs) - len(reached))
    off = [(run["fitness"] - run["target"]) / max(abs(run["target"]), 1) for run in runs]
    return {
        "reached": len(reached),
        "reached_in_short_seconds": sum(run["seconds"] <= short for run in reached),
        "median_seconds": times[len(times) // 2],
        "median_short_of_target": statistics.median(max(part, 0) for part in off),
    }


def table(found: dict[str, Any]) -> Table:
    """Rows by task: the chosen algorithm, the others, the peers."""
    short = found["short_seconds"]
    shown = Table(title="Targets reached", title_justify="left")
    shown.add_column("")
    for column in (f"in {short:g} s", "in all", "of", "limit, s", "median s", "short by"):
        shown.add_column(column, justify="right")
    last = None
    for row in found["rows"]:
        if row["task"] != last:
            last = row["task"]
            shown.add_section()
            shown.add_row(row["title"], style="bold")
        median, off = row["median_seconds"], row["median_short_of_target"]
        mark = {"chosen": " *", "other": "", "peer": " (peer)"}[row["kind"]]
        shown.add_row(
            f"  {row['contender']}{mark}",
            str(row["reached_in_short_seconds"]),
            str(row["reached"]),
            str(len(row["runs"])),
            f"{row['limit_seconds']:g}",
            "" if median is None else f"{median:.2f}",
            _shortfall(off, row["runs"][0]["target"]),
        )
    return shown


def _shortfall(off: float, target: int) -> str:
    """How far a median is from the target: a share of it, or an absolute number where it is 0."""
    if off == 0:
        return ""
    return f"{off:,.0f}" if target == 0 else f"{100 * off:.3f} %"
