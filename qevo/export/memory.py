"""Where activations lie in one block of memory, so that those that live together do not overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qevo.export.steps import Multiply, Outputs, Step


class Layout(NamedTuple):
    """Offsets of all tensors but images and output, by name, and the bytes they take together."""

    offsets: Mapping[str, int]
    size: int


def place(steps: Sequence[Step]) -> Layout:
    """First fit in the order of computation; one byte an element.

    A tensor lives from the step that makes it to the last one that reads it. The network's output
    goes elsewhere, as it is int32, and so do the maps that it consists of.
    """
    last = {x.name: number for number, step in enumerate(steps) for x in step.inputs}
    offsets: dict[str, int] = {}
    living: dict[str, tuple[int, int]] = {}  # begin and end
    size = 0
    for number, step in enumerate(steps):
        if isinstance(step, Outputs) or (isinstance(step, Multiply) and step.shift is None):
            continue
        living = {name: room for name, room in living.items() if last.get(name, -1) >= number}
        begin = 0
        for start, end in sorted(living.values()):
            if start - begin >= step.output.size:
                break
            begin = max(begin, end)
        offsets[step.name] = begin
        living[step.name] = (begin, begin + step.output.size)
        size = max(size, begin + step.output.size)
    return Layout(offsets, size)
