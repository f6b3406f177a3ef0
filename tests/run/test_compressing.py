"""`qevo compress`, `decompress` and `inspect`, and `.qevo` wherever a network file is read."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tiny

import qevo
from qevo.errors import QevoError
from qevo.run import folder as files
from qevo.run.compressing import compress_file, decompress_file, inspect_file
from qevo.run.evaluating import evaluate_file, print_plan

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def network(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A run's network with what stands beside it."""
    for name in (files.NETWORK, files.RESULT, files.CONFIG):
        shutil.copy(finished / name, tmp_path)
    return tmp_path / files.NETWORK


def test_there_and_back(network: pathlib.Path, capsys: Capture) -> None:
    summary = compress_file(network)
    small = network.with_suffix(".qevo")
    size = small.stat().st_size
    assert summary.bytes == size < network.stat().st_size / 3
    assert f"wrote {small}: {size:,} bytes" in capsys.readouterr().out
    decompress_file(small, network.with_name("back"))
    assert network.with_name("back").read_bytes() == network.read_bytes()


def test_what_a_run_measured_is_in_the_file(network: pathlib.Path, finished: pathlib.Path) -> None:
    accuracy = files.read_json(network.parent / files.RESULT)["accuracy"]["evolved"]
    about = compress_file(network).about
    assert about["test accuracy"] == round(accuracy["test"], 4)
    assert inspect_file(network.with_suffix(".qevo")).about == about
    shutil.copy(finished / "nearest.safetensors", network)  # measured at something else
    assert compress_file(network).about == {}


def test_a_compressed_network_is_a_network_file(network: pathlib.Path) -> None:
    compress_file(network)
    small = network.with_suffix(".qevo")
    assert evaluate_file(small) == evaluate_file(network)
    assert print_plan(small, batch=8).layers.keys() == qevo.load(network).layers.keys()
    images = tiny.blobs(5)[0]
    np.testing.assert_array_equal(qevo.load(small)(images), qevo.load(network)(images))


def test_inspect_shows_every_layer(network: pathlib.Path, capsys: Capture) -> None:
    compress_file(network)
    capsys.readouterr()
    summary = inspect_file(network.with_suffix(".qevo"))
    said = capsys.readouterr().out
    for layer in summary.layers:
        (line,) = (line for line in said.splitlines() if line.split()[:1] == [layer.name])
        for value in (f"{layer.weights:,}", "ternary", f"{layer.bytes:,}", f"{layer.entropy:.3f}"):
            assert value in line.split()
    assert f"{summary.bytes:,} bytes" in said
    assert f"{summary.ratio:.2f} times" in said
    assert inspect_file(network) == summary  # as it would be


def test_inspect_as_json(network: pathlib.Path, capsys: Capture) -> None:
    assert tiny.exit_code("inspect", network, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] * found["ratio"] == pytest.approx(4 * found["parameters"])
    assert {layer["name"] for layer in found["layers"]} == {"dense_0", "dense_1", "logits"}


def test_the_command_line(network: pathlib.Path, capsys: Capture) -> None:
    small, back = network.with_name("a.qevo"), network.with_name("b.safetensors")
    assert tiny.exit_code("compress", network, "-o", small) == 0
    assert tiny.exit_code("decompress", small, "--output", back) == 0
    assert back.read_bytes() == network.read_bytes()
    small.write_bytes(small.read_bytes()[:-9])
    assert tiny.exit_code("inspect", small) == 2
    assert f"qevo: {small}: its digest is another" in capsys.readouterr().err


def test_files_of_the_wrong_kind(network: pathlib.Path) -> None:
    compress_file(network)
    with pytest.raises(QevoError, match="compressed already"):
        compress_file(network.with_suffix(".qevo"))
    with pytest.raises(QevoError, match=r"not a \.qevo file"):
        decompress_file(network)
    with pytest.raises(QevoError, match="no such file"):
        inspect_file(network.with_name("nothing.qevo"))


def test_decompress_replaces_no_other_network_unasked(
    network: pathlib.Path, finished: pathlib.Path
) -> None:
    compress_file(network)
    small = network.with_suffix(".qevo")
    decompress_file(small)  # the same network is there
    other = (finished / "nearest.safetensors").read_bytes()
    network.write_bytes(other)
    with pytest.raises(QevoError, match="holds another network; say -o"):
        decompress_file(small)
    assert network.read_bytes() == other
    decompress_file(small, network)
    assert network.read_bytes() != other
