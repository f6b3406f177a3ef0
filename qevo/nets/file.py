"""The network file: one safetensors file with the tensors and everything needed to run them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from qevo.core.writing import write_whole
from qevo.errors import QevoError
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.network import QuantizedNetwork
from qevo.nets.packing import unpack
from qevo.nets.registry import STORED, architecture

VERSION = 1
PACKED_VERSION = 1  # of `qevo.export.packed`
_KEY = "qevo"  # the one metadata key: several would be written in no fixed order
_UNSAVED = {"parent", "name", "numerics"}


def save_safetensors(network: QuantizedNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network file; equal networks give equal bytes, whatever the machine.

    Tensors are ``weights:LAYER`` (int8) and ``constants:LAYER:KEY`` (int32); the metadata is sorted
    JSON. Written beside ``path`` and moved there, so that an interrupted save leaves no half file.
    """
    write_whole(Path(path), serialized(header_of(network), tensors_of(network)))


def tensors_of(network: QuantizedNetwork) -> dict[str, np.ndarray]:
    """The tensors of a network file."""
    tensors = {f"weights:{name}": np.asarray(value) for name, value in network.weights.items()}
    for name, part in network.constants.items():
        tensors |= {f"constants:{name}:{key}": np.asarray(value) for key, value in part.items()}
    return tensors


def header_of(network: QuantizedNetwork) -> dict[str, Any]:
    """The metadata of a network file, as JSON values."""
    return {
        "version": VERSION,
        "architecture": describe(network.module),
        "image_shape": network.image_shape,
        "layers": {name: dataclasses.asdict(facts) for name, facts in network.layers.items()},
        "ranges": dict(network.ranges),
        "fraction_bits": network.fraction_bits,
        "bits": dict(network.bits),
        "activation_bits": network.activation_bits,
        "scales": dict(network.scales),
    }


def serialized(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of these, with sorted metadata."""
    metadata = {_KEY: json.dumps(header, sort_keys=True)}
    contiguous = {name: np.asarray(t, order="C") for name, t in tensors.items()}  # 0-d stays 0-d
    return serialize(contiguous, metadata)


def load_safetensors(
    path: str | os.PathLike[str], module: nn.Module | None = None
) -> QuantizedNetwork:
    """Read a network file, packed or not, and check all of it against the architecture.

    Args:
      path: of the file.
      module: the architecture, needed if it is not one of `STORED`.

    Raises:
      QevoError: no such file, a file that is cut short or no network file, another format version,
        another architecture than ``module``, or tensors that do not fit it.
    """
    if isinstance(module, type):
        raise QevoError(f"give an instance, {module.__name__}(), not the class")
    header, tensors = _read(Path(path))
    version = header.get("version")
    if version != VERSION:
        raise QevoError(
            f"{path}: network format version {version}; this qevo reads version {VERSION}"
        )
    try:
        if "packed" in header:
            tensors = _unpacked(header["packed"], tensors)
        module = restore(header["architecture"], module)
        weights: dict[str, jax.Array] = {}
        constants: dict[str, dict[str, jax.Array]] = {}
        for key, tensor in tensors.items():
            kind, name, *field = key.split(":")
            if kind == "weights":
                weights[name] = jnp.asarray(tensor)
            else:
                constants.setdefault(name, {})[field[0]] = jnp.asarray(tensor)
        height, width, channels = header["image_shape"]
        return QuantizedNetwork(
            module=module,
            image_shape=(height, width, channels),
            weights=weights,
            constants=constants,
            layers={n: LayerArithmetic(**facts) for n, facts in header["layers"].items()},
            ranges={n: (low, high) for n, (low, high) in header["ranges"].items()},
            fraction_bits=header["fraction_bits"],
            bits=header["bits"],
            activation_bits=header["activation_bits"],
            scales=header["scales"],
        )
    except QevoError as error:
        raise QevoError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise QevoError(f"{path}: the header does not describe a network: {error!r}") from None


def describe(module: nn.Module) -> dict[str, Any]:
    """The architecture as a file names it: its name and its fields."""
    fields = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in _UNSAVED
    }
    names = [name for name, made in STORED.items() if made is type(module)]
    if names:
        return {"name": names[0], "fields": fields}
    return {
        "name": f"{type(module).__module__}.{type(module).__qualname__}",
        "fields": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(fields)),  # a function's, in this process
    }


def restore(description: dict[str, Any], module: nn.Module | None) -> nn.Module:
    """The architecture that `describe` described, which ``module`` must be if it is not qevo's.

    Raises:
      QevoError: another architecture than ``module``, or none of `STORED` without it.
    """
    name = description["name"]
    if module is not None:
        # Through JSON, where tuples are lists.
        given = json.loads(json.dumps(describe(module)))
        if _known(given) != _known(description):
            own = "; it is qevo's own and needs no module" if name in STORED else ""
            raise QevoError(
                f"holds the architecture {description}, the given module is {given}{own}"
            )
        return module
    if name not in STORED:
        raise QevoError(f"holds the architecture {name}, which is not qevo's: pass module=")
    return architecture(name, **{k: tuples(v) for k, v in description["fields"].items()})


def _known(description: dict[str, Any]) -> dict[str, Any]:
    """Class and fields alone: the file of a class may be imported by another name."""
    return description | {"name": description["name"].rpartition(".")[2]}


def tuples(value: Any) -> Any:
    """What JSON made lists of, at every depth."""
    return tuple(tuples(v) for v in value) if isinstance(value, list) else value


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise QevoError(f"no such file: {path}")
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(header, dict):
            raise ValueError(f"the header should be an object, not {header!r}")
    except KeyError:
        raise QevoError(f"{path}: a safetensors file, but not one of qevo's networks") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise QevoError(f"{path}: not a readable network file (cut short?): {error}") from None
    return header, tensors


def _unpacked(packed: dict[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a network file from those of a packed one."""
    if packed["version"] != PACKED_VERSION:
        raise QevoError(
            f"packed format version {packed['version']}; this qevo reads version {PACKED_VERSION}"
        )
    own = {name: t for name, t in tensors.items() if not name.startswith(("scale:", "bias:"))}
    for layer in packed["layers"]:
        name = f"weights:{layer['name']}"
        try:
            own[name] = unpack(own[name], layer["bits"], layer["shape"])
        except QevoError as error:
            raise QevoError(f"{layer['name']}: {error}") from None
    return own
