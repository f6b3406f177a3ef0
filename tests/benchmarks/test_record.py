"""What a record says of how it came about, whatever was measured."""

import contextlib
import dataclasses
import importlib
import json
import pathlib
import shlex
from typing import Any
from unittest.mock import Mock

import pytest
import tyro

ROOT = pathlib.Path(__file__).parents[2]

STEP = {"seconds": 1.0, "says": ""}

# A configuration of each script, and what stands in for its measurements.
SCRIPTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "coder": (
        {"zeros": 0.5, "shrink": 2},
        {"layer": lambda *_: {"zeros": 0.0}, "in_a_process": lambda *_: {}},
    ),
    "engine": (
        {"networks": (), "populations": (4, 8), "peers": False, "growth": False},
        {"matmul_peak": lambda _: 1.0, "draw": Mock()},
    ),
    "generation": ({"networks": (), "single_batches": (7,)}, {}),
    "grouping": (
        {"networks": (), "batch": (), "schedule": (4, 5), "seed": 2},
        {"draw": Mock()},
    ),
    "kernel": (
        {"parts": ("quality",), "tasks": (), "peers": False, "peer_seconds": 0.5},
        {"jax": Mock()},
    ),
    "newcomer": ({}, {"cloned": lambda folder: folder, "timed": lambda *_: STEP}),
    "paths": ({"only": "no such layer", "seconds": 0.5}, {}),
    "peers": ({"networks": (), "population": 3}, {}),
    "rounding": ({"networks": (), "bits": "ternary"}, {}),
    "same_bytes": (
        {"kills": 2, "seed": 3},
        {"subprocess": Mock(), "_run_and_kill": Mock(), "_hash": lambda *_: "0123"},
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_command_gives_the_same_configuration_again(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script: Any = importlib.import_module(name)
    settings, measurements = SCRIPTS[name]
    for measurement, instead in measurements.items():
        monkeypatch.setattr(script, measurement, instead)
    output = tmp_path / "results" / "record.json"
    config = script.Config(**settings, output=output)
    with contextlib.suppress(SystemExit):
        script.main(config)
    record = json.loads(output.read_text())
    record = record.get("quality", record)
    python, path, *words = shlex.split(record["command"])
    assert python == "python"
    assert ROOT / path == pathlib.Path(script.__file__)
    assert tyro.cli(script.Config, args=words) == dataclasses.replace(config, output=None)
    fields = {field.name for field in dataclasses.fields(config)}
    assert set(record["settings"]) == fields - {"output"}
    assert {"versions", "device", "commit"} <= set(record)
    if name == "grouping":
        assert [search["schedule"] for search in record["searches"].values()] == [4, 5]


def test_versions_are_those_of_what_is_installed() -> None:
    from record import record_of

    @dataclasses.dataclass(frozen=True)
    class Config:
        output: None = None

    found = record_of("script.py", Config(), {}, packages=("pytest", "no-such-package"))
    assert found["command"] == "python benchmarks/script.py"
    assert found["versions"]["pytest"] == pytest.__version__
    assert "no-such-package" not in found["versions"]


def test_a_process_has_a_peak_of_its_own() -> None:
    from processes import in_a_process, peak_bytes

    held = b"x" * (1 << 28)
    assert 1 << 20 < in_a_process(peak_bytes) < len(held) < peak_bytes()
