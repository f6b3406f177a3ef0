"""A float network of the user's own, and the images that it is refined on."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from qevo.data import Dataset, Split, is_unlabelled, load, read_unlabelled, shuffled
from qevo.data.load import NAMES
from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.images import IMAGENET_PIXELS, RAW_PIXELS, UNIT_RANGE, PixelScaling
from qevo.nets.registry import ARCHITECTURES, STORED, architecture
from qevo.quantize.importing import checkpoint_files, fit_arrays, read_arrays, trace
from qevo.quantize.outputs import float_logits
from qevo.quantize.published import load_published, published_scaling
from qevo.run.config import NetworkConfig

_PIXELS = {"unit": UNIT_RANGE, "raw": RAW_PIXELS, "imagenet": IMAGENET_PIXELS}
_LEAST = 8  # images of each part


def refine_data(config: NetworkConfig) -> Dataset:
    """At most ``calibration`` search, ``held_out`` validation, and the test images there are.

    Images without labels get the classes that the float network gives them, and 30 % of them, at
    most ``held_out`` for each, are kept for validation and test.

    Raises:
      QevoError: no images, too few, or as `load` and `own_network`.
    """
    if not config.data:
        raise QevoError("say which --data to calibrate on: a data set, a folder, or an .npy file")
    check_counts(config)
    path = pathlib.Path(config.data).expanduser()
    if config.data not in NAMES and path.exists() and is_unlabelled(path):
        return _with_classes(config, path)
    data = load(config.data, seed=config.split_seed)
    return Dataset(
        data.name,
        _first(data.search, config.calibration),
        _first(data.validation, config.held_out),
        data.test,
        data.classes,
        data.source,
    )


def check_counts(config: NetworkConfig) -> None:
    """Refuse too few images.

    Raises:
      QevoError: fewer than 8.
    """
    for name, value in (("calibration", config.calibration), ("held-out", config.held_out)):
        if value < _LEAST:
            raise QevoError(f"--{name} must be at least {_LEAST}, got {value}")


def _first(split: Split, count: int) -> Split:
    return split.take(np.arange(min(count, len(split))))


def _with_classes(config: NetworkConfig, path: pathlib.Path) -> Dataset:
    images = read_unlabelled(path)
    held_out = min(config.held_out, len(images) * 3 // 20)
    if held_out < _LEAST:
        raise QevoError(
            f"{path}: expected at least {_LEAST * 20 // 3 + 1} images, to hold some out, found "
            f"{len(images)}"
        )
    module, variables = _read(config, images.shape[1:], _stamps(config))
    classes = tuple(map(str, range(_classes(config, module, variables, images))))
    logits = float_logits(module, variables, images)
    order = shuffled(len(images), key=f"unlabelled {config.split_seed}")
    labels = logits.argmax(-1).astype(np.int32)
    everything = Split(images, labels)
    ends = held_out, 2 * held_out, 2 * held_out + config.calibration
    test, validation, search = (
        everything.take(order[a:b]) for a, b in zip((0, *ends), ends, strict=False)
    )
    source = f"images without labels in {path}; accuracy is agreement with the float network"
    return Dataset(path.stem, search, validation, test, classes, source)


def own_network(config: NetworkConfig, data: Dataset) -> tuple[nn.Module, dict[str, Any]]:
    """The float network: a module with `Float` numerics, and its variables.

    Raises:
      QevoError: no such file, module or function; one that cannot be read; or weights that do not
        fit it, all of which are listed.
    """
    module, variables = _read(config, data.search.images.shape[1:], _stamps(config))
    count = _classes(config, module, variables, data.search.images)
    if count != len(data.classes):
        raise QevoError(
            f"{config.network} tells {count} classes apart, and {config.data} has "
            f"{len(data.classes)}: give the images without their labels, or all classes"
        )
    return module, variables


def _classes(config: NetworkConfig, module: nn.Module, variables: Any, images: np.ndarray) -> int:
    """How many classes a network tells apart."""
    shape = jax.eval_shape(module.apply, variables, images[:1]).shape
    if len(shape) != 2:
        raise QevoError(
            f"{config.network} returns {list(shape[1:])} for an image, and `qevo refine` counts"
            " right classes; round an autoencoder with qevo.quantize.round_network and search with"
            ' NetworkProblem.of(..., loss="squared_error")'
        )
    return shape[1]


def own_architecture(config: NetworkConfig) -> nn.Module | None:
    """The module written against qevo's operations, or ``None`` where another is traced.

    Raises:
      QevoError: no such file, module or function.
    """
    network = _definition(config.network)
    native = isinstance(network, nn.Module) and hasattr(network, "numerics")
    return network if native else None


def _stamps(config: NetworkConfig) -> tuple[tuple[int, int], ...]:
    """When the network's files were last changed, and their sizes."""
    file, colon, _ = config.network.rpartition(":")
    try:
        paths = [pathlib.Path(file).expanduser()] if colon else []
        found = [path.stat() for path in [*paths, *checkpoint_files(config.checkpoint)]]
    except (OSError, QevoError):
        return ()  # what is not there is found by who reads it
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in found)


@functools.lru_cache(maxsize=1)  # several parts of a run ask for the same network
def _read(
    config: NetworkConfig, image_shape: tuple[int, int, int], stamps: tuple[tuple[int, int], ...]
) -> tuple[nn.Module, Any]:
    if not config.checkpoint.name:
        raise QevoError("say which --checkpoint holds the float network's weights")
    network = _definition(config.network)
    if config.names == ("published",):
        module, variables = load_published(config.checkpoint)
        if type(module) is not type(network):
            raise QevoError(
                f"{config.checkpoint} holds {type(module).__name__}, and --network says "
                f"{config.network}"
            )
        return module.clone(numerics=Float(scaling=published_scaling(module))), variables
    arrays = read_arrays(config.checkpoint)
    scaling = _scaling(config.pixels, image_shape[-1])
    names: Any = "in order" if config.names == ("in order",) else config.names
    fit = functools.partial(
        fit_arrays,
        arrays,
        image_shape=image_shape,
        names=names,
        layout=config.layout,
        source=str(config.checkpoint),
    )
    if isinstance(network, nn.Module) and hasattr(network, "numerics"):
        if scaling is None:
            raise QevoError("--pixels own is for a function of uint8 images that scales them")
        module = network.clone(numerics=Float(scaling=scaling))
        with _naming(config.network, image_shape):
            return module, fit(module=module)
    if config.names:
        raise QevoError(
            "--names pairs weights with a network written against qevo.nets.Numerics; "
            f"{config.network} takes the arrays of {config.checkpoint} by their own names"
        )
    if isinstance(network, nn.Module):
        image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
        with _naming(config.network, image_shape):
            shapes = jax.eval_shape(network.init, jax.random.key(0), image)
        arrays = _by_name(arrays, type(network).__name__, shapes)
    with _naming(config.network, image_shape):
        return trace(network, arrays, image_shape, scaling=scaling)


@contextlib.contextmanager
def _naming(network: str, image_shape: tuple[int, int, int]) -> Iterator[None]:
    """Say which network, and where in its file, if it fails on images of that shape."""
    try:
        yield
    except QevoError:
        raise
    except Exception as error:  # whatever the user's code raises
        file = str(pathlib.Path(network.rpartition(":")[0]).expanduser().resolve())
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        at = f" (line {lines[-1]})" if lines else ""
        raise QevoError(
            f"--network {network}{at} fails on images {list(image_shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _by_name(arrays: dict[str, np.ndarray], network: str, shapes: Any) -> Any:
    """A plain Flax module's variables; a name may have dots, and no collection in front."""
    wanted: dict[str, Any] = flatten_dict(shapes, sep="/")
    found = {name.replace(".", "/"): array for name, array in arrays.items()}
    for name in wanted:
        bare = name.partition("/")[2]
        if name not in found and bare in found:
            found[name] = found.pop(bare)
    problems = [
        f"  {name} should be {getattr(wanted.get(name), 'shape', 'absent')}, not "
        f"{getattr(found.get(name), 'shape', 'absent')}"
        for name in sorted({*wanted, *found})
        if getattr(wanted.get(name), "shape", None) != getattr(found.get(name), "shape", None)
    ]
    if problems:
        lines = "\n".join(problems)
        raise QevoError(f"the checkpoint does not fit {network}:\n{lines}")
    return unflatten_dict({name: found[name] for name in wanted}, sep="/")


def _definition(network: str) -> Any:
    """A module, or a function of arrays and images."""
    if network in STORED:
        return architecture(network)
    file, colon, name = network.rpartition(":")
    if not colon:
        raise QevoError(
            f"--network is FILE.py:NAME or one of {', '.join(ARCHITECTURES)}, not {network!r}"
        )
    path = pathlib.Path(file).expanduser()
    if not path.is_file():
        raise QevoError(f"--network {network}: no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"_qevo_own_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise QevoError(f"--network {network}: {path} is no Python file")
    source = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = source  # where dataclasses look up the types of their fields
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(source)
    except (Exception, SystemExit) as error:  # SystemExit: a script that reads its arguments
        raise QevoError(f"--network {network}: {path} cannot be imported: {error!r}") from error
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(source, name):
        named = sorted(key for key in vars(source) if not key.startswith("_"))
        raise QevoError(f"--network {network}: {path} has no {name}; there are {', '.join(named)}")
    found = getattr(source, name)
    if isinstance(found, type) and issubclass(found, nn.Module):
        try:
            return found()
        except TypeError as error:
            raise QevoError(
                f"--network {network}: {name}() needs arguments ({error}); give the file an "
                f"instance, such as NETWORK = {name}(...), and name that"
            ) from None
    if not isinstance(found, nn.Module) and not callable(found):
        raise QevoError(f"--network {network}: {name} is neither a Flax module nor a function")
    return found


def _scaling(pixels: tuple[str, ...], channels: int) -> PixelScaling | None:
    if pixels == ("own",):
        return None
    scaling = _PIXELS[pixels[0]] if len(pixels) == 1 and pixels[0] in _PIXELS else _normal(pixels)
    if not all(scale > 0 for scale in scaling.scale):
        raise QevoError(f"--pixels {' '.join(pixels)}: standard deviations must be positive")
    if not {len(scaling.scale), len(scaling.offset)} <= {1, channels}:
        raise QevoError(
            f"--pixels {' '.join(pixels)} is for {len(scaling.scale)} channels; the images have "
            f"{channels}"
        )
    return scaling


def _normal(pixels: tuple[str, ...]) -> PixelScaling:
    try:
        mean, std = (tuple(float(part) for part in text.split(",")) for text in pixels)
        return PixelScaling.normalized(mean, std)
    except (ValueError, ZeroDivisionError):
        raise QevoError(
            f"--pixels is {', '.join(_PIXELS)}, own, or MEAN STD such as 0.49,0.48,0.45 "
            f"0.25,0.24,0.26, not {' '.join(pixels)!r}"
        ) from None
