"""The steps of a network are those of its arithmetic, in order."""

from __future__ import annotations

import numpy as np
from export_networks import NETWORKS

from qevo.export import steps_of
from qevo.export.steps import Input, Multiply, Step
from qevo.nets import QuantizedNetwork


def test_every_input_is_made_before_it_is_read(network: QuantizedNetwork) -> None:
    steps = steps_of(network)
    made = {"images"}
    for step in steps:
        assert {x.name for x in step.inputs} <= made
        assert step.name not in made
        made.add(step.name)
    assert isinstance(steps[0], Input)
    assert steps[-1].output.shape == network.output_shape
    layers = [step.name for step in steps if isinstance(step, Multiply)]
    assert layers == list(network.layers)


def test_shapes_are_those_of_the_network(network: QuantizedNetwork, images: np.ndarray) -> None:
    inputs = network.layer_inputs(images)
    for step in steps_of(network):
        if isinstance(step, Multiply):
            assert inputs[step.name].shape == (len(images), *step.inputs[0].shape)


def test_between_them_the_networks_have_every_operation() -> None:
    found = {type(step) for make in NETWORKS.values() for step in steps_of(make())}
    assert found == set(Step.__subclasses__())
