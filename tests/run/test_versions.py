"""Files name the qevo that wrote them, but for networks: equal ones have equal bytes."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import onnx
import pytest
from export_networks import NETWORKS
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import qevo
from qevo.export import c_source, onnx_model
from qevo.export.onnx_model import Form
from qevo.run import folder as files
from qevo.run.pipeline import known


@pytest.mark.parametrize("form", ["integer", "qdq"])
def test_of_onnx(form: Form) -> None:
    model = onnx.load_from_string(onnx_model(NETWORKS["dense"](), form))
    assert (model.producer_name, model.producer_version) == ("qevo", qevo.__version__)


def test_of_c() -> None:
    comment = c_source(NETWORKS["dense"]()).text.partition("*/")[0]
    assert f"written by qevo {qevo.__version__}:" in comment


def test_of_a_run(finished: pathlib.Path) -> None:
    assert files.read_json(finished / files.CONFIG)[files.VERSION] == qevo.__version__
    for name in (files.TEACHER, files.TARGETS):
        with safe_open(finished / name, framework="np") as file:
            assert file.metadata() == {files.VERSION: qevo.__version__}
    assert files.VERSION.encode() not in (finished / files.NETWORK).read_bytes()


@pytest.mark.parametrize("version", [None, "0.0.1"])
def test_runs_of_others_are_read(
    finished: pathlib.Path, tmp_path: pathlib.Path, version: str | None
) -> None:
    folder = tmp_path / finished.name
    shutil.copytree(finished, folder)
    values = files.read_json(folder / files.CONFIG)
    del values[files.VERSION]
    metadata = None
    if version:
        values[files.VERSION], metadata = version, {files.VERSION: version}
    files.write_json(folder / files.CONFIG, values)
    save_file(load_file(folder / files.TEACHER), folder / files.TEACHER, metadata)
    settings = files.read_config(folder)
    assert settings == files.read_config(finished)
    config, result = known(dataclasses.replace(settings, runs=tmp_path))
    assert config.resume
    assert result == files.read_result(finished)
    ours, theirs = (files.load_arrays(run / files.TEACHER) for run in (finished, folder))
    np.testing.assert_equal(theirs, ours)
