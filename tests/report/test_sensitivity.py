"""Tables and the picture of `qevo sensitivity`."""

import io
import pathlib
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from qevo.report.sensitivity import (
    draw_sensitivity,
    millis,
    sensitivity_table,
    size_table,
    whole_network_table,
)


def result(layers: int = 2) -> dict[str, Any]:
    def cell(cost: float, size: int) -> dict[str, float]:
        return {"sensitivity": cost, "packed": size, "coded": size * 0.8}

    rows = {
        f"block_{i}/conv": {
            "weights": 4_000,
            "bits": {"4": cell(0.001 * i, 2_000), "ternary": cell(0.3 + i, 800)},
        }
        for i in range(layers)
    }
    return {
        "network": "tiny",
        "method": "nearest",
        "size": "packed",
        "layers": rows,
        "curve": [[800 * layers, 1.6], [2_000 * layers, 0.0]],
        "allocation": {"bits": {name: 4 if i else "ternary" for i, name in enumerate(rows)}},
        "whole_network": {
            "float": {"images": 1_000, "accuracy": 0.9},
            "shared": {"bytes": 2_800, "held_out": 0.25, "accuracy": 0.875},
            "all ternary": {"bytes": 1_600, "held_out": 1.5, "accuracy": 0.5},
        },
    }


def text(table: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_chosen_cells_are_marked() -> None:
    lines = text(sensitivity_table(result())).splitlines()
    first, second = (line.split() for line in lines if "block" in line)
    assert first == ["block_0/conv", "4,000", "<0.01", "▸300"]
    assert second == ["block_1/conv", "4,000", "▸1.00", "1,300"]


def test_bytes_of_all_layers() -> None:
    *_, last = text(size_table(result())).split("\n ─")[-1].splitlines()[1:2]
    assert last.split() == ["all", "8,000", "4,000", "1,600"]


def test_without_a_budget_nothing_is_marked() -> None:
    free = result() | {"allocation": None, "whole_network": None}
    assert "▸" not in text(sensitivity_table(free)) + text(size_table(free))


def test_whole_networks() -> None:
    shown = text(whole_network_table(result()))
    assert "1,000 held-out images" in shown
    for words in (["shared", "out", "2,800", "250", "87.50"], ["float", "90.00"]):
        assert words in [line.replace("│", " ").split() for line in shown.splitlines()]


@pytest.mark.parametrize(
    ("nats", "shown"),
    [
        (-1e-9, "<0.01"),
        (9.9e-6, "<0.01"),
        (0.000_995, "0.99"),
        (0.009_996, "10.0"),
        (0.099_96, "100"),
        (3.2674, "3,267"),
    ],
)
def test_millis(nats: float, shown: str) -> None:
    assert millis(nats) == shown


@pytest.mark.parametrize("layers", [1, 30])
@pytest.mark.parametrize("budget", [True, False])
def test_the_picture(tmp_path: pathlib.Path, layers: int, budget: bool) -> None:
    nothing = {} if budget else {"allocation": None, "whole_network": None}
    draw_sensitivity(tmp_path / "picture.png", result(layers) | nothing)
    picture = imread(tmp_path / "picture.png")
    assert picture.shape[1] > 1000
    assert (picture.shape[0] > 1200) == (layers == 30)
    frame = np.abs(picture[..., :3] - np.array([0x15, 0x80, 0x3D]) / 255).max(-1) < 0.02
    cells = frame[:, : picture.shape[1] // 3].sum()  # green in the heat map is a chosen cell
    assert (cells > 300) == budget
