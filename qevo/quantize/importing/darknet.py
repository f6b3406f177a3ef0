"""Detectors from darknet's files: ``.cfg`` is an architecture, ``.weights`` its variables."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from qevo.detection import Detections, Placement, YoloHead, decode, suppress
from qevo.errors import QevoError
from qevo.nets.maps import Shape, apart
from qevo.nets.traced import Call, Traced

_ACTIVATIONS = {"linear": None, "leaky": "leaky", "relu": "relu"}
_LEFT_OUT = ("dropout",)  # which only training has
_OTHER = {  # what would make a section mean something else, and what it is by default
    "convolutional": {
        "dilation": "1",
        "stride_x": "",
        "stride_y": "",
        "antialiasing": "0",
        "binary": "0",
        "xnor": "0",
        "share_index": "",
        "flipped": "0",
    },
    "maxpool": {"stride_x": "", "stride_y": "", "maxpool_depth": "0", "antialiasing": "0"},
    "shortcut": {"weights_type": "none"},
    "upsample": {"reverse": "0", "scale": "1"},
    "yolo": {"new_coords": "0"},
}
_BATCH = 32  # images whose boxes are decoded at once
_HEADER = 5  # int32: version, and images seen as one int64; one less in old files


@dataclasses.dataclass(frozen=True)
class Section:
    """One ``[name]`` of a ``.cfg`` and what it says.

    Attributes:
      kind: the name.
      line: at which it begins, for errors.
      values: text by key.
    """

    kind: str
    line: int
    values: Mapping[str, str]

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number.

        Raises:
          QevoError: where there is none and no default, or something else.
        """
        return self._parsed(key, int, default, "a whole number")

    def number(self, key: str, default: float | None = None) -> float:
        """A number, as `integer`."""
        return self._parsed(key, float, default, "a number")

    def numbers(self, key: str, kind: Callable[[str], Any] = int) -> tuple[Any, ...]:
        """Numbers with commas between them, as `integer`."""
        return self._parsed(
            key, lambda text: tuple(map(kind, text.split(","))), None, "numbers with commas"
        )

    def _parsed(self, key: str, parse: Callable[[str], Any], default: Any, wanted: str) -> Any:
        text = self.values.get(key)
        if text is None and default is not None:
            return default
        try:
            return parse(text or "")
        except ValueError:
            raise self.error(f"{key}: expected {wanted}, found {text or 'nothing'}") from None

    def error(self, message: str) -> QevoError:
        """An error that says where."""
        return QevoError(f"line {self.line}, [{self.kind}]: {message}")


@dataclasses.dataclass(frozen=True)
class Detector:
    """A detector's architecture, and what its output means.

    Attributes:
      module: takes images ``[B, H, W, C]`` of pixels by 1/255, and returns its maps in a row.
      image_shape: ``(H, W, C)``.
      heads: what each map means.
      shapes: ``(h, w, channels)`` of each map.
    """

    module: Traced
    image_shape: tuple[int, int, int]
    heads: tuple[YoloHead, ...]
    shapes: tuple[Shape, ...]

    def detections(
        self, outputs: Any, placements: Sequence[Placement] | None = None, **options: Any
    ) -> list[Detections]:
        """The objects that an output stands for.

        Args:
          outputs: real numbers ``[B, N]``; those of an integer network times its ``output_scale``.
          placements: where each image lies in the input, to have boxes in the image's own pixels.
          options: of `qevo.detection.suppress`.
        """
        found: list[Detections] = []
        size = self.image_shape[:2]
        for start in range(0, len(outputs), _BATCH):
            maps = apart(jnp.asarray(outputs[start : start + _BATCH], jnp.float32), self.shapes)
            found += suppress(*decode(maps, self.heads, size=size), **options)
        if placements is None:
            return found
        return [
            Detections(place.back(one.boxes), one.scores, one.labels)
            for one, place in zip(found, placements, strict=True)
        ]


def read_cfg(path: str | os.PathLike[str]) -> list[Section]:
    """The sections of a ``.cfg`` file.

    Raises:
      QevoError: no such file, or a line that is neither a section nor ``key=value``.
    """
    path = Path(path)
    if not path.is_file():
        raise QevoError(f"no such file: {path}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QevoError(f"{path}: expected darknet's text ({error})") from None
    sections: list[tuple[str, int, dict[str, str]]] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].partition(";")[0].strip()
        key, equals, value = (part.strip() for part in text.partition("="))
        if text.startswith("[") and text.endswith("]"):
            sections.append((text[1:-1].strip().lower(), number, {}))
        elif equals and sections:
            sections[-1][2][key] = value
        elif text:
            raise QevoError(f"{path}, line {number}: expected [section] or key=value, found {text}")
    return [Section(*found) for found in sections]


def load_cfg(
    path: str | os.PathLike[str], *, size: tuple[int, int] | None = None, classes: int | None = None
) -> Detector:
    """The detector that a ``.cfg`` describes.

    A layer is called by its kind and place among the sections, as darknet counts them from 0:
    ``convolutional_0``, ``shortcut_5``.

    Args:
      path: of the file.
      size: height and width of the images, if not those of the file.
      classes: that every head has to have, to check.

    Raises:
      QevoError: no such file, or what no integer network of qevo can be: names the line and what
        would be right.
    """
    try:
        return _Builder(read_cfg(path), size, classes).detector
    except QevoError as error:
        place = "" if str(path) in str(error) else f"{path}, "
        raise QevoError(f"{place}{error}") from None


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

    shapes = variable_shapes(detector)
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
    Path(path).write_bytes(b"".join(parts))


def variable_shapes(detector: Detector) -> dict[str, tuple[int, ...]]:
    """Shapes of the float variables, by names such as ``params/convolutional_0/kernel``."""
    image = jax.ShapeDtypeStruct((1, *detector.image_shape), jnp.uint8)
    tree: Any = jax.eval_shape(detector.module.init, jax.random.key(0), image)
    flat: dict[str, Any] = flatten_dict(tree, sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


class _Builder:
    """Reads sections one after the other and writes down calls."""

    def __init__(
        self, sections: Sequence[Section], size: tuple[int, int] | None, classes: int | None
    ) -> None:
        if not sections or sections[0].kind not in ("net", "network"):
            raise QevoError("expected [net] as the first section")
        net, self.sections = sections[0], sections[1:]
        height, width = size or (net.integer("height"), net.integer("width"))
        self.image_shape = (height, width, net.integer("channels", 3))
        if min(self.image_shape) < 1:
            raise net.error(f"expected images of a positive size, found {self.image_shape}")
        self.calls: list[Call] = []
        self.places: list[int] = []  # of each section's result among the activations
        self.shapes: list[Shape] = [self.image_shape]  # of each activation
        self.classes = classes
        self.heads: list[tuple[int, YoloHead]] = []
        for index, section in enumerate(self.sections):
            self.places.append(self._place(index, section))
        if not self.heads:
            raise QevoError("expected at least one [yolo] section, found none")
        maps = tuple(place for place, _ in self.heads)
        used = {place for call in self.calls for place in call.inputs}
        for place in set(maps) & used:
            raise QevoError(f"{self.calls[place - 1].name} feeds a [yolo] section and others")
        self.calls.append(Call("outputs", maps))
        self.detector = Detector(
            Traced(calls=tuple(self.calls)),
            self.image_shape,
            tuple(head for _, head in self.heads),
            tuple(self.shapes[place] for place in maps),
        )

    def _place(self, index: int, section: Section) -> int:
        """The activation that a section results in."""
        name = f"{section.kind}_{index}"
        for key, usual in _OTHER.get(section.kind, {}).items():
            value = section.values.get(key, usual)
            if value != usual:
                raise section.error(f"{key}={value} is not supported")
        before = self.places[-1] if self.places else 0
        if section.kind == "convolutional":
            following = self.sections[index + 1].kind if index + 1 < len(self.sections) else ""
            return self._convolution(section, before, name, head=following == "yolo")
        if section.kind == "maxpool":
            return self._max_pool(section, before)
        if section.kind == "shortcut":
            return self._shortcut(section, before, index, name)
        if section.kind == "route":
            return self._route(section, index, name)
        if section.kind == "upsample":
            factor = section.integer("stride", 2)
            height, width, channels = self.shapes[before]
            options = (("factor", factor),)
            return self._call(
                "upsample", (before,), options, "", (factor * height, factor * width, channels)
            )
        if section.kind == "yolo":
            self._yolo(section, before)
            return before
        if section.kind in _LEFT_OUT:
            return before
        raise section.error(
            "not supported: there are convolutional, maxpool, shortcut, route, upsample, yolo and"
            " dropout"
        )

    def _convolution(self, section: Section, before: int, name: str, *, head: bool) -> int:
        features, size = section.integer("filters", 1), section.integer("size", 1)
        stride, groups = section.integer("stride", 1), section.integer("groups", 1)
        pad = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
        channels = self.shapes[before][2]
        activation = section.values.get("activation", "logistic")
        if min(features, size, stride, groups) < 1 or pad < 0:
            raise section.error("expected filters, size, stride and groups of at least 1")
        if activation not in _ACTIVATIONS:
            raise section.error(
                f"activation={activation}: an integer layer has {', '.join(_ACTIVATIONS)}"
            )
        if groups not in (1, channels) or (groups > 1 and groups != features):
            raise section.error(
                f"groups={groups} for {channels} channels and {features} filters: expected 1, or"
                " all equal"
            )
        normalised = bool(section.integer("batch_normalize", 0))
        shape = self._windows(section, before, size, stride, 2 * pad, features)
        if head:
            if size > 1 or stride > 1 or pad or groups > 1 or normalised or activation != "linear":
                raise section.error(
                    "before [yolo]: expected size=1, stride=1, activation=linear and no"
                    " batch_normalize"
                )
            return self._call("map", (before,), (("channels", features),), name, shape)
        options = {
            "activation": _ACTIVATIONS[activation],
            "batch_norm": normalised,
            "depthwise": groups > 1,
            "features": features,
            "kernel": (size, size),
            "padding": ((pad, pad), (pad, pad)),
            "strides": (stride, stride),
        }
        return self._call("conv", (before,), tuple(options.items()), name, shape)

    def _max_pool(self, section: Section, before: int) -> int:
        stride = section.integer("stride", 1)
        size = section.integer("size", stride)
        total = section.integer("padding", size - 1)
        height, width, channels = self.shapes[before]
        if size < 1 or stride < 1 or total != size - 1:
            raise section.error("expected size and stride of at least 1, and no padding=")
        if max(size - stride, 0) // 2 != (size - 1) // 2:
            raise section.error(
                f"size={size} with stride={stride}: windows are supported at every pixel, or of"
                " size=2 with stride=2"
            )
        shape = (-(-height // stride), -(-width // stride), channels)
        options = (("padding", "SAME"), ("strides", (stride, stride)), ("window", (size, size)))
        if stride > 1 and (height % stride or width % stride):
            raise section.error(f"expected an input in multiples of {stride}, found {shape}")
        return self._call("max_pool", (before,), options, "", shape)

    def _shortcut(self, section: Section, before: int, index: int, name: str) -> int:
        activation = section.values.get("activation", "linear")
        if activation not in ("linear", "relu"):
            raise section.error(f"activation={activation}: a sum has linear or relu")
        (other,) = self._other(section, index, "from")
        if self.shapes[other] != self.shapes[before]:
            raise section.error(
                f"cannot add {list(self.shapes[before])} and {list(self.shapes[other])}: darknet"
                " would cut or fill up"
            )
        options = (("activation", _ACTIVATIONS[activation]),)
        return self._call("add", (before, other), options, name, self.shapes[before])

    def _route(self, section: Section, index: int, name: str) -> int:
        if section.integer("groups", 1) != 1:
            raise section.error("parts of channels (groups=) are not supported")
        places = self._other(section, index, "layers")
        if len(places) == 1:
            return places[0]
        sides = {self.shapes[place][:2] for place in places}
        if len(sides) > 1:
            raise section.error(f"expected maps of one size, found {sorted(sides)}")
        height, width = sides.pop()
        shape = (height, width, sum(self.shapes[place][2] for place in places))
        return self._call("concat", places, (), name, shape)

    def _other(self, section: Section, index: int, key: str) -> tuple[int, ...]:
        """The activations of the sections that one names, relative to it or from the start."""
        found = []
        for number in section.numbers(key):
            target = index + number if number < 0 else number
            if not 0 <= target < index:
                raise section.error(f"{key}={number} is none of the {index} sections before it")
            found.append(self.places[target])
        return tuple(found)

    def _yolo(self, section: Section, before: int) -> None:
        flat = section.numbers("anchors", float)
        if len(flat) % 2:
            raise section.error(f"anchors: expected pairs, found {len(flat)} numbers")
        anchors = tuple(zip(flat[::2], flat[1::2], strict=True))
        if section.integer("num", len(anchors)) != len(anchors):
            raise section.error(f"num={section.values['num']}, but {len(anchors)} anchors")
        mask = section.numbers("mask") if "mask" in section.values else tuple(range(len(anchors)))
        try:
            head = YoloHead(
                anchors, mask, section.integer("classes", 20), section.number("scale_x_y", 1.0)
            )
        except QevoError as error:
            raise section.error(str(error)) from None
        if not self.calls or self.calls[before - 1].operation != "map":
            raise section.error("expected [convolutional] before it")
        channels = self.shapes[before][2]
        if channels != head.channels:
            raise section.error(
                f"{len(mask)} anchors and {head.classes} classes need {head.channels} filters"
                f" before it, found {channels}"
            )
        if self.classes is not None and head.classes != self.classes:
            raise section.error(f"classes={head.classes}, but the data has {self.classes}")
        self.heads.append((before, head))

    def _windows(
        self, section: Section, before: int, size: int, stride: int, total: int, features: int
    ) -> Shape:
        height, width = ((side + total - size) // stride + 1 for side in self.shapes[before][:2])
        if min(height, width) < 1:
            raise section.error(
                f"a window of {size} does not fit into {list(self.shapes[before])}: larger images?"
            )
        return height, width, features

    def _call(
        self,
        operation: str,
        inputs: tuple[int, ...],
        options: tuple[tuple[str, Any], ...],
        name: str,
        shape: Shape,
    ) -> int:
        self.calls.append(Call(operation, inputs, options, name))
        self.shapes.append(shape)
        return len(self.calls)
