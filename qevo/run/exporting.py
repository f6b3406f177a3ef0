"""`qevo export`: a network file as ONNX, C or packed, compared before it is written."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Annotated, Literal

import numpy as np
import tyro

from qevo.compress.container import SUFFIX as COMPRESSED
from qevo.core.writing import write_whole
from qevo.data import load
from qevo.errors import QevoError
from qevo.export import (
    c_source,
    first_difference,
    onnx_model,
    packed_difference,
    packed_file,
    run_c,
    run_onnx,
)
from qevo.export.packed import field_bytes
from qevo.nets.network import QuantizedNetwork
from qevo.run import folder as files
from qevo.run.console import say
from qevo.run.networks import network_of

Target = Literal["onnx", "onnx-qdq", "c", "safetensors"]

SUFFIXES: dict[Target, str] = {
    "onnx": ".onnx",
    "onnx-qdq": ".qdq.onnx",
    "c": ".h",
    "safetensors": ".packed.safetensors",
}


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write a network file as ONNX or C that computes the same integers, or with packed weights.

    What is written is first run on images and compared with the network, value by value, or read
    back and compared array by array; where they differ nothing is written.
    """

    file: tyro.conf.Positional[pathlib.Path]
    """A network.safetensors, a .qevo file, or a run folder."""
    to: Target = "onnx"
    """"onnx" with integer operators, "onnx-qdq" with pairs of QuantizeLinear and DequantizeLinear
    for runtimes that look for these, "c": one header with loops for a microcontroller, or
    "safetensors": weights packed to their bits, scales and biases, for any other reader."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write; by default the same name with .onnx, .qdq.onnx, .h or .packed.safetensors."""
    check: bool = True
    """Run and compare before writing."""
    data: str | None = None
    """Whose test images to compare on, as for `qevo train`; by default the data set in the
    config.json beside the file, or random images without one and for a refinement."""
    images: int = 1000
    """How many images to compare on."""


def export_file(config: ExportConfig) -> pathlib.Path:
    """Export, compare, write; returns the file's path.

    Raises:
      QevoError: the network or the data is not there, a package is missing, or outputs differ.
    """
    if config.images < 1:
        raise QevoError(f"--images must be at least 1, got {config.images}")
    path = files.network_file(config.file)
    network = network_of(path)
    output = config.output or path.with_suffix(SUFFIXES[config.to])
    if config.to == "c":
        written = c_source(network)
        data = written.text.encode()
        takes = f"constants {written.flash:,} bytes, activations {written.ram:,} bytes"
    elif config.to == "safetensors":
        data = packed_file(network)
        count = sum(np.size(w) for w in network.weights.values())
        takes = f"{count:,} weights in {field_bytes(network):,} bytes"
    else:
        data = onnx_model(network, "integer" if config.to == "onnx" else "qdq")
        takes = f"{sum(np.size(w) for w in network.weights.values()):,} weights"
    if config.check and config.to == "safetensors":
        _read_back(network, data)
    elif config.check:
        _check(config, path, network, data)
    write_whole(output, data)
    say(f"wrote {output}: {len(data):,} bytes; {takes}")
    suffixes = (path.suffix, ".safetensors", COMPRESSED, *SUFFIXES.values())
    others = dict.fromkeys(path.with_suffix(suffix) for suffix in suffixes)
    sizes = [
        f"{other.name} {other.stat().st_size:,}"
        for other in others
        if other.is_file() and other != output
    ]
    if sizes:
        say(f"the network's other files, in bytes: {', '.join(sizes)}")
    return output


def _read_back(network: QuantizedNetwork, data: bytes) -> None:
    if difference := packed_difference(network, data):
        raise QevoError(f"read back, {difference} is not the network's; nothing was written")
    say(f"read back: all {len(network.weights)} layers have the same weights and constants")


def _check(
    config: ExportConfig, path: pathlib.Path, network: QuantizedNetwork, data: bytes
) -> None:
    images, source = _images(config, path, network)
    network(images)  # compiles
    began = time.monotonic()
    expected = network(images)
    ours = time.monotonic() - began
    if config.to == "c":
        found, runtime = run_c(data.decode(), images, network.output_shape), "cc -O2"
    else:
        found, runtime = run_onnx(data, images), "onnxruntime"
    if found is None:
        say("not compared: there is no C compiler called cc here")
        return
    different = int((found.values != expected).sum())
    if different:
        where = ""
        if config.to != "c" and (first := first_difference(network, data, images)):
            where = f"; {first[1]:,} values of the input of layer {first[0]} differ first"
        raise QevoError(
            f"{different:,} of {expected.size:,} outputs differ on {source}{where}; nothing was "
            "written"
        )
    say(
        f"{len(images):,} images ({source}): 0 of {expected.size:,} outputs differ; "
        f"{len(images) / found.seconds:,.0f} images/s in {runtime}, {len(images) / ours:,.0f} here"
    )


def _images(
    config: ExportConfig, path: pathlib.Path, network: QuantizedNetwork
) -> tuple[np.ndarray, str]:
    """Images to compare on, and what they are."""
    name, beside = config.data, path.parent / files.CONFIG
    if name is None and beside.exists():
        known = files.read_json(beside)
        name = known.get("data") if known.get("command") != "refine" else None
        name = name if isinstance(name, str) else None  # of no run's, but another tool's
    if name is None:
        shape = (config.images, *network.image_shape)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8), "random pixels"
    images = load(name).test.images[: config.images]
    if images.shape[1:] != network.image_shape:
        raise QevoError(
            f"{name} has images of {images.shape[1:]}, and the network takes {network.image_shape}"
        )
    return images, f"test images of {name}"
