"""Methods by name on the command lines, and what tables say of several seeds."""

from __future__ import annotations

import importlib
import pathlib

import pytest
import tyro

from qevo.errors import QevoError


@pytest.mark.parametrize(
    ("script", "flag", "words"),
    [
        ("de_lenet", "methods", ("random", "cycles")),
        ("de_zeros", "methods", ("directed", "second_order")),
        ("de_yolo", "methods", ("magnitude", "cycles")),
        ("refine_detector", "methods", ("nearest", "gptq")),
        ("refine_autoencoder", "roundings", ("layerwise", "best_of_n")),
    ],
)
def test_methods_are_those_that_there_are(
    script: str, flag: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    config = importlib.import_module(script).Config
    assert getattr(tyro.cli(config, args=[f"--{flag}", *words]), flag) == words
    with pytest.raises(SystemExit) as stop:
        tyro.cli(config, args=[f"--{flag}", words[0], "guess"])
    assert stop.value.code == 2
    assert words[1] in capsys.readouterr().err  # what there is


def test_variants_are_those_that_there_are(tmp_path: pathlib.Path) -> None:
    import cc_ablation

    with pytest.raises(QevoError, match=r"base, .*, not guess"):
        cc_ablation.main(cc_ablation.Config(variants=("base", "guess"), runs=tmp_path))


def test_one_seed_has_no_spread() -> None:
    import printing

    assert printing.mean_and_spread([1.0, 2.0, 6.0], 1) == "3.0 ± 2.6"
    assert printing.mean_and_spread([2.0], 2) == "2.00"
    assert printing.mean([1.0, None, 2.0], 1) == "1.5"
    assert printing.mean([None], 1) == ""
