"""The compiled call: it takes over the carry's memory and never asks the host."""

from typing import Any

import jax
import numpy as np
from support import Medians

from qevo.algorithms import Coevolution, CoevolutionConfig
from qevo.core.generation import Carry, Rules, first_carry
from qevo.core.program import Program, compile_generations, placement

LENGTH = 4


def compiled_search() -> tuple[Program, tuple[Any, jax.Array, Carry]]:
    """A call of coevolution with validation in it, and its arguments in place."""
    problem, key = Medians.of(12), jax.random.key(1)
    config = CoevolutionConfig(population=8, group=4, spread=0.2, rate=4.0, schedule=60)
    algorithm = Coevolution(problem.space, config)
    mesh, place = placement(jax.devices()[:1])
    carry = first_carry(algorithm, problem, key)
    arguments = jax.device_put((problem, key, carry), place)
    rules = Rules(20, validate_every=3)
    program = compile_generations(
        algorithm, *arguments, length=LENGTH, rules=rules, chunk=None, mesh=mesh, place=place
    )
    return program, arguments


def test_a_call_takes_over_the_carry_and_stays_on_the_device() -> None:
    program, (problem, key, carry) = compiled_search()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(carry))
    assert program.compiled.memory_analysis().alias_size_in_bytes == size
    with jax.transfer_guard("disallow"):
        after, metrics = program.compiled(problem, key, carry)
        jax.block_until_ready(after)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((problem, key)))
    np.testing.assert_array_equal(metrics["generation"], range(1, LENGTH + 1))
    text = program.compiled.as_text()
    assert not any(word in text for word in ("callback", "infeed", "outfeed", "host_compute"))
