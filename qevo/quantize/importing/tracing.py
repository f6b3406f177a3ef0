"""Architectures from float networks that were written elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from qevo.errors import QevoError
from qevo.nets.float_numerics import Float
from qevo.nets.images import PixelScaling
from qevo.nets.traced import Traced
from qevo.quantize.importing.graph import Images, Recorder, Value
from qevo.quantize.importing.rules import RULES, Constant, Input, advise, refuse

_BATCH = 4  # images that the function is traced and checked with
_TOLERANCE = 1e-4  # of the logits, relative to the largest


def trace(
    network: nn.Module | Callable[[Any, Any], Any],
    arrays: Any,
    image_shape: tuple[int, int, int],
    *,
    scaling: PixelScaling | None = None,
) -> tuple[Traced, dict[str, Any]]:
    """Make an architecture of a float network that was not written against `qevo.nets.Numerics`.

    The function is traced in inference mode and its operations are read off: convolutions, full or
    depthwise, and dense products, relu, max pooling, the mean over an image, residual sums,
    channels put together, flattening, zeros around an image or its channels. Biases, batch norms
    and whatever else scales and shifts channels, the pixels' own scaling included, is folded into
    the layers and the pixel rule, in any algebraic form. Layers are called by the names of their
    kernels: "params/block_0/conv/kernel" gives "block_0/conv". A kernel that two layers share
    becomes two.

        module, variables = trace(network, variables, (32, 32, 3), scaling=UNIT_RANGE)
        quantized = quantize_network(module, variables, images, bits=4)

    Args:
      network: ``network(arrays, images) -> logits [B, classes]``, where ``images`` is
        ``[B, H, W, C]``, any B; or a linen module whose arguments are the images alone.
      arrays: its weights and statistics, any pytree of arrays; a module's variables.
      image_shape: ``(H, W, C)``.
      scaling: what is done to the uint8 pixels before ``network`` sees them; by default nothing,
        and ``network`` takes uint8 images.

    Returns:
      A module and variables for `quantize_network`, which give the same logits.

    Raises:
      QevoError: an operation that is not read, with its place in the source, the
        layer before it and what to do instead; or logits that are not the same.
    """
    if len(image_shape) != 3:
        raise QevoError(f"images are [H, W, C], not {list(image_shape)}")
    function = network.apply if isinstance(network, nn.Module) else network

    def logits(arrays: Any, images: Any) -> Any:
        return function(arrays, images if scaling is None else scaling(images))

    images = np.random.RandomState(0).randint(0, 256, (_BATCH, *image_shape)).astype(np.uint8)
    recorder = Recorder()
    try:
        recorder.logits(_result(logits, arrays, images))
    except RecursionError:
        raise QevoError("the network is too deep to be read; raise sys.setrecursionlimit") from None
    flat = {tuple(name.split("/")): value for name, value in recorder.params.items()}
    variables = {"params": unflatten_dict(flat)}
    module = Traced(Float(scaling=recorder.scaling), tuple(recorder.calls))
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(logits)(arrays, images))
        found = np.asarray(jax.jit(module.apply)(variables, images))
    error, largest = np.abs(found - expected).max(), np.abs(expected).max()
    if not np.isfinite(largest):
        raise QevoError("the function's logits are not finite")
    if not error <= _TOLERANCE * largest:
        raise QevoError(
            f"the traced network's logits differ from the function's by {error:.3g}, where the"
            f" largest is {largest:.3g}: does it compute in less than float32?"
        )
    return module, variables


_Known = Input | QevoError  # an error is raised only where the logits depend on it

_CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}


def _result(function: Callable[..., Any], arrays: Any, images: np.ndarray) -> Value:
    """The logits of a function as a value of the graph."""
    with jax.disable_jit():  # a jitted function met before keeps the places of its first call
        closed, shape = jax.make_jaxpr(function, return_shape=True)(arrays, images)
    if not isinstance(shape, jax.ShapeDtypeStruct):
        raise QevoError(
            f"the function must return logits [B, classes] alone, not {jax.tree.structure(shape)}"
        )
    constants = [
        Constant(leaf, jax.tree_util.keystr(path, simple=True, separator="/"), np.size(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]
    ]
    (result,) = _run(closed, [*constants, Value.of(Images(images.shape, "the images"))])
    if isinstance(result, QevoError):
        raise result
    if isinstance(result, Constant):
        raise QevoError("the logits do not depend on the images")
    return result


def _run(
    closed: ClosedJaxpr, inputs: Sequence[_Known], caller: JaxprEqn | None = None
) -> list[_Known]:
    """Follow a traced function with what is known of its inputs."""
    jaxpr = closed.jaxpr
    known: dict[Any, _Known] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {v: Constant(c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

    def read(variables: Sequence[Any]) -> list[_Known]:
        return [Constant(v.val) if isinstance(v, Literal) else known[v] for v in variables]

    for eqn in jaxpr.eqns:
        if caller is not None and not source_info_util.summarize(eqn.source_info):
            eqn = eqn.replace(source_info=caller.source_info)
        try:
            outputs = _follow(eqn, read(eqn.invars))
        except QevoError as error:
            outputs = [error] * len(eqn.outvars)
        known |= zip(eqn.outvars, outputs, strict=True)
    return read(jaxpr.outvars)


def _follow(eqn: JaxprEqn, inputs: Sequence[_Known]) -> Sequence[_Known]:
    name = eqn.primitive.name
    if name in _CALLS:
        return _run(_called(eqn), inputs, eqn)
    values: list[Input] = []
    for known in inputs:
        if isinstance(known, QevoError):
            raise known
        values.append(known)
    constants = [v for v in values if isinstance(v, Constant)]
    if len(constants) == len(values):
        return _evaluate(eqn, constants)
    if name not in RULES:
        raise refuse(eqn, values, advise(eqn))
    return [RULES[name](eqn, *values)]


def _called(eqn: JaxprEqn) -> ClosedJaxpr:
    keys = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    inner = next(eqn.params[key] for key in keys if key in eqn.params)
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def _evaluate(eqn: JaxprEqn, constants: Sequence[Constant]) -> list[Constant]:
    """The operation itself, where no images are involved."""
    output = eqn.primitive.bind(*(c.array for c in constants), **eqn.params)
    source = max(constants, key=lambda c: c.size, default=Constant(None))
    outputs = output if eqn.primitive.multiple_results else [output]
    return [source._replace(array=array) for array in outputs]
