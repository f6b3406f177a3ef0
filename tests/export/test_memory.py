"""Tensors that live at the same time never share memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qevo.export.memory import place
from qevo.export.steps import Step, Tensor


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Steps that read one or two earlier tensors, the first one the images."""
    tensors, steps = [Tensor("images", (4,))], []
    for number in range(draw(st.integers(1, 12))):
        output = Tensor(f"t{number}", (draw(st.integers(1, 40)),))
        count = draw(st.integers(1, 2))
        inputs = tuple(draw(st.sampled_from(tensors)) for _ in range(count))
        steps.append(Step(output, inputs))
        tensors.append(output)
    return steps


@given(programs())
def test_living_tensors_do_not_overlap(steps: list[Step]) -> None:
    layout = place(steps)
    held: dict[int, str] = {}  # whose value each byte holds
    for step in steps:
        for x in step.inputs:
            if x.name != "images":
                at = layout.offsets[x.name]
                assert {held[byte] for byte in range(at, at + x.size)} == {x.name}
        if step is not steps[-1]:
            at = layout.offsets[step.name]
            assert at + step.output.size <= layout.size
            for x in step.inputs:  # a step never writes over what it still reads
                if x.name != "images":
                    begin = layout.offsets[x.name]
                    assert begin + x.size <= at or at + step.output.size <= begin
            held |= dict.fromkeys(range(at, at + step.output.size), step.name)


def test_a_chain_takes_two_neighbours() -> None:
    sizes = (10, 30, 10, 5)
    tensors = [Tensor(f"t{i}", (size,)) for i, size in enumerate(sizes)]
    chain = [Step(tensors[0], (Tensor("images", (4,)),))]
    chain += [Step(tensors[i], (tensors[i - 1],)) for i in range(1, 4)]
    assert place(chain).size == 40
