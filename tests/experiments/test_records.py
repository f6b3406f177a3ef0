"""What runs leave: folders that are claimed, records that are made once and hold all settings."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from qevo.errors import QevoError


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.5
    methods: tuple[str, ...] = ("one", "two words")
    runs: pathlib.Path = pathlib.Path("runs")
    results: pathlib.Path = pathlib.Path("results")


def test_a_folder_is_claimed_for_settings(tmp_path: pathlib.Path) -> None:
    import records

    free = ("methods", *records.PLACES)
    records.claim(tmp_path / "run", Config(), free=free)
    records.claim(tmp_path / "run", Config(methods=("three",)), free=free)
    with pytest.raises(QevoError, match="holds a run of other settings"):
        records.claim(tmp_path / "run", Config(rate=1.0), free=free)


def test_a_record_is_made_once_and_reads_the_same_each_time(tmp_path: pathlib.Path) -> None:
    import records

    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"pair": (1, 2), 3: None}

    first = records.kept(tmp_path / "new" / "record.json", make)
    assert first == records.kept(tmp_path / "new" / "record.json", make)
    assert first == {"pair": [1, 2], "3": None}
    assert len(made) == 1


def test_a_command_says_what_decides(tmp_path: pathlib.Path) -> None:
    import records

    words = "python experiments/one.py --rate 0.5 --methods one 'two words'"
    assert records.command("one", Config(runs=tmp_path)) == words


def test_the_record_of_a_run_holds_its_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    import cc_resnet20_cifar10 as script
    import records

    monkeypatch.setattr(records, "run_once", lambda run: {"accuracy": run.seed})
    run = script.run_config(script.Config(runs=pathlib.Path("/elsewhere")), "w3a8", 4)
    record = records.run_record(run)
    assert record["accuracy"] == 4
    settings = json.loads(json.dumps(record))["settings"]
    assert (settings["radius"], settings["batch"], settings["split_seed"]) == (1, 512, 4)
    search = settings["constants"]["search"]
    assert (search["group"], search["radius"], search["rate"]) == (4096, 1, 0.5)
    assert settings["teacher"] == "resnet20_cifar10_f32.npz"  # wherever it lies
    assert not settings.keys() & {"runs", "name", "device", "scan_length", "candidate_chunk"}
