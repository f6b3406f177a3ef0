"""`experiments/refine.py`: its runs, without doing them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest


def test_a_seed_has_one_teacher_whatever_the_bits(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import refine as script

    ran: list[Any] = []
    for name in ("run_once", "run_record"):
        monkeypatch.setattr(script, name, ran.append)
    for name in ("print_table", "write_record", "draw_gains"):
        monkeypatch.setattr(script, name, lambda *_: None)
    first = script.Config("lenet_300_100", bits=("4", "3"), seeds=(0, 1), runs=tmp_path)
    for config in (first, dataclasses.replace(first, bits=("3", "4"), constants=5, weights=5)):
        script.main(config)
    assert len(ran) == 2 * (2 + 4)
    teachers = [run for run in ran if run.teacher is None]
    assert teachers == ran[:2] + ran[6:8]
    assert len({run.name for run in ran}) == 2 + 8
    for run in ran:
        if run.teacher:
            assert run.teacher == teachers[run.seed].folder / "teacher.safetensors"
            assert run.split_seed == teachers[run.seed].split_seed == run.seed
