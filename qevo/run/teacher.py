"""The float network of a training run: kept in its folder, given, or trained."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from qevo.data import Dataset, Split
from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.images import UNIT_RANGE, PixelScaling
from qevo.nets.registry import architecture
from qevo.quantize.convert import layer_names
from qevo.quantize.published import load_published, published_scaling
from qevo.quantize.training import TrainingConfig, flip_and_crop
from qevo.quantize.training import train as train_float
from qevo.quantize.variables import shapes_by_name, variable_shapes
from qevo.run import folder as files
from qevo.run.config import TrainConfig
from qevo.run.console import console


def check_teacher(config: TrainConfig, data: Dataset) -> list[str]:
    """Refuse a teacher that cannot be; returns the names of its layers.

    Raises:
      QevoError: a count below 1, images too small for the architecture, or a file that is missing,
        damaged, or does not fit the architecture.
    """
    for name, value in (("epochs", config.training.epochs), ("batch", config.training.batch)):
        if value < 1:
            raise QevoError(f"--training.{name} must be at least 1, got {value}")
    module = float_module(config, data)
    needed = _needed(module, data.search.images)
    if config.teacher and not (config.folder / files.TEACHER).exists():
        read_teacher(config.teacher, module, data.search.images)
    return layer_names(unflatten_dict(needed, sep="/")["params"])


def trained_network(
    config: TrainConfig, data: Dataset, seconds: dict[str, float]
) -> tuple[nn.Module, Any]:
    """The float network: kept from before in the folder, given, or trained now."""
    module = float_module(config, data)
    kept = config.folder / files.TEACHER
    path = kept if kept.exists() else config.teacher
    if path is None:
        began = time.monotonic()
        variables = _train_teacher(config, module, data.search)
        seconds["teacher"] = time.monotonic() - began
        console.print(f"float teacher trained in {seconds['teacher']:.0f} s")
    else:
        variables = read_teacher(path, module, data.search.images)
    if path != kept:
        scaling = _scaling(module)
        rule = {} if scaling == UNIT_RANGE else {_PIXELS: _arrays_of(scaling)}
        files.save_arrays(kept, {**variables, **rule})
    return module, variables


def float_module(config: TrainConfig, data: Dataset) -> nn.Module:
    """The architecture, with the pixel rule of the teacher that the folder has or the run is given.

    Raises:
      QevoError: a teacher's file that is damaged.
    """
    module = architecture(config.architecture, classes=len(data.classes))
    kept = config.folder / files.TEACHER
    scaling, path = None, kept if kept.exists() else config.teacher
    if path is not None and path.suffix != ".npz" and path.is_file():
        scaling = _kept_scaling(path)
    if scaling is None and config.teacher and config.teacher.suffix == ".npz":
        scaling = published_scaling(module)
    return module if scaling is None else module.clone(numerics=Float(scaling=scaling))


_PIXELS = "pixels"  # beside the variables in a teacher's file, if its rule is not 0..1


def _scaling(module: nn.Module) -> PixelScaling:
    numerics: Any = getattr(module, "numerics", None)
    return numerics.scaling


def _arrays_of(scaling: PixelScaling) -> dict[str, np.ndarray]:
    return {name: np.asarray(v, np.float64) for name, v in dataclasses.asdict(scaling).items()}


def _kept_scaling(path: pathlib.Path) -> PixelScaling | None:
    """The pixel rule in a teacher's file; ``None`` where it has none."""
    rule = files.load_arrays(path).get(_PIXELS)
    if rule is None:
        return None
    try:
        return PixelScaling(**{name: tuple(map(float, rule[name])) for name in rule})
    except (TypeError, ValueError) as error:
        raise QevoError(f"{path}: {_PIXELS}/* are no rule for pixels: {error}") from None


def _train_teacher(config: TrainConfig, module: nn.Module, search: Split) -> Any:
    training: TrainingConfig = dataclasses.replace(
        config.training, seed=config.seed, batch=min(config.training.batch, len(search))
    )
    steps = training.epochs * (len(search) // training.batch)
    with console.status("training the float teacher") as status:

        def show(step: int, metrics: Any) -> None:
            status.update(
                f"training the float teacher: step {step:,} of {steps:,}, "
                f"loss {metrics['loss']:.3f}, accuracy {metrics['accuracy']:.2%}"
            )

        return train_float(
            module,
            search.images,
            search.labels,
            config=training,
            augment=flip_and_crop if config.augment == "flip_and_crop" else None,
            progress=show,
        )


def _needed(module: nn.Module, images: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Shapes of the variables, of an architecture that can take such images."""
    refused = (
        f"{type(module).__name__} cannot take images of {images.shape[1:]}, which may be too small"
    )
    try:
        shapes = variable_shapes(module, images.shape[1:])
    except ZeroDivisionError:
        raise QevoError(refused) from None
    except (TypeError, ValueError) as error:
        raise QevoError(f"{refused}: {error}") from None
    empty = [name for name, shape in shapes.items() if 0 in shape]
    if empty:
        raise QevoError(f"{refused}: nothing is left of them before {empty[0]}")
    return shapes


def read_teacher(path: pathlib.Path, module: nn.Module, images: np.ndarray) -> Any:
    """The variables in a teacher's file, checked against the architecture."""
    if path.suffix == ".npz":
        published, variables = load_published(path)
        if type(published) is not type(module):
            raise QevoError(
                f"{path} holds {type(published).__name__}; --architecture says"
                f" {type(module).__name__}"
            )
    elif path.suffix in (".pt", ".pth", ".th"):
        raise QevoError(
            f"{path}: a teacher is .safetensors or .npz; qevo refine reads torch checkpoints"
        )
    else:
        variables = files.load_arrays(path)
        variables.pop(_PIXELS, None)
    found, needed = shapes_by_name(variables), _needed(module, images)
    odd = sorted(n for n in found.keys() | needed.keys() if found.get(n) != needed.get(n))
    if odd:
        first = f"{odd[0]} is {found.get(odd[0], 'not there')}, not {needed.get(odd[0], 'there')}"
        raise QevoError(
            f"{path} does not fit {type(module).__name__} on images {images.shape[1:]}: {first}; "
            f"{len(odd)} of {len(needed)} arrays differ"
        )
    return variables
