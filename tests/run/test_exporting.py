"""`qevo export`: what it writes, and what it refuses to."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import tiny

import qevo
from qevo.errors import QevoError
from qevo.export import run_onnx
from qevo.run import exporting
from qevo.run import folder as files
from qevo.run.exporting import ExportConfig, export_file

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A run folder with what an export needs."""
    for name in (files.NETWORK, files.CONFIG):
        shutil.copy(finished / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("to", ["onnx", "onnx-qdq"])
def test_onnx_equals_the_network(run: pathlib.Path, to: exporting.Target, capsys: Capture) -> None:
    path = export_file(ExportConfig(run, to=to))
    assert path == run / f"network{exporting.SUFFIXES[to]}"
    assert "90 images (test images of" in capsys.readouterr().out
    images = tiny.blobs(7)[0]
    network = qevo.load(run / files.NETWORK)
    np.testing.assert_array_equal(run_onnx(path.read_bytes(), images).values, network(images))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_c_on_random_pixels(run: pathlib.Path, capsys: Capture) -> None:
    (run / files.CONFIG).unlink()
    path = export_file(ExportConfig(run / files.NETWORK, to="c", output=run / "mine.h", images=50))
    assert "#include <stdint.h>" in path.read_text()
    assert "50 images (random pixels): 0 of 150 outputs differ" in capsys.readouterr().out


def test_a_difference_is_named_and_nothing_written(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting.onnx_model

    def wrong(network: qevo.QuantizedNetwork, form: str) -> bytes:
        changed = {**network.weights, "dense_0": -network.weights["dense_0"]}
        return write(dataclasses.replace(network, weights=changed), "integer")

    monkeypatch.setattr(exporting, "onnx_model", wrong)
    with pytest.raises(QevoError, match=r"of 270 outputs differ .* of layer dense_1 differ first"):
        export_file(ExportConfig(run))
    assert not (run / "network.onnx").exists()
    export_file(ExportConfig(run, check=False))
    assert (run / "network.onnx").exists()


def test_packed_weights_are_read_back(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = export_file(ExportConfig(run, to="safetensors"))
    said = " ".join(capsys.readouterr().out.split())
    network, size = qevo.load(run / files.NETWORK), (run / files.NETWORK).stat().st_size
    weights = sum(np.size(w) for w in network.weights.values())
    packed = sum(-(-np.size(w) // 4) for w in network.weights.values())
    assert f"wrote {path}: {path.stat().st_size:,} bytes; {weights:,} weights in {packed:,}" in said
    assert f"other files, in bytes: {files.NETWORK} {size:,}" in said
    qevo.load(path).save(run / "again")
    assert (run / "again").read_bytes() == (run / files.NETWORK).read_bytes()

    path.unlink()
    changed = {**network.weights, "dense_0": -network.weights["dense_0"]}
    other = dataclasses.replace(network, weights=changed)
    pack = exporting.packed_file
    monkeypatch.setattr(exporting, "packed_file", lambda _: pack(other))
    with pytest.raises(QevoError, match=r"read back, weights:dense_0 is not .* nothing was"):
        export_file(ExportConfig(run, to="safetensors"))
    assert not path.exists()


def test_what_cannot_be(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match="--images must be at least 1"):
        export_file(ExportConfig(run, images=0))
    with pytest.raises(QevoError, match=r"images of \(28, 28, 1\), and the network takes"):
        export_file(ExportConfig(run, data="fashion_mnist_small"))
    with pytest.raises(QevoError, match=r"no such file: .*nothing"):
        export_file(ExportConfig(tmp_path / "nothing"))


@pytest.mark.parametrize("text", ["{}", '{"data": {"path": "x"}}'])
def test_a_config_of_another_tool_says_no_images(
    run: pathlib.Path, text: str, capsys: Capture
) -> None:
    (run / "config.json").write_text(text)
    export_file(ExportConfig(run / "network.safetensors", to="c"))
    assert "random pixels" in capsys.readouterr().out
