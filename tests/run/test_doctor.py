"""`qevo doctor`: a sound machine, and what it says of one that is not."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import pytest
import tiny

from qevo.run import doctor
from qevo.run.doctor import DoctorConfig, examine

Capture = pytest.CaptureFixture[str]


def findings(capsys: Capture) -> list[dict[str, str]]:
    return json.loads(capsys.readouterr().out)


def test_a_sound_machine(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QEVO_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    assert tiny.exit_code("doctor", "--json") == 0
    found = findings(capsys)
    assert {f["part"] for f in found} == {
        *("software", "devices", "arithmetic", "data", "extras", "cache")
    }
    exact = [f["what"] for f in found if f["part"] == "arithmetic"]
    assert len(exact) == 4
    assert all(text.endswith("exact") for text in exact)
    states = {f["what"].split(":")[0]: f["state"] for f in found if f["part"] == "data"}
    assert states["fashion_mnist_small"] == "ok"
    assert states["mnist"] == "missing"


def test_an_inexact_product_is_broken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor.dot

    def wrong(x: jax.Array, w: jax.Array, **settings: Any) -> jax.Array:
        return right(x, w, **settings).at[3, 5].add(1)

    monkeypatch.setattr(doctor, "dot", wrong)
    assert not examine(DoctorConfig())
    assert "1 of 2048 values are wrong" in " ".join(capsys.readouterr().out.split())


def test_it_says_which_extra_to_install(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"tracking": ("no_such_module",)})
    assert examine(DoctorConfig())
    text = " ".join(capsys.readouterr().out.split())
    assert "no_such_module: pip install -e '.[tracking]'" in text


def test_a_folder_of_data_that_is_not_there(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path / "gone"))
    assert not examine(DoctorConfig(json=True))
    broken = [f["what"] for f in findings(capsys) if f["state"] == "broken"]
    assert len(broken) == 3
    assert all("expected a folder, found none" in what for what in broken)


def test_damaged_data_is_broken(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{kind}-ubyte").write_bytes(b"not idx")
    monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path))
    assert not examine(DoctorConfig(json=True))
    (broken,) = [f["what"] for f in findings(capsys) if f["state"] == "broken"]
    assert "mnist" in broken
