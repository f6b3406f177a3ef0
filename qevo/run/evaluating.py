"""`qevo evaluate` and `qevo plan`: how good a network file is here, and what it costs."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from rich.table import Table

from qevo.data import Dataset, Split, load
from qevo.errors import QevoError
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.plan import Plan
from qevo.nets.planning import plan
from qevo.nets.reconstruction import FixedImages, reconstruction_errors
from qevo.quantize.outputs import accuracy
from qevo.run import folder as files
from qevo.run.config import RefineConfig
from qevo.run.console import console, say
from qevo.run.networks import network_of
from qevo.run.own import refine_data
from qevo.run.session import plans_file


def evaluate_file(
    path: pathlib.Path,
    *,
    data: str | None = None,
    split_seed: int | None = None,
    arithmetic: Arithmetic = "fast",
) -> dict[str, float]:
    """Print and return the accuracy of a network file on validation and test images.

    Of an autoencoder the mean squared error, in its units of a pixel.

    Raises:
      QevoError: the file is missing or damaged, or nothing says which data to use.
    """
    network = network_of(path)
    beside = path.parent / files.CONFIG
    known = files.read_json(beside) if beside.exists() else {}
    seed = known.get("split_seed", 0) if split_seed is None else split_seed
    if known.get("command") == "refine":
        name, images = known["data"], _refine_data(path, data, seed)
    else:
        name = data or known.get("data")
        if name is None:
            raise QevoError(f"say which --data to use: there is no {beside} that would tell")
        images = load(name, seed=seed)
    before = known.get("data_sha256", "") if data is None and split_seed is None else ""
    if before and before != images.fingerprint():
        raise QevoError(
            f"{name} has changed since the run in {path.parent}, which may have searched on what "
            f"are test images now; to evaluate all the same, say --data {name}"
        )
    image = network.head == "image"
    if network.head == "maps":
        raise QevoError(
            f"{path} is a detector's network, whose precision qevo.detection measures; the accuracy"
            " is that of a classifier"
        )
    classes = math.prod(network.output_shape)
    if network.head == "logits" and classes != len(images.classes):
        raise QevoError(
            f"{path} tells {classes} classes apart, and {images.source} has {len(images.classes)}"
        )

    def measure(split: Split) -> float:
        if image:
            return FixedImages.of(network).mean(reconstruction_errors(network, split.images))
        return accuracy(network(split.images, arithmetic=arithmetic), split.labels)

    result = {"validation": measure(images.validation), "test": measure(images.test)}
    bits = ", ".join(f"{layer} {bits}" for layer, bits in network.bits.items())
    say(f"{path}: {bits}; activations {network.activation_bits} bit")
    say(images.source)
    for name, value in result.items():
        say(f"{name:<10} " + (f"squared error {value:.6f}" if image else f"{100 * value:.2f} %"))
    return result


def _refine_data(path: pathlib.Path, data: str | None, split_seed: int) -> Dataset:
    """The images of the refinement that left a network file, or others for it."""
    config = files.read_config(path.parent)
    assert isinstance(config, RefineConfig)
    config = dataclasses.replace(config, data=data or config.data, split_seed=split_seed)
    return refine_data(config)


def print_plan(
    path: pathlib.Path, *, arithmetic: Arithmetic = "fast", batch: int = 1024, measure: bool = False
) -> Plan:
    """Print how a network's candidates are computed on this machine, layer by layer.

    Args:
      path: a network file.
      arithmetic, batch: as for a search.
      measure: again, even where an earlier measurement is kept.

    Raises:
      QevoError: the file is missing or damaged.
    """
    network = network_of(path)
    found = plan(network, arithmetic=arithmetic, batch=batch, cache=plans_file(), again=measure)
    total = sum(layer.seconds for layer in found.layers.values())
    table = Table(title=f"{found.device}; {path.name}, {arithmetic}", title_justify="left")
    table.add_column("layer")
    table.add_column("path")
    columns = (
        "bound",
        "exact below",
        "KiB at once",
        "multiply-adds",
        "µs per image",
        "of products",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name, layer in found.layers.items():
        table.add_row(
            name,
            layer.path,
            f"{layer.bound:,}",
            f"2^{layer.exact_below.bit_length() - 1}",
            f"{layer.bytes / 1024:,.0f}",
            f"{layer.operations:,}",
            f"{1e6 * layer.seconds:.2f}",
            f"{100 * layer.seconds / total:.0f} %",
        )
    console.print(table)
    side = (
        "one after the other" if found.candidate_chunk == 1 else f"{found.candidate_chunk} at once"
    )
    say(
        f"candidates {side}, {found.rows} images at once; "
        f"{found.images_per_second:,.0f} candidate images/s"
    )
    return found
