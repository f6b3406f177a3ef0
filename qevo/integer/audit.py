"""Proof that a function computes in integers: its jaxpr holds no floating-point value."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from qevo.integer.products import EXACT_NAME, FLOAT_LIMIT

# Primitives that run code which the jaxpr does not show.
_OPAQUE = re.compile(
    "callback|debug_print|ffi_call|custom_call|kernel_call|call_exported|call_tf|feed"
)
_HERE = str(Path(__file__).parent)
_RESHAPING = ("reshape", "transpose", "broadcast_in_dim", "squeeze")
_PRODUCTS = ("dot_general", "conv_general_dilated")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One value in a jaxpr, or one primitive that hides what it computes."""

    what: str  # primitive; or "input", "constant", "literal"
    dtype: str  # empty for a primitive without results
    shape: tuple[int, ...]
    where: str  # file:line:column (function), or the name of the input
    within: tuple[str, ...] = ()  # enclosing primitives, outermost first

    def __str__(self) -> str:
        kind = f"{self.what} {self.dtype}{list(self.shape)}" if self.dtype else self.what
        return f"{kind} at {self.where}" + _inside(self.within)


@dataclasses.dataclass(frozen=True)
class ExactProduct:
    """A float product of small integers that is exact, from `qevo.integer.dot` or ``conv``.

    Its structure was verified: int8 in, one product with float32 accumulation, int32 out. The bound
    is what the network proved from fan-in and ranges.
    """

    dtype: str  # of the factors: float32 or bfloat16
    bound: int  # of the sum of the terms' magnitudes, below 2**24
    where: str
    within: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}, bound {self.bound} < 2**24, at {self.where}" + _inside(self.within)


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """What `audit` found; ``str(report)`` is the verdict for people."""

    floats: tuple[Finding, ...]
    exact_products: tuple[ExactProduct, ...]
    unverified: tuple[Finding, ...]  # host callbacks and custom calls
    values: int  # how many values were looked at

    @property
    def ok(self) -> bool:
        """No float outside the exact products, and nothing unverified."""
        return not self.floats and not self.unverified

    @property
    def integer_only(self) -> bool:
        """No float at all, and nothing unverified."""
        return self.ok and not self.exact_products

    def __str__(self) -> str:
        if self.floats:
            verdict = "floating point found"
        elif self.unverified:
            verdict = "not proved: some of it runs where the audit cannot look"
        elif self.exact_products:
            verdict = "exact: no floating-point value outside proved-exact products"
        else:
            verdict = "integers only: no floating-point value"
        lines = [f"{verdict} ({self.values} values examined)"]
        for title, findings in (
            ("floating-point values", self.floats),
            ("unverified host callbacks and custom calls", self.unverified),
            ("proved-exact float products", self.exact_products),
        ):
            if findings:
                lines.append(f"{title}: {len(findings)}")
                counts = Counter(map(str, findings))
                lines += [f"  {line}" + f" ({n} times)" * (n > 1) for line, n in counts.items()]
        return "\n".join(lines)


def audit(fn: Callable, *args: Any, **kwargs: Any) -> AuditReport:
    """Trace ``fn`` and look at every value it computes, at any depth.

    Walks the jaxpr with its inputs, closed-over constants, literals and the jaxprs inside `scan`,
    `while_loop`, `cond`, `jit`, `shard_map`, custom derivatives and the like. A floating-point (or
    complex) value of any width is reported with its source line. A float product from
    `qevo.integer.dot` or ``conv`` is verified and listed apart. What happens on the host is
    reported as unverified. The jaxpr is what XLA is asked for; how it is compiled is not examined.

    Args:
      fn: a function of arrays; bind what is static with `functools.partial`.
      *args, **kwargs: its arguments; `jax.ShapeDtypeStruct` will do.

    Returns:
      The report; ``report.ok`` is the verdict.
    """
    closed = jax.make_jaxpr(fn)(*args, **kwargs)
    walk = _Walk()
    names = closed.jaxpr.debug_info.arg_names
    for i, variable in enumerate(closed.jaxpr.invars):
        name = names[i] if i < len(names) and names[i] else f"argument {i}"
        walk.look("input", variable, name, ())
    walk.jaxpr(closed.jaxpr, ())
    return AuditReport(
        tuple(walk.floats), tuple(walk.exact_products), tuple(walk.unverified), walk.values
    )


class _Walk:
    def __init__(self) -> None:
        self.floats: list[Finding] = []
        self.exact_products: list[ExactProduct] = []
        self.unverified: list[Finding] = []
        self.values = 0

    def look(self, what: str, value: Any, where: str, within: tuple[str, ...]) -> None:
        """Count a value and report it if it is a float."""
        self.values += 1
        value = getattr(value, "aval", value)
        if _is_float(value):
            self.floats.append(_finding(what, value, where, within))

    def jaxpr(self, jaxpr: Jaxpr, within: tuple[str, ...], caller: str = "unknown source") -> None:
        for variable in jaxpr.constvars:
            self.look("constant", variable, "closed over", within)
        for equation in jaxpr.eqns:
            self.equation(equation, within, caller)
        for variable in jaxpr.outvars:
            if isinstance(variable, Literal):
                self.look("literal", variable, "returned", within)

    def equation(self, equation: JaxprEqn, within: tuple[str, ...], caller: str) -> None:
        frames = source_info_util.summarize(equation.source_info, num_frames=8).splitlines()[::-1]
        where = frames[0] if frames else caller
        # The line that called into this package; that of the enclosing equation where jax lost it.
        caller = next((frame for frame in frames if not frame.startswith(_HERE)), caller)
        product = _exact_product(equation)
        if product is not None:
            dtype, bound = product
            self.exact_products.append(ExactProduct(dtype, bound, caller, within))
            return
        inner = (*within, _title(equation))
        found = len(self.floats)
        for part in _parts(equation.params):
            if isinstance(part, Jaxpr):
                self.jaxpr(part, inner, caller)
            else:
                self.look("constant", part, where, inner)
        primitive, results = equation.primitive.name, equation.outvars
        literals = [v for v in equation.invars if isinstance(v, Literal)]
        # One finding names the line: the innermost, and an operand only if the result is no float.
        for what, variables in ((primitive, results), ("literal", literals)):
            if len(self.floats) == found:
                for variable in variables:
                    self.look(what, variable, where, within)
        if _OPAQUE.search(primitive):
            for variable in results or [None]:
                aval = getattr(variable, "aval", None)
                self.unverified.append(_finding(primitive, aval, where, within))


def _parts(params: Any) -> Iterator[Any]:
    """The jaxprs and arrays in an equation's parameters, at any depth of tuples and dicts."""
    if isinstance(params, ClosedJaxpr):
        yield params.jaxpr
    elif isinstance(params, dict):
        for value in params.values():
            yield from _parts(value)
    elif isinstance(params, (tuple, list)):
        for value in params:
            yield from _parts(value)
    elif isinstance(params, (Jaxpr, jax.Array, np.ndarray, np.generic)):
        yield params


def _exact_product(equation: JaxprEqn) -> tuple[str, int] | None:
    """Format and bound of a product made by `qevo.integer.products`, if it is what it claims."""
    closed = equation.params.get("jaxpr")
    match = re.fullmatch(EXACT_NAME, str(equation.params.get("name", "")))
    if match is None or not isinstance(closed, ClosedJaxpr):
        return None
    dtype, bound = match["dtype"], int(match["bound"])
    body = closed.jaxpr
    products = [e for e in body.eqns if e.primitive.name in _PRODUCTS]
    sound = (
        bound < FLOAT_LIMIT
        and not body.constvars
        and all(_dtype(v) == "int8" for v in body.invars)
        and all(_dtype(v) == "int32" for v in body.outvars)
        and len(products) == 1
        and all(_preserves(e, dtype) for e in body.eqns)
    )
    return (dtype, bound) if sound else None


def _preserves(equation: JaxprEqn, dtype: str) -> bool:
    """Whether the equation keeps integers below the bound as they are."""
    name = equation.primitive.name
    operands = [_dtype(v) for v in equation.invars]
    result = _dtype(equation.outvars[0])
    if name in _PRODUCTS:
        highest = (jax.lax.Precision.HIGHEST,) * 2
        accurate = dtype == "bfloat16" or equation.params["precision"] == highest
        return accurate and operands == [dtype] * 2 and result == "float32"
    if name == "convert_element_type":
        return (operands[0], result) in (("int8", dtype), ("float32", "int32"))
    return name in _RESHAPING


def _is_float(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.inexact))


def _dtype(variable: Any) -> str:
    return str(getattr(variable.aval, "dtype", ""))


def _finding(what: str, value: Any, where: str, within: tuple[str, ...]) -> Finding:
    dtype, shape = getattr(value, "dtype", ""), getattr(value, "shape", ())
    return Finding(what, str(dtype), tuple(shape), where, within)


def _title(equation: JaxprEqn) -> str:
    name = equation.params.get("name")
    return f"{equation.primitive.name} {name}" if isinstance(name, str) else equation.primitive.name


def _inside(within: tuple[str, ...]) -> str:
    return f", inside {' > '.join(within)}" if within else ""
