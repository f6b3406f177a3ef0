"""Darknet's files: architectures from text, weights in their order, and clear refusals."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
from detectors import CFG, detector
from networks import random_images, random_variables

from qevo.algorithms.least_squares import ColumnSearch
from qevo.detection import Placement
from qevo.errors import QevoError
from qevo.nets import load_safetensors
from qevo.quantize import (
    AdaRound,
    EvolutionaryRounding,
    FloatTeacher,
    SparseFit,
    best_of_n,
    float_logits,
    round_network,
    sparsity_costs,
)
from qevo.quantize.importing.darknet import (
    load_cfg,
    load_darknet,
    read_weights,
    write_weights,
)
from qevo.quantize.sensitivity import bits_costs, layer_costs
from qevo.quantize.variables import variable_shapes

SHAPE = (16, 16, 3)


def test_architecture(tmp_path: pathlib.Path) -> None:
    found = detector(tmp_path)
    assert found.shapes == ((4, 4, 14), (8, 8, 7))
    assert [head.mask for head in found.heads] == [(1, 2), (0,)]
    shapes = variable_shapes(found.module, found.image_shape)
    assert shapes["params/convolutional_4/kernel"] == (5, 5, 1, 6)
    larger = detector(tmp_path, size=(32, 48))
    assert larger.shapes == ((8, 12, 14), (16, 24, 7))


def test_weights_are_those_that_were_written(tmp_path: pathlib.Path) -> None:
    made = detector(tmp_path)
    variables = random_variables(made.module, SHAPE)
    path = tmp_path / "net.weights"
    write_weights(made, variables, path)
    again, found = load_darknet(tmp_path / "net.cfg", path)
    assert again == made
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    # Biases come first, and a kernel [out, in, height, width] last.
    values = np.frombuffer(path.read_bytes()[20:], "<f4")
    first = variables["params"]["convolutional_0"]
    np.testing.assert_array_equal(values[:6], first["norm"]["bias"])
    np.testing.assert_array_equal(values[24 : 24 + 9], first["kernel"][:, :, 0, 0].ravel())
    old = tmp_path / "old.weights"  # with images seen as an int32
    old.write_bytes(np.array([0, 1, 0, 7], "<i4").tobytes() + path.read_bytes()[20:])
    jax.tree.map(np.testing.assert_array_equal, read_weights(made, old), variables)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes"),
        (np.array([-7, 2, 0, 0, 0, 0], "<i4").tobytes(), "version -7.2"),
        (np.array([0, 2, 0, 0, 0, 0, 0], "<i4").tobytes(), "the file 2: cut short"),
        (np.array([0, 2, 0, 0, 0, 0, 0], "<i4").tobytes() + b"x", "cut short"),
        (None, "no such file"),
    ],
)
def test_weights_of_something_else(
    tmp_path: pathlib.Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "net.weights"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QevoError, match=re.escape(said)):
        read_weights(detector(tmp_path), path)


def test_weights_that_are_not_finite(tmp_path: pathlib.Path) -> None:
    made = detector(tmp_path)
    variables = random_variables(made.module, SHAPE)
    variables["params"]["convolutional_9"]["bias"][3] = np.nan
    write_weights(made, variables, tmp_path / "net.weights")
    with pytest.raises(QevoError, match="convolutional_9/bias holds values"):
        read_weights(made, tmp_path / "net.weights")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[net]", "[convolutional]", "expected [net] as the first section"),
        ("width=16", "width 16", "line 3: expected [section] or key=value, found width 16"),
        ("height=16", "height=tall", "height: expected a whole number, found tall"),
        ("activation=relu", "activation=mish", "activation=mish: an integer layer has linear"),
        ("groups=6\nfilters=6\nsize=3", "groups=3\nfilters=6\nsize=3", "groups=3 for 6 channels"),
        ("[dropout]", "[reorg]", "[reorg]: not supported"),
        ("from=-3", "from=-30", "from=-30 is none of the 3 sections before it"),
        ("from=-3", "from=x", "from: expected numbers with commas, found x"),
        ("filters=14", "filters=15", "2 anchors and 2 classes need 14 filters before it, found 15"),
        ("filters=7\n", "filters=7\nbatch_normalize=1\n", "before [yolo]: expected size=1"),
        ("mask=0", "mask=4", "mask: expected indices of 3 anchors"),
        ("layers=-1,4", "layers=-1,7", "expected maps of one size, found [(4, 4), (8, 8)]"),
        ("from=-3\nactivation=linear", "from=-3\nactivation=leaky", "a sum has linear or relu"),
        ("from=-3\nactivation", "from=-2,-3\nactivation", "from: expected one section, got 2"),
        ("layers=7", "layers=7\ngroups=2", "parts of channels"),
        ("filters=14", "filters=14\ndilation=2", "dilation=2 is not supported"),
        ("mask=0", "mask=0\nnew_coords=1", "new_coords=1 is not supported"),
        ("size=2\nstride=2", "size=3\nstride=2", "size=3 with stride=2: windows are supported"),
        ("layers=7", "layers=9", "convolutional_9 feeds a [yolo] section and others"),
    ],
)
def test_what_is_refused(tmp_path: pathlib.Path, old: str, new: str, said: str) -> None:
    assert old in CFG
    with pytest.raises(QevoError, match=re.escape(said)) as error:
        detector(tmp_path, CFG.replace(old, new, 1))
    assert str(tmp_path / "net.cfg") in str(error.value)


def test_other_refusals(tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match="no such file"):
        load_cfg(tmp_path / "none.cfg")
    with pytest.raises(QevoError, match="at least one"):
        detector(tmp_path, CFG.partition("[yolo]")[0])
    with pytest.raises(QevoError, match="classes=2, but the data has 3"):
        detector(tmp_path, classes=3)
    (tmp_path / "bytes.cfg").write_bytes(b"\xff\xfe[net]")
    with pytest.raises(QevoError, match="expected darknet's text"):
        load_cfg(tmp_path / "bytes.cfg")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> FloatTeacher:
    made = detector(tmp_path_factory.mktemp("darknet"))
    return FloatTeacher(made.module, random_variables(made.module, SHAPE), random_images(SHAPE, 12))


@pytest.mark.parametrize(
    "method",
    [
        "nearest",
        "gptq",
        pytest.param(AdaRound(iterations=40), marks=pytest.mark.slow),
        "layerwise",
        pytest.param(
            EvolutionaryRounding(search=ColumnSearch(generations=3)), marks=pytest.mark.slow
        ),
        SparseFit(zeros=dict.fromkeys([f"convolutional_{i}" for i in (0, 1, 2, 4, 9, 14)], 0.0)),
    ],
    ids=lambda method: method if isinstance(method, str) else type(method).__name__,
)
def test_integer_maps_follow_the_float_ones(
    teacher: FloatTeacher, method: Any, tmp_path: pathlib.Path
) -> None:
    network = round_network(teacher, bits=8, method=method)
    assert network.head == "maps"
    found = network(teacher.images) * network.output_scale
    assert np.mean((found - teacher.outputs) ** 2) < 0.01 * np.var(teacher.outputs)
    network.save(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(
        load_safetensors(tmp_path / "net.safetensors")(random_images(SHAPE, 3)),
        network(random_images(SHAPE, 3)),
    )


def test_what_is_put_together_has_one_scale(teacher: FloatTeacher) -> None:
    sites = teacher.calibration.sites
    scale = sites["route_6"].scale
    assert np.log2(scale) == round(np.log2(scale))  # for a sum is among them
    together = ("shortcut_3", "convolutional_4", "route_6", "route_13")
    assert {sites[name].scale for name in together} == {scale}
    assert sites["convolutional_4"].low == 0  # a ReLU
    assert sites["route_6"].low == -127


def test_an_output_of_one_fixed_point(teacher: FloatTeacher) -> None:
    """The second map reaches far beyond the first, and takes bits of both."""
    params = dict(teacher.variables["params"])
    params["convolutional_14"] = {k: 3000 * v for k, v in params["convolutional_14"].items()}
    module = teacher.module
    louder = FloatTeacher(module, {**teacher.variables, "params": params}, teacher.images)
    usual, fewer = (round_network(t, bits=8, method="layerwise") for t in (teacher, louder))
    assert fewer.fraction_bits < usual.fraction_bits
    expected = float_logits(module, louder.variables, teacher.images)
    found = fewer(teacher.images) * fewer.output_scale
    quiet = slice(0, 4 * 4 * 14)
    for part in (quiet, slice(quiet.stop, None)):
        error = np.mean((found - expected)[:, part] ** 2)
        assert error < 0.02 * np.var(expected[:, part])


def test_objects_in_the_pixels_of_the_image(tmp_path: pathlib.Path) -> None:
    made = detector(tmp_path)
    output = np.full((1, 672), -9.0, np.float32)
    maps = output[:, :224].reshape(1, 4, 4, 2, 7)
    maps[0, 2, 1, 0] = [0, 0, 0, 0, 9, -9, 9]  # the second class, at row 2 and column 1
    place = Placement((2.0, 4.0), (0, 0), (4, 8))
    (one,), (there,) = made.detections(output), made.detections(output, [place])
    assert one.labels.tolist() == [1]
    np.testing.assert_allclose(one.boxes, [[4, 8, 8, 12]], atol=1e-5)  # anchor 4, 4 at (6, 10)
    np.testing.assert_allclose(there.boxes, [[2, 2, 4, 3]], atol=1e-5)


def test_a_depthwise_layer_may_have_zeros(teacher: FloatTeacher) -> None:
    layers = [f"convolutional_{i}" for i in (0, 1, 2, 4, 9, 14)]
    zeros = dict.fromkeys(layers, 0.25) | {"convolutional_4": 0.6}
    network = round_network(teacher, bits=8, method=SparseFit(zeros=zeros))
    kernel = np.asarray(network.weights["convolutional_4"])
    assert np.mean(kernel == 0) == pytest.approx(0.6, abs=0.02)
    mask = kernel != 0
    again = SparseFit(zeros=zeros, masks={"convolutional_4": mask})
    found = round_network(teacher, bits=8, method=again).weights["convolutional_4"]
    np.testing.assert_array_equal(found, kernel)
    costs = sparsity_costs(teacher, [0.0, 0.5], bits=4)
    assert [len(costs[name]) for name in layers] == [2, 1, 2, 1, 2, 2]


def test_other_measures(teacher: FloatTeacher) -> None:
    best = best_of_n(teacher, bits=4, draws=3)
    assert min(best.scores) == pytest.approx(teacher.divergence(best.network), rel=1e-4)
    with pytest.raises(QevoError, match="a network that returns maps is scored without"):
        best_of_n(teacher, bits=4, draws=3, labels=np.zeros(12, int))
    costs = layer_costs(teacher, {"best": best.network})
    assert all(0 < cost["best"].error < 0.5 for cost in costs.values())
    choices = bits_costs(teacher, [8, "ternary"])
    assert all(cost[8].sensitivity < cost["ternary"].sensitivity for cost in choices.values())
