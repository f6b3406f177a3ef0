"""The numbers of a ``.weights`` file, and the variables that they are."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from qevo.core.writing import write_whole
from qevo.errors import QevoError
from qevo.quantize.importing.darknet.architecture import load_cfg
from qevo.quantize.importing.darknet.detector import Detector
from qevo.quantize.variables import variable_shapes

_HEADER = 5  # int32: version, and images seen as one int64; one less in old files


def load_darknet(
    cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
) -> tuple[Detector, dict[str, Any]]:
    """A detector and its published variables.

    Returns:
      The detector, and ``params`` and ``batch_stats`` for its module, float32.

    Raises:
      QevoError: as `load_cfg`, or a file of weights that is cut short, too long, or not finite.
    """
    detector = load_cfg(cfg, size=size)
    return detector, read_weights(detector, weights)


def read_weights(detector: Detector, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The variables that a ``.weights`` file holds for a detector; as `load_darknet`.

    After the header, for each convolution in the order of the ``.cfg``: biases, the scales, means
    and variances of a batch norm, and the kernel ``[out, in, height, width]``; all float32.
    """
    path = Path(path)
    if not path.is_file():
        raise QevoError(f"no such file: {path}")
    content = path.read_bytes()
    if len(content) < 4 * _HEADER:
        raise QevoError(f"{path}: {len(content)} bytes are no file of darknet's weights")
    major, minor = np.frombuffer(content, "<i4", 2).tolist()
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise QevoError(f"{path}: version {major}.{minor} is none of darknet's: another format?")
    start = 4 * (_HEADER if 10 * major + minor >= 2 else _HEADER - 1)
    values = np.frombuffer(content[: len(content) - (len(content) - start) % 4], "<f4", -1, start)
    at, flat = 0, {}

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        at += math.prod(shape)
        return values[at - math.prod(shape) : at].reshape(shape)

    shapes = variable_shapes(detector.module, detector.image_shape)
    layers = [call.name for call in detector.module.calls if call.operation in ("conv", "map")]
    needed = sum(math.prod(shape) for shape in shapes.values())
    if len(values) != needed or (len(content) - start) % 4:
        raise QevoError(
            f"{path}: the architecture has {needed:,} numbers, the file"
            f" {(len(content) - start) / 4:,.10g}: cut short, or of another .cfg"
        )
    for name in layers:
        height, width, inputs, features = shapes[f"params/{name}/kernel"]
        if f"params/{name}/bias" in shapes:
            flat[f"params/{name}/bias"] = take(features)
        else:
            flat[f"params/{name}/norm/bias"] = take(features)
            flat[f"params/{name}/norm/scale"] = take(features)
            flat[f"batch_stats/{name}/norm/mean"] = take(features)
            flat[f"batch_stats/{name}/norm/var"] = take(features)
        flat[f"params/{name}/kernel"] = take(features, inputs, height, width).transpose(2, 3, 1, 0)
    for name, value in flat.items():
        if not np.isfinite(value).all():
            raise QevoError(f"{path}: {name} holds values that are not finite")
    return unflatten_dict({name: jnp.asarray(value) for name, value in flat.items()}, sep="/")


def write_weights(
    detector: Detector, variables: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Write variables as `read_weights` reads them."""
    flat = {k: np.asarray(v, "<f4") for k, v in flatten_dict(dict(variables), sep="/").items()}
    parts = [np.array([0, 2, 0, 0, 0], "<i4").tobytes()]
    for call in detector.module.calls:
        if call.operation not in ("conv", "map"):
            continue
        own = f"params/{call.name}"
        if f"{own}/bias" in flat:
            names = [f"{own}/bias"]
        else:
            norm = f"{call.name}/norm"
            names = [f"params/{norm}/bias", f"params/{norm}/scale"]
            names += [f"batch_stats/{norm}/mean", f"batch_stats/{norm}/var"]
        parts += [flat[name].tobytes() for name in names]
        parts.append(flat[f"{own}/kernel"].transpose(3, 2, 0, 1).tobytes())
    write_whole(Path(path), b"".join(parts))
