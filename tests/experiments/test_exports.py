"""The comparison of all forms on a tiny network: what it writes, repeats, and refuses."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from networks import random_images, random_variables

from qevo.errors import QevoError
from qevo.nets import LeNet300

NAME = "lenet_5"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with a tiny network in place of one that it would train."""
    import exports

    def tiny(config: Any, folder: pathlib.Path) -> Any:
        images = random_images((4, 4, 1), 20)
        module = LeNet300(hidden=(6,), classes=3)
        variables = random_variables(module, (4, 4, 1))
        return exports.Subject(module, variables, images[:8], images, 8, "random", "noise")

    monkeypatch.setitem(exports.NETWORKS, NAME, tiny)
    return exports


@pytest.fixture
def config(exports: Any, tmp_path: pathlib.Path) -> Any:
    return exports.Config(
        networks=(NAME,),
        images=15,
        batches=(4, 7),
        seconds=0.0,
        runs=tmp_path / "runs",
        results=tmp_path / "results",
    )


def test_every_form_is_compared_once(
    exports: Any, config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.main(config)
    printed = capsys.readouterr().out
    record = json.loads((config.results / "exports.json").read_text())
    assert f"--networks {NAME} --data fashion_mnist --images 15" in record["command"]
    found = record["networks"][NAME]
    forms = {"onnx", "onnx-qdq", "c", "safetensors", ".qevo"}
    assert found["forms"].keys() == forms - (set() if shutil.which("cc") else {"c"})
    assert found["float32_bytes"] == 4 * (16 * 6 + 6 * 3)
    assert {"seed", "threads", "versions", "device", "commit"} <= found.keys()
    for form, part in found["forms"].items():
        assert (part["images"], part["values"], part["differing"]) == (15, 45, 0), form
    files = list((config.runs / "exports-0" / NAME).glob("network.*"))
    sizes = {path.stat().st_size for path in files}
    assert {part["bytes"] for part in found["forms"].values()} <= sizes
    assert found["forms"]["onnx"]["speeds"].keys() == {"4", "7"}

    times = [path.stat().st_mtime_ns for path in files]
    exports.main(config)
    assert printed.endswith(capsys.readouterr().out)  # the table alone
    assert times == [path.stat().st_mtime_ns for path in files]
    with pytest.raises(QevoError, match="holds a run of other settings"):
        exports.main(dataclasses.replace(config, images=14))


def test_what_differs_is_counted_and_refused(
    exports: Any, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = exports.run_onnx

    def wrong(model: bytes, images: np.ndarray) -> Any:
        outputs = run(model, images)
        outputs.values[3, 1] += 1
        return outputs

    monkeypatch.setattr(exports, "run_onnx", wrong)
    with pytest.raises(QevoError, match=f"values differ in {NAME} as onnx, {NAME} as onnx-qdq"):
        exports.main(config)
    record = json.loads((config.results / "exports.json").read_text())
    assert record["networks"][NAME]["forms"]["onnx"]["differing"] == 1
