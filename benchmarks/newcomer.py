"""A newcomer's path from a clone to a network of their own: seconds of each step, and what it says.

    python benchmarks/newcomer.py [--output results/newcomer.json]

Clones the repository this lies in to a temporary folder and does there what the README says: set
up, demo, report, and the code of notebook 04 as a script. Caches are empty, pip's too: the first
step is mostly its downloads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time

import tyro
from record import record_of, write_record
from rich.console import Console
from rich.table import Table

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = "04_bring_your_own_network"
PYTHON = ".venv/bin/python"
STEPS = {
    "make the environment": ["make", ".venv/installed"],
    "demo": ["make", "demo"],
    "report": [".venv/bin/qevo", "report", "runs/demo"],
    "evaluate the saved network": [".venv/bin/qevo", "evaluate", "runs/demo/network.safetensors"],
    "a network of one's own": [PYTHON, f"{NOTEBOOK}.py"],
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the first steps."""

    output: pathlib.Path | None = None
    """JSON file to write."""


def main(config: Config) -> None:
    """Do each step, print the table, and write the record."""
    console = Console(width=120)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        clone = cloned(pathlib.Path(temporary))
        for name, command in STEPS.items():
            with console.status(name):
                rows.append({"step": name} | timed(command, clone))
    table = Table(title="From a clone to a network of one's own", title_justify="left")
    for column in ("step", "seconds", "says last"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for row in rows:
        table.add_row(row["step"], f"{row['seconds']:.0f}", row["says"])
    table.add_row("all", f"{sum(row['seconds'] for row in rows):.0f}", "", style="bold")
    if config.output:
        write_record(config.output, record_of(__file__, config, {"steps": rows}))
    console.print(table)


def cloned(folder: pathlib.Path) -> pathlib.Path:
    """A clone of this repository, with the notebook's code as a script in it."""
    clone = folder / "qevo"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    notebook = (clone / "notebooks" / f"{NOTEBOOK}.ipynb").read_text()
    (clone / f"{NOTEBOOK}.py").write_text(code_of(notebook))
    return clone


def code_of(notebook: str) -> str:
    """The code of a notebook but its first cell, which installs."""
    cells = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join("".join(cell["source"]) for cell in cells[1:]) + "\n"


def timed(command: list[str], folder: pathlib.Path) -> dict[str, object]:
    """Run a command in a folder, as in a new shell; stops where it fails."""
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"MPLBACKEND": "agg", "XDG_CACHE_HOME": str(folder / "cache")}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    return {"command": " ".join(command), "seconds": seconds, "says": lines[-1] if lines else ""}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
