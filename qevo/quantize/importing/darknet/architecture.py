"""From the sections of a ``.cfg`` file to an architecture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from qevo.detection import YoloHead
from qevo.errors import QevoError
from qevo.nets.maps import Shape
from qevo.nets.traced import Call, Traced
from qevo.quantize.importing.darknet.detector import Detector
from qevo.quantize.importing.darknet.sections import Section, read_cfg

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
        others = self._other(section, index, "from")
        if len(others) != 1:
            raise section.error(f"from: expected one section, got {len(others)}")
        (other,) = others
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
