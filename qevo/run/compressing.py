"""Network files made small, restored, and looked into."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

from rich.box import SIMPLE
from rich.table import Table

from qevo.compress.container import (
    SUFFIX,
    compress,
    decompress,
    is_compressed,
    open_compressed,
    read_compressed,
)
from qevo.compress.summary import FileSummary, summarise
from qevo.core.writing import write_whole
from qevo.errors import QevoError
from qevo.nets.file import load_safetensors, save_safetensors
from qevo.nets.network import QuantizedNetwork
from qevo.run import folder as files
from qevo.run.console import console, say
from qevo.run.networks import network_of

_COLUMNS = ("weights", "bits", "zeros %", "levels", "bytes", "bits each", "entropy", "over %")


def compress_file(path: pathlib.Path, output: pathlib.Path | None = None) -> FileSummary:
    """Write a network file as `.qevo`, read it back, and print what it takes.

    Where the accuracy that a run measured stands beside the file, the new one holds it too.

    Args:
      path: a network file.
      output: by default ``path`` with the suffix `.qevo`.

    Raises:
      QevoError: the file is missing, damaged, or compressed already.
    """
    if is_compressed(path):
        raise QevoError(f"{path} is compressed already")
    output = output or path.with_suffix(SUFFIX)
    network = network_of(path)
    data = compress(network, _measured(path))
    if decompress(data, network.module) != network:
        raise AssertionError("a compressed network reads back as another one")
    write_whole(output, data)
    summary = summarise(open_compressed(data))
    say(
        f"wrote {output}: {summary.bytes:,} bytes, {summary.ratio:.1f} times less than"
        f" {summary.parameters:,} float parameters"
    )
    return summary


def decompress_file(path: pathlib.Path, output: pathlib.Path | None = None) -> None:
    """Write a `.qevo` file as safetensors.

    Args:
      path: a `.qevo` file.
      output: by default ``path`` with the suffix `.safetensors`.

    Raises:
      QevoError: the file is missing, damaged or of another kind, or another network lies where
        this one would go unasked.
    """
    read_compressed(path)  # another kind of file would pass below
    network = network_of(path)
    if output is None:
        output = path.with_suffix(".safetensors")
        if output.exists() and not _is_same(output, network):
            raise QevoError(f"{output} is there and holds another network; say -o to replace it")
    save_safetensors(network, output)
    say(f"wrote {output}: {output.stat().st_size:,} bytes")


def inspect_file(path: pathlib.Path, *, as_json: bool = False) -> FileSummary:
    """Print what each layer of a network file takes, or would take compressed.

    Raises:
      QevoError: the file is missing or damaged.
    """
    if is_compressed(path):
        file = read_compressed(path)
    else:
        file = open_compressed(compress(network_of(path), _measured(path)))
    summary = summarise(file)
    if as_json:
        print(json.dumps(dataclasses.asdict(summary), indent=2))
        return summary
    table = Table(title=path.name, title_justify="left", box=SIMPLE, padding=0)
    table.add_column("layer", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for layer in summary.layers:
        table.add_row(
            layer.name,
            f"{layer.weights:,}",
            str(layer.bits),
            f"{100 * layer.zeros / layer.weights:.1f}",
            str(layer.levels),
            f"{layer.bytes:,}",
            f"{layer.bits_per_weight:.3f}",
            f"{layer.entropy:.3f}",
            "" if layer.overhead is None else f"{100 * layer.overhead:+.1f}",
        )
    console.print(table)
    coded = sum(layer.bytes for layer in summary.layers)
    say(
        f"{summary.weights:,} weights, {100 * summary.zeros / summary.weights:.1f} % zero:"
        f" {coded:,} bytes, by their counts {summary.entropy_bytes:,.0f};"
        f" constants {summary.constants:,}, the rest {summary.overhead:,}"
    )
    for name, value in summary.about.items():
        say(f"{name}: {value}")
    say(
        f"{summary.bytes:,} bytes; {summary.parameters:,} float parameters take"
        f" {summary.ratio:.2f} times as many"
    )
    return summary


def _measured(path: pathlib.Path) -> dict[str, str | float]:
    """Data and accuracy of a run's network, if this is the file that the run left."""
    known = path.parent / files.RESULT
    if path.name != files.NETWORK or not known.exists():
        return {}
    result = files.read_json(known)
    if result.get("network_sha256") != hashlib.sha256(path.read_bytes()).hexdigest():
        return {}
    try:
        accuracy, data = result["accuracy"]["evolved"], result["data"]
        about = {f"{split} accuracy": round(value, 4) for split, value in accuracy.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise QevoError(f"{known} is no run's: {error!r}") from None
    # Of a folder its last name alone: paths are nobody's business, and bytes.
    return {"data": pathlib.PurePath(data).name} | about


def _is_same(path: pathlib.Path, network: QuantizedNetwork) -> bool:
    try:
        return load_safetensors(path, network.module) == network
    except QevoError:
        return False
