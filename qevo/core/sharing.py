"""Compute once what candidates share: a function cut in two where its changing inputs come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun

Shared = Callable[[Any], list[jax.Array]]
Own = Callable[[Any, Any, list[jax.Array]], Any]


def split(function: Callable[[Any, Any], Any], varying: Any, fixed: Any) -> tuple[Shared, Own]:
    """``function(varying, fixed)`` as ``own(varying, fixed, shared(fixed))``, the same bits.

    ``shared`` computes the values that do not depend on ``varying`` and carry a name
    (`jax.ad_checkpoint.checkpoint_name`), the last ones before ``varying`` comes in; ``own`` does
    the rest. A function names what is worth keeping: an activation, an accumulator. Everything else
    on the way is computed again rather than stored.

    Args:
      function: pure, of two pytrees of arrays.
      varying, fixed: pytrees of arrays, or of their shapes (`jax.ShapeDtypeStruct`).

    Returns:
      ``shared(fixed)``, a list of the kept arrays, and ``own(varying, fixed, kept)``.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(varying, fixed)
    jaxpr, treedef = closed.jaxpr, jax.tree.structure(shape)
    count = len(jax.tree.leaves(varying))

    depends: set[Var] = set(jaxpr.invars[:count])
    for eqn in jaxpr.eqns:
        if any(isinstance(v, Var) and v in depends for v in eqn.invars):
            depends.update(eqn.outvars)

    needed = {v for v in jaxpr.outvars if isinstance(v, Var)}
    kept: list[Var] = []
    eqns = []
    for eqn in reversed(jaxpr.eqns):
        if needed.isdisjoint(eqn.outvars):
            continue
        if eqn.primitive.name == "name" and eqn.outvars[0] not in depends:
            kept.append(eqn.outvars[0])
            continue
        eqns.append(eqn)
        needed.update(v for v in eqn.invars if not isinstance(v, Literal))

    inputs = jaxpr.invars[count:]
    known = [eqn for eqn in jaxpr.eqns if depends.isdisjoint(eqn.outvars)]
    before = jaxpr.replace(invars=inputs, outvars=kept, eqns=known)
    after = jaxpr.replace(invars=[*jaxpr.invars, *kept], eqns=eqns[::-1])
    run_before = jaxpr_as_fun(ClosedJaxpr(before, closed.consts))
    run_after = jaxpr_as_fun(ClosedJaxpr(after, closed.consts))

    def shared(fixed: Any) -> list[jax.Array]:
        return list(run_before(*jax.tree.leaves(fixed)))

    def own(varying: Any, fixed: Any, kept: list[jax.Array]) -> Any:
        arguments = jax.tree.leaves((varying, fixed))
        return jax.tree.unflatten(treedef, run_after(*arguments, *kept))

    return shared, own
