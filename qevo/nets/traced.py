"""An architecture that is data: the operations of a network that was written elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics

_NAMED = {"conv", "dense", "logits", "map", "add", "concat", "average_pool"}
_OPERATIONS = _NAMED | {"max_pool", "pad_channels", "upsample", "flatten", "outputs"}


class Call(NamedTuple):
    """One operation of `Numerics`; strings, numbers and tuples only, so that a file can hold it.

    Attributes:
      operation: the method of `Numerics`.
      inputs: which activations it takes: 0 is the network's input, i the result of the i-th call.
      options: its keyword arguments but for the name, in alphabetical order.
      name: path of a layer, sum or average ("block_0/conv_0"); empty for what has no name.
    """

    operation: str
    inputs: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()
    name: str = ""


class Traced(nn.Module):
    """Replays calls on whatever numerics it is given; `qevo.quantize.trace` makes it, and
    `qevo.quantize.importing.darknet`."""

    numerics: Numerics = Float()
    calls: tuple[Call, ...] = ()

    @nn.compact
    def __call__(self, images: Any) -> Any:
        activations = [self.numerics.input(images)]
        folders: dict[str, _Folder] = {}
        for call in self.calls:
            operation, inputs, options, name = call  # plain tuples where a file was read
            if operation not in _OPERATIONS:
                raise QevoError(f"{operation!r} is no operation of an architecture")
            *path, last = name.split("/")
            run = functools.partial(getattr(self.numerics, operation), **dict(options))
            if operation in _NAMED:
                run = functools.partial(run, name=last)
            run = functools.partial(run, *(activations[i] for i in inputs))
            if path and path[0] not in folders:
                folders[path[0]] = _Folder(name=path[0])
            activations.append(folders[path[0]](path[1:], run) if path else run())
        return activations[-1]


class _Folder(nn.Module):
    """Runs a call below its own name, where numerics keep the call's variables."""

    @nn.compact
    def __call__(self, path: list[str], run: Callable[[], Any]) -> Any:
        return _Folder(name=path[0])(path[1:], run) if path else run()
