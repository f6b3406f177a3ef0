"""Running what was exported, to compare its outputs with the network's own."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

from qevo.errors import QevoError
from qevo.export.onnx_model import IMAGES, zero_points
from qevo.export.steps import Multiply, steps_of
from qevo.nets.network import QuantizedNetwork

BATCH = 100  # images at once in onnxruntime
FLAGS = ("-O2", "-std=c99", "-Wall", "-Wextra", "-Werror")


class Outputs(NamedTuple):
    """What an exported network made of some images, and how fast."""

    values: np.ndarray  # int32, as of `QuantizedNetwork.__call__`
    seconds: float


def run_onnx(model: bytes, images: np.ndarray) -> Outputs:
    """The outputs of an ONNX model in onnxruntime, on the CPU.

    Raises:
      QevoError: onnxruntime is not there.
    """
    session = _session(model)
    began = time.monotonic()
    parts = [
        np.asarray(session.run(None, {IMAGES: images[i : i + BATCH]})[0])
        for i in range(0, len(images), BATCH)
    ]
    return Outputs(np.concatenate(parts), time.monotonic() - began)


def run_c(source: str, images: np.ndarray, shape: tuple[int, ...]) -> Outputs | None:
    """The outputs, each of the given shape, of a C file, compiled here; ``None`` without ``cc``.

    Raises:
      QevoError: it does not compile, or does not run to its end.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "network"
        path = program.with_suffix(".c")
        path.write_text(source, encoding="utf-8")
        command = [compiler, *FLAGS, "-DQEVO_MAIN", str(path), "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise QevoError(f"the C file does not compile: {done.stderr.strip()}")
        began = time.monotonic()
        found = subprocess.run([program], input=images.tobytes(), capture_output=True, check=False)
        seconds = time.monotonic() - began
    if found.returncode:
        raise QevoError(f"the compiled network ended with {found.returncode}")
    values = np.array(found.stdout.split(), np.int32)
    return Outputs(values.reshape(len(images), *shape), seconds)


def first_difference(
    network: QuantizedNetwork, model: bytes, images: np.ndarray
) -> tuple[str, int] | None:
    """The first layer whose input differs in an ONNX model, and in how many values."""
    import onnx
    from onnx import helper

    program = steps_of(network)
    zeros = zero_points(program)
    steps = [step for step in program if isinstance(step, Multiply)]
    graph = onnx.load_from_string(model)
    known = {output.name for output in graph.graph.output}
    wanted = dict.fromkeys(step.inputs[0].name for step in steps)
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
        for name in wanted
        if name not in known
    )
    session = _session(graph.SerializeToString())
    names = list(wanted)
    found = dict(zip(names, session.run(names, {IMAGES: images}), strict=True))
    ours = network.layer_inputs(images)
    for step in steps:
        name = step.inputs[0].name
        value = np.asarray(found[name], np.int32) - zeros[name]
        if value.ndim == 4:
            value = value.transpose(0, 2, 3, 1)
        different = int((value != np.asarray(ours[step.name]).reshape(value.shape)).sum())
        if different:
            return step.name, different
    return None


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise QevoError(
            "running ONNX needs the package onnxruntime: "
            "pip install -e '.[export]' in qevo's checkout"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
