"""One seed, one network: the same bytes on every path, device count, chunk size, and after kills.

    python benchmarks/same_bytes.py [--output results/same_bytes.json]

Evolves a ternary LeNet-300-100 through `qevo train` again and again from one float teacher: with
integer and with fast arithmetic, on 1 and on 8 forced host devices, with three scan lengths and
three candidate chunks, and killed with SIGKILL at five random moments and resumed. Compares the
SHA-256 of network.safetensors and exits with 1 if any differs.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import tyro
from processes import with_devices
from record import record_of, write_record
from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the bytes of equal runs."""

    constants: int = 30
    """Generations over multipliers and biases."""
    weights: int = 60
    """Generations over the weights."""
    kills: int = 5
    """How often the last run is killed."""
    seed: int = 0
    """Of the moments of the kills."""
    output: pathlib.Path | None = None
    """JSON file to write."""


VARIANTS: dict[str, tuple[str, ...]] = {
    "arithmetic int": ("--arithmetic", "int"),
    "arithmetic fast": ("--arithmetic", "fast"),
    "8 devices": (),
    "scan length 1": ("--scan-length", "1"),
    "scan length 7": ("--scan-length", "7"),
    "scan length 30": ("--scan-length", "30"),
    "candidate chunk 2": ("--candidate-chunk", "2"),
    "candidate chunk 16": ("--candidate-chunk", "16"),
    "candidate chunk 64": ("--candidate-chunk", "64"),
}


def main(config: Config) -> None:
    """Run every variant and compare."""
    with tempfile.TemporaryDirectory() as folder:
        runs = pathlib.Path(folder)
        teacher = _train_teacher(runs)
        hashes, seconds = {}, {}
        for name, options in VARIANTS.items():
            began = time.monotonic()
            command = _command(config, runs, teacher, name, *options)
            subprocess.run(command, env=_environment(name), check=True, capture_output=True)
            hashes[name] = _hash(runs, name)
            seconds[name] = round(time.monotonic() - began, 1)
        name = f"killed {config.kills} times"
        _run_and_kill(config, runs, teacher, name, span=seconds["arithmetic fast"])
        hashes[name] = _hash(runs, name)
    table = Table(title="SHA-256 of network.safetensors", title_justify="left")
    table.add_column("run")
    table.add_column("bytes")
    for name, digest in hashes.items():
        table.add_row(name, digest[:16])
    Console().print(table)
    same = len(set(hashes.values())) == 1
    print("all the same" if same else "DIFFERENT")
    if config.output:
        found = {"network_sha256": hashes, "same": same}
        write_record(config.output, record_of(__file__, config, found))
    sys.exit(0 if same else 1)


def _train_teacher(runs: pathlib.Path) -> pathlib.Path:
    command = (
        *_qevo(runs, "teacher"),
        *("--training.epochs", "4", "--calibration", "1000", "--draws", "1"),
        *("--constants.generations", "0", "--weights.generations", "0"),
    )
    subprocess.run(command, check=True, capture_output=True)
    return runs / "teacher" / "teacher.safetensors"


def _qevo(runs: pathlib.Path, name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "qevo", "train", "--runs", str(runs), "--name", name)


def _command(
    config: Config, runs: pathlib.Path, teacher: pathlib.Path, name: str, *options: str
) -> tuple[str, ...]:
    return (
        *_qevo(runs, name),
        *("--teacher", str(teacher), "--calibration", "1000", "--draws", "1"),
        *("--constants.generations", str(config.constants)),
        *("--weights.generations", str(config.weights)),
        *options,
    )


def _environment(name: str) -> dict[str, str]:
    return with_devices(8 if name == "8 devices" else 1)


def _run_and_kill(
    config: Config, runs: pathlib.Path, teacher: pathlib.Path, name: str, *, span: float
) -> None:
    """Kill the run at random moments of about its whole length, then let it end."""
    moments = random.Random(config.seed)
    for turn in range(config.kills + 1):
        started = (runs / name / "config.json").exists()
        command = _command(config, runs, teacher, name, *(("--resume",) if started else ()))
        process = subprocess.Popen(
            command, env=_environment(name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if turn == config.kills:
            if process.wait():
                raise SystemExit(f"the resumed run failed: {' '.join(command)}")
            return
        time.sleep(moments.uniform(0.2, 1.0) * span)
        process.kill()
        process.wait()


def _hash(runs: pathlib.Path, name: str) -> str:
    return json.loads((runs / name / "result.json").read_text())["network_sha256"]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
