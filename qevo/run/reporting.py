"""`qevo report`: one page about one run or several, its figures and its numbers."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console

from qevo.errors import QevoError
from qevo.nets.file import write_whole
from qevo.report.figures import draw_figures
from qevo.report.page import render_page
from qevo.report.summary import spreads
from qevo.run.facts import gather

NAME = "report.html"
_OWN = {"name", "runs", "seed", "resume", "max_seconds"}  # settings in which seeds may differ

console = Console()


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Write a page about one run, or about several side by side.

    One HTML file with everything in it; its figures as PNG and its numbers as JSON lie beside it.
    A run that is still going on has a page of what there is so far.
    """

    folders: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Run folders."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write; by default report.html, in the run folder where there is one run."""
    examples: int = 12
    """Images to show on which the float and the integer network disagree."""


def write_report(config: ReportConfig) -> dict[str, Any]:
    """Gather, write and say where; returns what the JSON holds.

    Raises:
      QevoError: no folder, one that holds no run, or an output that cannot be.
    """
    if not config.folders:
        raise QevoError("say which run folders to report on, such as runs/mine")
    if config.examples < 0:
        raise QevoError(f"--examples must be 0 or more, got {config.examples}")
    alone = len(config.folders) == 1
    output = config.output or (config.folders[0] / NAME if alone else pathlib.Path(NAME))
    if output.suffix not in (".html", ".htm"):
        raise QevoError(f"--output is an .html file, not {output}")
    with console.status("reading the runs") as status:
        runs = []
        for folder in config.folders:
            status.update(f"reading {folder}")
            runs.append(gather(folder, examples=config.examples))
    report = {
        "qevo": importlib.metadata.version("qevo"),
        "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "runs": runs,
        "spread": _spread(runs),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, render_page(report).encode())
    numbers = output.with_suffix(".json")
    write_whole(numbers, (json.dumps(report, indent=2) + "\n").encode())
    written = [output, numbers, *draw_figures(output.with_suffix(""), runs)]
    for run in runs:
        for lack in run["missing"]:
            make = f"; make it with {lack['make']}" if lack["make"] else ""
            _say(f"{run['name']}: no {lack['part']}: {lack['why']}{make}")
    for path in written:
        _say(f"wrote {path}")
    return report


def _spread(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean and deviation where the runs are finished and differ in their seed alone."""
    settings = [
        {key: value for key, value in run["settings"].items() if key not in _OWN} for run in runs
    ]
    seeds = {run["seed"] for run in runs}
    alike = all(other == settings[0] for other in settings) and len(seeds) == len(runs)
    if len(runs) < 2 or not alike or not all(run["accuracy"] for run in runs):
        return None
    return spreads(runs)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
