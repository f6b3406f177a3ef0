"""An algorithm or a problem of one's own: each slip is refused with its name."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import support

from qevo import QevoError
from qevo.core import Algorithm, FunctionProblem, Problem, Proposal, evolve
from qevo.core.blocks import Place

PROBLEM = support.onemax(24)


class Slip(support.Walk):
    """`Walk`, with something done to what one of its methods returns."""

    def __init__(self, proposal: Any = None, state: Any = None, metrics: Any = None):
        super().__init__(PROBLEM.space)
        self.slips = [slip or (lambda given: given) for slip in (proposal, state, metrics)]

    def propose(self, key: jax.Array, state: Any) -> Any:
        proposal, state = super().propose(key, state)
        return self.slips[0](proposal), state

    def update(self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: Any) -> Any:
        state, metrics = super().update(key, proposal, fitness, state)
        return self.slips[1](state), self.slips[2](metrics)


def run(algorithm: Algorithm, problem: Problem = PROBLEM) -> Any:
    return evolve(algorithm, problem, 0, generations=2, devices=1, progress=False)


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda p: p.values, "candidates must be a qevo.core.Proposal, got int8[8, 1]"),
        (lambda p: p._replace(values=[[0]] * 8), "values must be int8 [P, G], got list"),
        (lambda p: p._replace(positions=p.positions[:, 0]), "integers [S, G], got int32[8]"),
        (
            lambda p: p._replace(positions=p.positions.astype(jnp.float32)),
            "positions must be integers [S, G], got float32[8, 1]",
        ),
        (
            lambda p: p._replace(values=p.values.astype(jnp.int32)),
            "values must be int8 [P, G], got int32[8, 1]",
        ),
        (lambda p: p._replace(values=p.values[:4]), "4 candidates where population_size is 8"),
        (
            lambda p: p._replace(positions=p.positions[:3]),
            "3 rows of positions do not divide 8 candidates",
        ),
        (
            lambda p: p._replace(values=jnp.repeat(p.values, 2, 1)),
            "2 values a candidate for 1 positions",
        ),
        (lambda p: Proposal.whole(p.values), "1 values a candidate for whole candidates of 24"),
        (
            lambda p: p._replace(place=Place(jnp.int32(0), jnp.int32(0))),
            "place and within belong together",
        ),
        (lambda p: p._replace(within=p.positions), "place and within belong together"),
        (
            lambda p: p._replace(
                place=Place(jnp.int32(0), jnp.int32(0)), within=p.positions[:, :0]
            ),
            "within must have the shape of positions, (8, 1), got (8, 0)",
        ),
    ],
)
def test_a_proposal_that_does_not_fit(slip: Any, message: str) -> None:
    with pytest.raises(QevoError, match=re.escape(message)) as error:
        run(Slip(proposal=slip))
    assert str(error.value).startswith("Slip.propose: ")


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda s: tuple(s), "a state must keep its structure"),
        (
            lambda s: s._replace(genes=s.genes.astype(jnp.int32)),
            "state.genes was int8[24] and is int32[24]",
        ),
        (
            lambda s: s._replace(fitness=s.fitness[None]),
            "state.fitness was int32[] and is int32[1]",
        ),
    ],
)
def test_a_state_that_changes_its_kind(slip: Any, message: str) -> None:
    with pytest.raises(QevoError, match=re.escape(message)) as error:
        run(Slip(state=slip))
    assert str(error.value).startswith("Slip.update: ")


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda m: (m,), "metrics must be a dict, got tuple"),
        (lambda m: m | {"note": "good"}, "'note' must be int32 [], got str"),
        (lambda m: m | {"median": m["kept"]}, "the metric 'median' is one of qevo's own"),
        (lambda m: m | {"rate": jnp.float32(0.5)}, "'rate' must be int32 [], got float32[]"),
        (lambda m: m | {"rate": jnp.zeros(3, jnp.int32)}, "'rate' must be int32 [], got int32[3]"),
    ],
)
def test_metrics_that_no_record_can_hold(slip: Any, message: str) -> None:
    with pytest.raises(QevoError, match=re.escape(message)):
        run(Slip(metrics=slip))


class Short(support.Walk):
    """`Walk`, whose methods forget what they return beside."""

    slip: str = ""

    def context(self, state: Any) -> Any:
        genes = super().context(state)
        return genes.astype(jnp.int32) if self.slip == "context" else genes

    def propose(self, key: jax.Array, state: Any) -> Any:
        both = super().propose(key, state)
        return both[0] if self.slip == "propose" else both

    def update(self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: Any) -> Any:
        both = super().update(key, proposal, fitness, state)
        return both[0] if self.slip == "update" else both


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("context", "Short.context: genes must be int8[24], got int32[24]"),
        ("propose", "Short.propose: must return a proposal and the state, got Proposal"),
        ("update", "Short.update: must return a state and metrics, got WalkState"),
    ],
)
def test_a_method_that_returns_something_else(slip: str, message: str) -> None:
    algorithm = Short(PROBLEM.space)
    algorithm.slip = slip
    with pytest.raises(QevoError, match=re.escape(message)):
        run(algorithm)


def test_without_a_slip_the_search_runs() -> None:
    assert run(Slip()).generations == 2


class OnlyStarts(Algorithm):
    def start(self, key: jax.Array) -> jax.Array:
        return self.space.start

    def context(self, state: jax.Array) -> jax.Array:
        return state


class Unscored(Problem):
    space = PROBLEM.space


def test_a_method_that_a_subclass_leaves_out_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"OnlyStarts does not define propose\(key, st"):
        run(OnlyStarts(PROBLEM.space, 4))
    with pytest.raises(NotImplementedError, match=r"Unscored does not define fitness\(solution"):
        Unscored().fitness(PROBLEM.space.start, ())


def test_a_function_without_a_return() -> None:
    problem = FunctionProblem(PROBLEM.space, lambda genes: None)
    with pytest.raises(TypeError, match="got None: is there a return"):
        run(support.Walk(problem.space), problem)


@pytest.mark.parametrize("name", ["candidate_chunk", "batch_chunk"])
def test_a_chunk_of_nothing(name: str) -> None:
    problem = support.Medians.of()
    object.__setattr__(problem, name, 0)
    with pytest.raises(QevoError, match=f"{name} must be at least 1, got 0"):
        run(support.Walk(problem.space), problem)
