"""`experiments/refine_detector.py`: what it measures again, and what its record holds."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

DIVERGENCE = {"nearest": 3.0, "gptq": 1.0, "layerwise": 2.0, "evolved": 0.5}


@dataclasses.dataclass
class Network:
    """A network that is its method's name."""

    method: str

    def save(self, path: pathlib.Path) -> None:
        path.write_text(self.method)


class Subject:
    """A detector without a network or images."""

    name = "detector"

    def draw(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(count), np.arange(count, 9)

    def bits(self, width: str | int) -> dict[str, str | int]:
        assert width == 4
        return {"*": width}

    def teacher(self, rows: np.ndarray) -> Any:
        class Teacher:
            def divergence(self, network: Network) -> float:
                return DIVERGENCE[network.method]

        return Teacher()

    def outputs(self, network: Network) -> Network:
        return network

    def measured(self, network: Network) -> dict[str, float]:
        return {"map50": DIVERGENCE[network.method] / 10}

    def problem(self, network: Network, *_: Any, genes: Any, radius: int, batch: int) -> Any:
        class Problem:
            def network(self, network: Network, solution: Any) -> Network:
                return Network("evolved")

        return Problem()


def test_a_method_is_measured_once_and_the_search_says_where_it_began(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import refine_detector as script

    rounded: list[str] = []

    def rounds(teacher: Any, method: str, **_: Any) -> Network:
        rounded.append(method)
        return Network(method)

    @dataclasses.dataclass
    class Result:
        solution: None = None
        evaluations: int = 12

    monkeypatch.setattr(script, "rounded", rounds)
    monkeypatch.setattr(script, "load_safetensors", lambda path: Network(path.read_text()))
    monkeypatch.setattr(script, "shift_search", lambda *_, **__: Result())
    base = script.Config(methods=("nearest", "gptq"), runs=tmp_path, calibration=4, generations=6)

    def record(**changes: Any) -> dict[str, Any]:
        config = dataclasses.replace(base, **changes)
        return script.Run(config, Subject(), seed=0, bits="4").record()

    first = record()
    assert record() == first
    assert list(first["measured"]) == list(first["seconds"]) == ["nearest", "gptq", "evolved"]
    assert first["evaluations"] == 24
    assert first["settings"]["start"] == "gptq"
    assert (first["settings"]["radius"], first["settings"]["search"]["population"]) == (1, 8)
    more = record(methods=("layerwise", "gptq"))
    assert list(more["measured"]) == ["layerwise", "gptq", "evolved"]  # what was asked for
    assert more["measured"]["gptq"] == first["measured"]["gptq"]
    assert rounded == ["nearest", "gptq", "layerwise"]
