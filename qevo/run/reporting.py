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

from qevo.core.writing import write_whole
from qevo.errors import QevoError
from qevo.report.figures import draw_figures
from qevo.report.page import render_page
from qevo.report.summary import spreads
from qevo.run.console import console, say
from qevo.run.facts import gather
from qevo.run.folder import VERSION, read_json

NAME = "report.html"
# Settings in which seeds may differ.
_OWN = {"name", "runs", "seed", "resume", "max_seconds", "tensorboard", VERSION}


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


def report(config: ReportConfig) -> pathlib.Path:
    """Gather, write and say where; returns the page's path.

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
    numbers = output.with_suffix(".json")
    _refuse_other(numbers)
    with console.status("reading the runs") as status:
        runs = []
        for folder in config.folders:
            status.update(f"reading {folder}")
            runs.append(gather(folder, examples=config.examples))
    facts = {
        "qevo": importlib.metadata.version("qevo"),
        "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "runs": runs,
        "spreads": _spreads(runs),
    }
    write_whole(output, render_page(facts).encode())
    write_whole(numbers, (json.dumps(facts, indent=2) + "\n").encode())
    written = [output, numbers, *draw_figures(output.with_suffix(""), runs)]
    for run in runs:
        for lack in run["missing"]:
            make = f"; make it with {lack['make']}" if lack["make"] else ""
            say(f"{run['name']}: no {lack['part']}: {lack['why']}{make}")
    for path in written:
        say(f"wrote {path}")
    return output


def _refuse_other(path: pathlib.Path) -> None:
    """Refuse to write the numbers over what is no report's."""
    if not path.exists():
        return
    try:
        ours = {"made", "runs"} <= read_json(path).keys()
    except (QevoError, OSError):
        ours = False
    if not ours:
        raise QevoError(
            f"the numbers of the page would go to {path}, which is no report's: choose another"
            " --output (nothing was changed)"
        )


def _spreads(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and deviation of the finished runs that differ in their seed alone, in groups."""
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        if run["accuracy"]:
            settings = {key: v for key, v in run["settings"].items() if key not in _OWN}
            groups.setdefault(json.dumps(settings, sort_keys=True), {})[run["seed"]] = run
    return [
        {"runs": [run["name"] for run in group.values()], "accuracy": spreads([*group.values()])}
        for group in groups.values()
        if len(group) > 1
    ]
