"""`qevo runs`: the run folders there are, and how far each one is."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import tyro
from rich.markup import escape
from rich.table import Table

from qevo.core.folder import METRICS, read_metrics
from qevo.errors import QevoError
from qevo.run import folder as files
from qevo.run.claim import at_work
from qevo.run.console import console

State = Literal["finished", "running", "stopped", "damaged"]

RECENT = 120.0  # seconds since a file changed, within which an unfinished run counts as running
STYLES: dict[State, str] = {
    "finished": "",
    "running": "green",
    "stopped": "yellow",
    "damaged": "red",
}


class Column(NamedTuple):
    """A column of the list, and the width of terminal from which on there is room for it."""

    title: str
    least: int
    text: Callable[[RunSummary], str]
    number: bool = False


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _progress(run: RunSummary) -> str:
    return f"{run.generations:,} of {run.planned:,}" if run.planned else ""


COLUMNS = (
    Column("run", 0, lambda run: run.name),
    Column("state", 0, lambda run: run.state),
    Column("changed", 100, lambda run: _date(run.changed)),
    Column("data", 120, lambda run: run.data),
    Column("network", 140, lambda run: run.network),
    Column("bits", 110, lambda run: run.bits),
    Column("generations", 80, _progress, number=True),
    Column("validation, %", 70, lambda run: _percent(run.validation), number=True),
    Column("test, %", 0, lambda run: _percent(run.test), number=True),
)


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


@dataclasses.dataclass(frozen=True)
class RunsConfig:
    """List run folders, the latest last.

    A run without a result is running where a process holds its lock (on a disk without locks, where
    its folder changed in the last two minutes), else it has stopped: --resume goes on with it.
    """

    folder: tyro.conf.Positional[pathlib.Path] = pathlib.Path("runs")
    """Where run folders lie."""
    json: bool = False
    """Print JSON."""


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """One run folder."""

    name: str
    state: State
    changed: float  # seconds since the epoch
    data: str
    network: str
    bits: str
    seed: int | None
    generations: int  # done
    planned: int
    validation: float | None  # accuracy of the evolved network; None before the end
    test: float | None


def list_runs(config: RunsConfig) -> list[RunSummary]:
    """Print the runs below a folder, and return them, the latest last.

    Raises:
      QevoError: the folder is not there.
    """
    if not config.folder.is_dir():
        raise QevoError(f"{config.folder}: expected a folder of runs, found none")
    paths = [path.parent for path in config.folder.glob(f"*/{files.CONFIG}")]
    runs = sorted((summarise(path) for path in paths), key=lambda run: run.changed)
    if config.json:
        print(json.dumps([dataclasses.asdict(run) for run in runs], indent=2))
        return runs
    if not runs:
        console.print(f"no runs in {escape(str(config.folder))}", highlight=False)
        return runs
    table = Table(box=None, padding=(0, 2, 0, 0))
    shown = [column for column in COLUMNS if console.width >= column.least]
    for column in shown:
        numbers: Any = "right" if column.number else "left"
        table.add_column(column.title, justify=numbers, no_wrap=column.title != "run")
    for run in runs:
        style = STYLES[run.state]
        table.add_row(*(escape(column.text(run)) for column in shown), style=style or None)
    console.print(table)
    return runs


def summarise(path: pathlib.Path) -> RunSummary:
    """How far the run in a folder is."""
    changed = 0.0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a running search replaces its files
            changed = max(changed, file.stat().st_mtime if file.is_file() else 0.0)
    try:
        settings = files.read_json(path / files.CONFIG)
        found = files.read_result(path) or {}
        return _summary(path, changed, settings, found)
    except (QevoError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return RunSummary(path.name, "damaged", changed, "", "", "", None, 0, 0, None, None)


def _summary(
    path: pathlib.Path, changed: float, settings: dict[str, Any], found: dict[str, Any]
) -> RunSummary:
    accuracy = found.get("accuracy", {}).get("evolved", {})
    running = at_work(path)
    if running is None:
        running = time.time() - changed < RECENT
    network = settings.get("architecture") or str(settings.get("network", ""))
    return RunSummary(
        name=path.name,
        state="finished" if found else "running" if running else "stopped",
        changed=changed,
        data=str(settings["data"]),
        network=network,
        bits=" ".join(settings["bits"]),
        seed=settings.get("seed"),
        generations=found.get("generations") or _generations(path),
        planned=sum(files.planned(settings).values()),
        validation=accuracy.get("validation"),
        test=accuracy.get("test"),
    )


def _generations(path: pathlib.Path) -> int:
    """Those that are written down, of all stages."""
    return sum(len(read_metrics(log)) for log in path.glob(f"*/{METRICS}"))
