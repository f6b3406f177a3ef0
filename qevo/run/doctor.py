"""`qevo doctor`: what this machine has, and whether its arithmetic is exact."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from rich.markup import escape
from rich.table import Table

from qevo.core.devices import cores, free_memory
from qevo.data import load
from qevo.data.known import KNOWN
from qevo.data.packaged import NAME as PACKAGED
from qevo.errors import QevoError
from qevo.integer.products import choose_path, conv, dot
from qevo.nets.integer_numerics import Arithmetic
from qevo.run.console import console
from qevo.run.provenance import commit, device, versions
from qevo.run.session import cache_folder

State = Literal["ok", "missing", "broken"]

MARKS: dict[State, str] = {
    "ok": "[green]ok[/]",
    "missing": "[yellow]--[/]",
    "broken": "[red]!!![/]",
}
EXTRAS = {
    "data": ("tensorflow_datasets", "PIL"),
    "detection": ("pycocotools", "yaml"),
    "export": ("onnx", "onnxruntime"),
    "tracking": ("tensorboardX",),
}


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """Print what this machine has, which fast paths are in use, and whether they are exact.

    Ends with 1 where something does not work as it should; what is only missing is said.
    """

    json: bool = False
    """Print JSON."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report."""

    part: str
    state: State
    what: str


def examine(config: DoctorConfig) -> bool:
    """Print the findings; returns whether nothing is broken."""
    findings = [
        *_software(),
        *_devices(),
        *_exactness(),
        *_data(),
        *_extras(),
        _cache(),
    ]
    if config.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in findings:
            table.add_row(MARKS[finding.state], finding.part, escape(finding.what))
        console.print(table)
    return not any(finding.state == "broken" for finding in findings)


def _software() -> list[Finding]:
    found = dict(versions())
    own = f"qevo {found.pop('qevo')}, commit {(commit() or 'unknown')[:10]}"
    others = ", ".join(f"{name} {version}" for name, version in found.items())
    return [Finding("software", "ok", f"{own}; {others}")]


def _devices() -> list[Finding]:
    free = free_memory(jax.devices()[0])
    memory = "" if free is None else f", {free / 2**30:.1f} GiB free"
    findings = [Finding("devices", "ok", f"{device()}{memory}, {cores()} cores for this process")]
    for kind in ("gpu", "tpu"):
        try:
            jax.devices(kind)
        except RuntimeError:
            if kind == "gpu" and os.path.exists("/dev/nvidia0"):
                text = (
                    "there is a GPU that JAX does not see: "
                    "pip install -e '.[cuda]' in qevo's checkout"
                )
                findings.append(Finding("devices", "broken", text))
    return findings


def _exactness() -> list[Finding]:
    """The products of int8 values by the paths in use here, against numpy's int64."""
    draw = np.random.default_rng(0)

    def levels(*shape: int) -> np.ndarray:
        return draw.integers(-127, 128, shape, np.int8)

    x, w, image, kernel = levels(64, 128), levels(128, 32), levels(4, 9, 9, 8), levels(1, 1, 8, 32)
    dense = functools.partial(dot, jnp.asarray(x), jnp.asarray(w), bound=128 * 127**2)
    pixels = functools.partial(
        conv, jnp.asarray(image), jnp.asarray(kernel), padding="VALID", bound=8 * 127**2
    )
    choose = functools.partial(choose_path, backend=jax.default_backend())
    findings = []
    for arithmetic in get_args(Arithmetic):
        path = choose("dot", bound=128 * 127**2, arithmetic=arithmetic)
        found = functools.partial(dense, path=path)
        what = f"dense products, {arithmetic!r}: {path}"
        findings.append(_compare(what, found, x.astype(np.int64) @ w))
        path = choose("conv", bound=8 * 127**2, arithmetic=arithmetic)
        found = functools.partial(pixels, path=path)
        what = f"convolutions, {arithmetic!r}: {path}"
        findings.append(_compare(what, found, image.astype(np.int64) @ kernel[0, 0]))
    return findings


def _compare(what: str, run: Callable[[], jax.Array], expected: np.ndarray) -> Finding:
    try:
        found = np.asarray(run())
    except Exception as error:  # whatever the backend cannot do is what is to be said
        return Finding("arithmetic", "broken", f"{what}: {str(error).splitlines()[0]}")
    wrong = int((found != expected).sum())
    if wrong:
        return Finding("arithmetic", "broken", f"{what}: {wrong} of {found.size} values are wrong")
    return Finding("arithmetic", "ok", f"{what}, exact")


def _data() -> list[Finding]:
    findings = []
    for name in (PACKAGED, *KNOWN):
        try:
            data = load(name)
        except QevoError as error:
            absent = "not found" in str(error) and name != PACKAGED
            text = str(error).partition(". Looked for")[0] if absent else str(error)
            findings.append(Finding("data", "missing" if absent else "broken", text))
            continue
        parts = f"{len(data.search) + len(data.validation):,} + {len(data.test):,} images"
        findings.append(Finding("data", "ok", f"{name}: {parts}, {data.source}"))
    if "QEVO_DATA_DIR" not in os.environ:
        text = "QEVO_DATA_DIR is not set: it names the folder that holds mnist/, cifar10/ and so on"
        findings.append(Finding("data", "missing", text))
    return findings


def _extras() -> list[Finding]:
    findings = []
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        if absent:
            text = f"{', '.join(absent)}: pip install -e '.[{extra}]' in qevo's checkout"
            findings.append(Finding("extras", "missing", text))
        else:
            findings.append(Finding("extras", "ok", f"{extra}: {', '.join(modules)}"))
    return findings


def _cache() -> Finding:
    folder = cache_folder()
    if folder is None:
        return Finding("cache", "missing", "no home folder: programs are compiled anew each time")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding("cache", "broken", f"{folder} cannot be written: {error}")
    if not os.access(folder, os.W_OK):
        return Finding("cache", "broken", f"{folder} cannot be written; set XDG_CACHE_HOME")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Finding("cache", "ok", f"compiled programs in {folder}, {size / 2**20:,.0f} MiB")
