"""Every network of qevo in every form that it exports: whether outputs differ, bytes, and speed.

    QEVO_DATA_DIR=... python experiments/exports.py [--networks lenet_5 resnet_20_3_bit]

Each network is rounded to the nearest levels, written by `qevo export` in all its forms and by
`qevo compress`, and run in them on test images: ONNX in onnxruntime, C compiled here, packed and
.qevo files read back into qevo. Every int32 of an output is compared with the network's own. What
matters is the export, not accuracy: networks without published weights are trained for few epochs.

Speeds are images per second of one thread's processor time, so other work on the machine counts
little: in onnxruntime the best pass at the best of --batches; in C one pass, with printing. Prints
a table; writes results/exports.json; fails if any value differs.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from detector import Subject as Coco
from float_networks import PUBLISHED, trained_autoencoder, trained_classifier
from printing import console, table
from records import PLACES, Record, claim, command, kept, write_record
from rich.table import Table

import qevo
from qevo import QuantizedNetwork
from qevo.compress import compress
from qevo.compress.container import SUFFIX as COMPRESSED
from qevo.core.writing import write_whole
from qevo.data import Dataset, Split, load, one_class
from qevo.errors import QevoError
from qevo.export import Outputs, c_source, packed_difference, run_c, run_onnx
from qevo.export.onnx_model import IMAGES
from qevo.nets import VGG16, Autoencoder
from qevo.nets.registry import architecture
from qevo.quantize import load_published, quantize_network
from qevo.run import folder as files
from qevo.run.exporting import SUFFIXES, ExportConfig, Target, export_file
from qevo.run.provenance import origin
from qevo.run.session import script

NAME = "exports"
LARGE = "resnet_56", "yolo_fastest"  # whose C takes seconds for each image
NORMAL = 9  # class that the autoencoder learns
FEW = 5000  # images that VGG-16 is trained on

Name = Literal[
    "lenet_300_100",
    "lenet_5",
    "resnet_8",
    "resnet_20",
    "resnet_20_3_bit",
    "resnet_56",
    "vgg_16",
    "autoencoder",
    "yolo_fastest",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """Export networks and compare."""

    networks: tuple[Name, ...] = get_args(Name)
    """Which."""
    data: str = "fashion_mnist"
    """Of the LeNets and the autoencoder."""
    images: int = 1000
    """Test images that outputs are compared on, where there are as many."""
    large: int = 100
    """As many in the C of large networks."""
    calibration: int = 256
    """Images that ranges and biases are fitted to."""
    epochs: int = 2
    """Of training."""
    width: int = 8
    """Channels of VGG-16's first stage; as published, 64."""
    batches: tuple[int, ...] = (1, 10, 100)
    """Images at once in onnxruntime."""
    seconds: float = 2.0
    """Of passes over the images at each of them, at least one; the fastest counts."""
    seed: int = 0
    """Of training and of the split of the data."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Where run folders lie; a finished network is not repeated."""
    results: pathlib.Path = pathlib.Path("results")
    """Where the summary goes."""


class Subject(NamedTuple):
    """A float network and what it is exported with."""

    module: Any
    variables: Any
    calibration: np.ndarray  # uint8 [n, H, W, C]
    test: np.ndarray  # uint8 [n, H, W, C]
    bits: str | int
    weights: str  # where they are from
    data: str


def main(config: Config) -> None:
    """Run what is not there yet, then gather.

    Raises:
      QevoError: runs of other settings are in the way, data is missing, or a value differs.
    """
    folder = config.runs / f"{NAME}-{config.seed}"
    claim(folder, config, free=("networks", *PLACES))
    records = {name: record(config, name, folder / name) for name in config.networks}
    summary = {"command": command(NAME, config), "networks": records}
    write_record(config.results / f"{NAME}.json", summary)
    console.print(table_of(records))
    wrong = [
        f"{name} as {form}"
        for name, record in records.items()
        for form, part in record["forms"].items()
        if part["differing"]
    ]
    if wrong:
        raise QevoError(f"values differ in {', '.join(wrong)}")


def record(config: Config, name: Name, folder: pathlib.Path) -> Record:
    """What is known of a network, measured if nothing is."""
    return kept(folder / files.RESULT, lambda: _measured(config, name, folder))


def _measured(config: Config, name: Name, folder: pathlib.Path) -> Record:
    folder.mkdir(exist_ok=True)
    subject = NETWORKS[name](config, folder)
    with console.status(f"{name}: rounding"):
        network = quantize_network(
            subject.module, subject.variables, subject.calibration, bits=subject.bits
        )
        network.save(folder / files.NETWORK)
    count = sum(np.size(w) for w in network.weights.values())
    load_average = os.getloadavg()[0]
    forms = compared(config, name, network, subject.test[: config.images], folder)
    return {
        "data": subject.data,
        "weights": subject.weights,
        "bits": subject.bits,
        "count": count,
        "float32_bytes": 4 * count,
        "forms": forms,
        "threads": 1,
        "load": load_average,  # of the machine, before
        "seed": config.seed,
        **origin(others=_tools()),
    }


def compared(
    config: Config, name: Name, network: QuantizedNetwork, images: np.ndarray, folder: pathlib.Path
) -> dict[str, Record]:
    """Each form's differing values, bytes and speed; its file is left in the folder."""
    expected = network(images)
    found: dict[str, Record] = {}
    for form in (*SUFFIXES, COMPRESSED):
        few = config.large if form == "c" and name in LARGE else len(images)
        shown = images[:few]
        path = _written(form, network, folder / files.NETWORK)
        with console.status(f"{name}: {form}"):
            outputs = _outputs(form, path, shown, network)
            if outputs is None:
                console.print(f"{name}: no C, for there is no compiler called cc here")
                continue
            found[form] = {
                "images": len(shown),
                "values": outputs.values.size,
                "differing": int((outputs.values != expected[:few]).sum()),
                "bytes": path.stat().st_size,
            }
            if form == "c":
                source, seconds = c_source(network), outputs.seconds
                found[form] |= {
                    "images_per_second": len(shown) / seconds if seconds > 0 else None,
                    "constants": source.flash,  # bytes
                    "activations": source.ram,
                }
            elif form in ("onnx", "onnx-qdq"):
                speeds = onnx_speeds(config, path, shown)
                best = max(speeds, key=speeds.__getitem__)
                found[form] |= {"images_per_second": speeds[best], "batch": best, "speeds": speeds}
    return found


def _written(form: Target | str, network: QuantizedNetwork, path: pathlib.Path) -> pathlib.Path:
    """The file of one form, beside the network file of that path."""
    if form == COMPRESSED:
        output = path.with_suffix(COMPRESSED)
        write_whole(output, compress(network))
        return output
    return export_file(ExportConfig(path, to=form, check=False))  # type: ignore[arg-type]


def _outputs(
    form: str, path: pathlib.Path, images: np.ndarray, network: QuantizedNetwork
) -> Outputs | None:
    """What a file makes of the images, run as `qevo export` runs it; ``None`` without a compiler.

    Raises:
      QevoError: a packed file does not give back the network's tensors and settings.
    """
    if form == "c":
        return _run_c(path.read_text(encoding="utf-8"), images, network.output_shape)
    if form in ("onnx", "onnx-qdq"):
        return run_onnx(path.read_bytes(), images)
    if form == "safetensors" and (difference := packed_difference(network, path.read_bytes())):
        raise QevoError(f"{path}: {difference} is not the network's")
    began = time.monotonic()
    return Outputs(qevo.load(path)(images), time.monotonic() - began)


def _run_c(source: str, images: np.ndarray, shape: tuple[int, ...]) -> Outputs | None:
    """As `run_c`, but with the program's processor time: the compiler's is that without images."""
    outputs, spent = None, [_of_children()]
    for part in (images[:0], images):
        outputs = run_c(source, part, shape)
        spent.append(_of_children())
    compiling, both = np.diff(spent).tolist()
    return outputs and outputs._replace(seconds=both - compiling)


def _of_children() -> float:
    """Seconds of processor time of the programs that have been run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def onnx_speeds(config: Config, path: pathlib.Path, images: np.ndarray) -> dict[int, float]:
    """Images per second in onnxruntime by the size of a batch, after a batch that is not timed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    speeds = {}
    for batch in config.batches:
        parts = [images[i : i + batch] for i in range(0, len(images), batch)]
        session.run(None, {IMAGES: parts[0]})
        passes: list[float] = []
        while not passes or sum(passes) < config.seconds:
            began = time.process_time()
            for part in parts:
                session.run(None, {IMAGES: part})
            passes.append(time.process_time() - began)
        speeds[batch] = len(images) / min(passes)
    return speeds


def _tools() -> dict[str, str]:
    """Versions of what runs the exports."""
    found = {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")}
    if compiler := shutil.which("cc"):
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
        found["cc"] = done.stdout.partition("\n")[0]
    return found


def table_of(records: dict[str, Record]) -> Table:
    """A row for each network and form."""
    counts = "images", "values", "differing", "bytes", "of float32, %", "images/s"
    found = table("exports; images per second of one thread", ("network", "form"), counts)
    for name, record in records.items():
        bits = record["bits"]
        width = bits if bits == "ternary" else f"{bits} bits"
        heads = [name, f"  {width}; {record['weights']}", f"  {record['data']}"]
        heads.append(f"  {record['count']:,} weights")
        for place, (form, part) in enumerate(record["forms"].items()):
            speed = part.get("images_per_second")
            batch = f" (batch {part['batch']})" if "batch" in part else ""
            found.add_row(
                heads[place] if place < len(heads) else "",
                form,
                *(f"{part[key]:,}" for key in ("images", "values", "differing", "bytes")),
                f"{100 * part['bytes'] / record['float32_bytes']:.1f}",
                f"{speed:,.{0 if speed >= 10 else 1}f}{batch}" if speed else "",
            )
        found.add_section()
    return found


def _lenet(config: Config, folder: pathlib.Path, name: str, bits: str | int) -> Subject:
    data = load(config.data, seed=config.seed)
    return _trained(config, folder, architecture(name, classes=len(data.classes)), data, bits)


def _vgg(config: Config, folder: pathlib.Path) -> Subject:
    data = load("cifar10", seed=config.seed)
    few = Split(data.search.images[:FEW], data.search.labels[:FEW])
    module = VGG16(width=config.width, classes=len(data.classes))
    subject = _trained(config, folder, module, dataclasses.replace(data, search=few), 8)
    return subject._replace(weights=f"width {config.width}, {subject.weights}, images: {FEW:,}")


def _trained(
    config: Config, folder: pathlib.Path, module: Any, data: Dataset, bits: str | int
) -> Subject:
    variables, _ = trained_classifier(
        module, data, folder, epochs=config.epochs, weight_decay=0.0, seed=config.seed
    )
    calibration = data.search.images[: config.calibration]
    weights = f"trained, epochs: {config.epochs}"
    return Subject(module, variables, calibration, data.test.images, bits, weights, data.name)


def _published(config: Config, name: str, bits: int) -> Subject:
    module, variables = load_published(PUBLISHED[name])
    data = load("cifar10", seed=config.seed)
    calibration = data.search.images[: config.calibration]
    return Subject(module, variables, calibration, data.test.images, bits, "published", "cifar10")


def _autoencoder(config: Config, folder: pathlib.Path) -> Subject:
    whole = load(config.data, seed=config.seed)
    data = one_class(whole, NORMAL)
    search = data.search.images
    module = Autoencoder(channels=search.shape[-1])
    variables, _ = trained_autoencoder(module, data, folder, epochs=config.epochs, seed=config.seed)
    calibration, weights = search[: config.calibration], f"trained, epochs: {config.epochs}"
    return Subject(module, variables, calibration, data.test.images, 8, weights, config.data)


def _detector(config: Config) -> Subject:
    coco = Coco("yolo-fastest-1.1")
    calibration = coco.train_images[: min(config.calibration, 64)]
    module, variables = coco.detector.module, coco.variables
    return Subject(module, variables, calibration, coco.test_images, 8, "published", coco.data)


Maker = Callable[[Config, pathlib.Path], Subject]
NETWORKS: dict[Name, Maker] = {
    "lenet_300_100": lambda c, at: _lenet(c, at, "lenet_300_100", "ternary"),
    "lenet_5": lambda c, at: _lenet(c, at, "lenet_5", 8),
    "resnet_8": lambda c, _: _published(c, "resnet_8", 8),
    "resnet_20": lambda c, _: _published(c, "resnet_20", 8),
    "resnet_20_3_bit": lambda c, _: _published(c, "resnet_20", 3),
    "resnet_56": lambda c, _: _published(c, "resnet_56", 8),
    "vgg_16": _vgg,
    "autoencoder": _autoencoder,
    "yolo_fastest": lambda c, _: _detector(c),
}


if __name__ == "__main__":
    script(main, Config, __doc__)
