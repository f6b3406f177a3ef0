"""`qevo sensitivity` on a small network: its table, the budget it shares out, what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shlex
import shutil
from typing import Any

import numpy as np
import pytest
import tiny

from qevo import cli
from qevo.data import Dataset
from qevo.errors import QevoError
from qevo.quantize import FloatTeacher, bits_per_layer, float_logits, round_network
from qevo.quantize.outputs import divergence
from qevo.run import RefineConfig
from qevo.run import folder as files
from qevo.run import sensitivity as module
from qevo.run.config import SensitivityConfig
from qevo.run.own import own_network, refine_data
from qevo.run.sensitivity import bits_flags, measure_sensitivity

LAYERS = ["dense_0", "dense_1", "logits"]


@pytest.fixture(scope="module")
def files_of(finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> SensitivityConfig:
    """The float network of a run by its own files."""
    source = tmp_path_factory.mktemp("own") / "net.py"
    source.write_text("from qevo.nets import LeNet300\n\nours = LeNet300(classes=3)\n")
    return SensitivityConfig(
        network=f"{source}:ours",
        checkpoint=finished / files.TEACHER,
        data=files.read_config(finished).data,
        calibration=200,
        held_out=60,
        bits=("ternary", "3", "8", "4"),
    )


@pytest.fixture(scope="module")
def shared(files_of: SensitivityConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A budget of two and a half bits, shared out."""
    folder = tmp_path_factory.mktemp("shared")
    return measure_sensitivity(dataclasses.replace(files_of, average_bits=2.5, output=folder))


def of_run(**changes: Any) -> SensitivityConfig:
    """Settings for a run's own network."""
    small = SensitivityConfig(calibration=200, held_out=60, bits=("8", "4", "3", "ternary"))
    return dataclasses.replace(small, **changes)


def test_the_table(shared: dict[str, Any]) -> None:
    assert list(shared["layers"]) == LAYERS
    assert [layer["weights"] for layer in shared["layers"].values()] == [19_200, 30_000, 300]
    for layer in shared["layers"].values():
        cells = layer["bits"]
        assert list(cells) == ["8", "4", "3", "ternary"]
        assert [int(cells[b]["packed"] / layer["weights"] * 80) for b in cells] == [80, 40, 30, 16]
        assert all(0 < cells[b]["coded"] <= cells[b]["packed"] for b in cells)
        costs = [cell["sensitivity"] for cell in cells.values()]
        assert 0 <= costs[0] < 0.1 * min(costs[1:3]) < max(costs) == costs[3]


def test_the_allocation_is_the_best_of_all(shared: dict[str, Any]) -> None:
    layers, found = shared["layers"], shared["allocation"]
    assert 0 <= found["budget"] - 49_500 * 2.5 / 8 < 3  # each layer begins at a byte

    def total(choice: tuple[str, ...], key: str) -> float:
        pairs = zip(layers.values(), choice, strict=True)
        return sum(layer["bits"][bits][key] for layer, bits in pairs)

    every = itertools.product(["8", "4", "3", "ternary"], repeat=3)
    within = [choice for choice in every if total(choice, "packed") <= found["budget"]]
    chosen = tuple(str(bits) for bits in found["bits"].values())
    best = min(total(choice, "sensitivity") for choice in within)
    assert total(chosen, "sensitivity") == pytest.approx(best)
    assert total(chosen, "packed") == found["bytes"] <= found["budget"]
    assert len(set(chosen)) > 1  # or sharing out would be nothing


def test_the_whole_network_is_measured(
    shared: dict[str, Any], files_of: SensitivityConfig, finished: pathlib.Path
) -> None:
    """With the flags that are printed, as `qevo refine` reads them."""
    flag, *rules = shlex.split(shared["allocation"]["flags"])
    assert flag == "--bits"
    bits = RefineConfig(bits=tuple(rules)).bits_by_pattern()
    assert bits_per_layer(bits, LAYERS) == shared["allocation"]["bits"]
    data = refine_data(files_of)
    float_network = own_network(files_of, data)
    images = data.validation.images
    assert len(images) == 60
    network = round_network(FloatTeacher(*float_network, data.search.images), bits=bits)
    logits = float_logits(*float_network, images)
    found = network(images) * network.output_scale
    measured = shared["whole_network"]
    assert list(measured) == ["float", "shared", "all ternary", "all 3"]
    assert measured["shared"]["held_out"] == pytest.approx(divergence(logits, found))
    right = np.argmax(found, 1) == data.validation.labels
    assert measured["shared"]["accuracy"] == pytest.approx(right.mean())
    assert measured["shared"]["bytes"] == shared["allocation"]["bytes"]
    assert measured["shared"]["calibration"] < measured["all ternary"]["calibration"]


def test_three_bits_for_all_are_three_on_average(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    settings = of_run(bits=("3", "ternary"), average_bits=3.0, output=tmp_path)
    allocation = measure_sensitivity(settings, finished)["allocation"]
    assert allocation["bytes"] == allocation["budget"] == 7_200 + 11_250 + 113
    assert allocation["flags"] == '--bits "*=3"'


def test_a_run_is_measured_by_its_folder(
    shared: dict[str, Any], finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (files.CONFIG, files.TEACHER):
        (folder / name).write_bytes((finished / name).read_bytes())
    words = f"sensitivity {folder} --calibration 200 --bits ternary 3 4 8"
    assert tiny.exit_code(*words.split()) == 0
    result = files.read_json(folder / files.SENSITIVITY)
    assert result["network"] == "lenet_300_100"
    assert result["layers"] == shared["layers"]
    assert result["allocation"] is None


def test_a_refinement_is_measured_by_its_folder(
    shared: dict[str, Any], files_of: SensitivityConfig, tmp_path: pathlib.Path
) -> None:
    own = {key: getattr(files_of, key) for key in ("network", "checkpoint", "data")}
    settings = RefineConfig(**own, activation_bits=4)
    files.write_json(tmp_path / files.CONFIG, files.config_values(settings))
    result = measure_sensitivity(of_run(), tmp_path)
    assert result["settings"]["activation_bits"] == 4
    expected = shared["layers"]["dense_0"]  # whose inputs are pixels all the same
    assert result["layers"]["dense_0"] == expected


def test_what_a_run_says_is_said_once(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = of_run(activation_bits=4, split_seed=7, output=tmp_path)
    with pytest.raises(QevoError, match="leave out --activation-bits and --split-seed"):
        measure_sensitivity(settings, finished)
    with pytest.raises(QevoError, match="leave out --pixels"):
        measure_sensitivity(of_run(pixels=("raw",), output=tmp_path), finished)


def test_it_notices_data_that_changed(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    images, labels = tiny.blobs(seed=5)
    np.savez(tmp_path / "blobs.npz", images=images, labels=labels)
    changed = files.read_json(finished / files.CONFIG) | {"data": str(tmp_path / "blobs.npz")}
    files.write_json(tmp_path / "run" / files.CONFIG, changed)
    with pytest.raises(QevoError, match="has changed since the run"):
        measure_sensitivity(of_run(output=tmp_path), tmp_path / "run")


def test_the_test_images_stay_closed(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = module.load_data
    closed: Any = None
    monkeypatch.setattr(module, "load_data", lambda c: dataclasses.replace(load(c), test=closed))
    known = files.read_json(finished / files.CONFIG)["data_sha256"]  # all that is asked of them
    monkeypatch.setattr(Dataset, "fingerprint", lambda _: known)
    settings = of_run(bits=("4", "3"), average_bits=3.5, output=tmp_path)
    assert measure_sensitivity(settings, finished)["whole_network"]["shared"]["accuracy"] > 0.5


@pytest.mark.parametrize("method", ["gptq", "layerwise"])
def test_a_better_rounding_costs_less(
    shared: dict[str, Any], finished: pathlib.Path, tmp_path: pathlib.Path, method: Any
) -> None:
    settings = of_run(bits=("3",), method=method, output=tmp_path)
    fitted = measure_sensitivity(settings, finished)["layers"]
    for layer in LAYERS[:2]:
        nearest = shared["layers"][layer]["bits"]["3"]["sensitivity"]
        assert 0 < fitted[layer]["bits"]["3"]["sensitivity"] < nearest


def test_coded_bytes(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = of_run(size="coded", budget=14_000, output=tmp_path)
    result = measure_sensitivity(settings, finished)
    sizes = [
        result["layers"][name]["bits"][str(bits)]["coded"]
        for name, bits in result["allocation"]["bits"].items()
    ]
    assert sum(sizes) == pytest.approx(result["allocation"]["bytes"])
    assert sum(sizes) <= 14_000
    for name, row in result["whole_network"].items():
        if name.startswith("all "):  # all levels there are, but the entropy is less
            assert row["bytes"] < 49_500 * np.log2(3 if "ternary" in name else 8) / 8


def test_a_budget_that_no_choice_keeps_leaves_the_measurement(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    settings = of_run(bits=("ternary",), size="coded", budget=1000, output=tmp_path)
    with pytest.raises(QevoError, match=r"above the budget of 1000; the measurement is in .*json"):
        measure_sensitivity(settings, finished)
    result = files.read_json(tmp_path / files.SENSITIVITY)
    assert list(result["layers"]) == LAYERS
    assert result["allocation"] is None
    assert (tmp_path / files.SENSITIVITY_PICTURE).exists()
    _, *words = shlex.split(result["command"])
    again = cli.parse(words)
    assert (again.settings, again.folder) == (settings, finished)


def test_what_is_printed(
    finished: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"sensitivity {finished} --calibration 200 --budget 15000 --bits 4 ternary 3"
    assert tiny.exit_code(*words.split(), "--output", tmp_path / "new" / "folder") == 0
    said, progress = capsys.readouterr()
    assert progress.splitlines()[-1].startswith("layers and bits 9/9")
    assert "0 s left" in progress
    result = files.read_json(tmp_path / "new" / "folder" / files.SENSITIVITY)
    assert result["allocation"]["flags"] in said.splitlines()
    for name, bits in result["allocation"]["bits"].items():
        cell = result["layers"][name]["bits"][str(bits)]
        assert f"▸{cell['packed']:,}" in said
    for number in ("19,200", "30,000", "49,500", "24,750", "18,563", "9,900"):
        assert number in said
    picture = tmp_path / "new" / "folder" / files.SENSITIVITY_PICTURE
    assert f"wrote {picture}" in said.splitlines()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 1, "average_bits": 3.0}, "give --budget or --average-bits, not both"),
        ({"budget": 9_899}, "49,500 weights take 9,900 bytes at ternary"),
        ({"average_bits": 1.5}, r"--average-bits 1\.5: .* more than 9,28\d"),
        ({"bits": ("9",)}, "--bits: bits must be 'ternary' or 2 to 8, not 9"),
        ({"bits": ()}, "--bits needs at least one"),
        ({"network": "resnet_8"}, "leave out --network"),
        ({"calibration": 2}, "--calibration must be at least 8"),
    ],
)
def test_what_cannot_be(finished: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        measure_sensitivity(of_run(**changes), finished)


def test_no_network() -> None:
    with pytest.raises(QevoError, match="--data"):
        measure_sensitivity(SensitivityConfig())
    with pytest.raises(QevoError, match="is nowhere a run folder"):
        measure_sensitivity(SensitivityConfig(), pathlib.Path("nowhere"))


def test_flags_name_exceptions_alone() -> None:
    chosen = {"a/b": 4, "a[0]": 8, "c": 4, "d": "ternary"}
    flags = bits_flags(chosen)
    assert flags == '--bits "*=4" "a[[]0]=8" "d=ternary"'
    rules = RefineConfig(bits=tuple(shlex.split(flags)[1:])).bits_by_pattern()
    assert bits_per_layer(rules, chosen) == chosen
