"""`qevo audit` on what a run left."""

import dataclasses
import pathlib
import shutil
from typing import Any

import pytest
import tiny

from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.nets.plan import Plan
from qevo.nets.planning import plan
from qevo.run import folder as files
from qevo.run.auditing import audit_run

Capture = pytest.CaptureFixture[str]


def floats(network: QuantizedNetwork, **options: Any) -> Plan:
    """A plan of float products where they are allowed, whatever is fastest here."""
    made = plan(network, **options)
    if options["arithmetic"] == "int":
        return made
    layers = {name: dataclasses.replace(part, path="float32") for name, part in made.layers.items()}
    return dataclasses.replace(made, layers=layers)


def test_audit_of_a_whole_run(
    finished: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a folder that was moved, and that stays as it is."""
    monkeypatch.setattr("qevo.run.searching.plan", floats)
    folder = tmp_path / "[moved]"
    shutil.copytree(finished, folder)
    before = tiny.contents(folder)
    assert audit_run(folder, arithmetic="int")
    said = capsys.readouterr().out
    assert said.count("integers only: no floating-point value") == 2
    assert "1_constants" in said
    assert "2_weights" in said
    assert audit_run(folder)  # "fast", as it ran
    said = capsys.readouterr().out
    assert "floating-point values:" not in said
    assert said.count("exact: no floating-point value outside proved-exact products") == 2
    assert "bound " in said
    assert "integer_numerics.py" in said
    assert tiny.contents(folder) == before


def test_audit_of_an_unfinished_run(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(finished / files.CONFIG, tmp_path)
    with pytest.raises(QevoError, match=r"no such file.*network\.safetensors"):
        audit_run(tmp_path)
