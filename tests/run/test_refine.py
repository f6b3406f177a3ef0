"""`qevo refine` on a small network of somebody's own, from its files to the report."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from networks import random_variables
from safetensors.numpy import load_file, save_file

from qevo.algorithms import CoevolutionConfig, ShiftConfig
from qevo.data import is_unlabelled, read_unlabelled
from qevo.errors import QevoError
from qevo.nets import Autoencoder, LeNet300
from qevo.quantize import TrainingConfig, train
from qevo.run import RefineConfig, ShiftStageConfig, StageConfig, run_pipeline
from qevo.run import folder as files
from qevo.run.auditing import audit_run
from qevo.run.evaluating import evaluate_file
from qevo.run.own import own_network, refine_data

SOURCE = '''
import jax
from flax import linen as nn

from qevo.nets import LeNet300


class Plain(nn.Module):
    """Written without qevo."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(24, name="dense_0")(x))
        return nn.Dense(3, name="logits")(x)


def function(arrays, images):
    x = images.reshape(images.shape[0], -1) / 255.0
    x = jax.nn.relu(x @ arrays["dense_0.kernel"] + arrays["dense_0.bias"])
    return x @ arrays["logits.kernel"] + arrays["logits.bias"]


def tanh(arrays, images):
    x = images.reshape(images.shape[0], -1) / 255.0
    return jax.numpy.tanh(x @ arrays["dense_0.kernel"]) @ arrays["logits.kernel"]


def misnamed(arrays, images):
    return images.reshape(images.shape[0], -1) @ arrays["dense_1.kernel"]


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


ours = LeNet300(hidden=(24,), classes=3)
number = 3
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A network's source, its weights by names with dots, and images with and without labels."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(SOURCE)
    images, labels = tiny.blobs()
    module = LeNet300(hidden=(24,), classes=3)
    variables = train(module, images, labels, config=TrainingConfig(epochs=4, batch=60))
    flat: Any = flatten_dict(variables["params"], sep=".")
    save_file({name: np.asarray(value) for name, value in flat.items()}, folder / "net.safetensors")
    tiny.write_blobs(folder / "blobs.npz")
    np.save(folder / "images.npy", images)
    return folder


def settings(place: pathlib.Path, runs: pathlib.Path, **changes: Any) -> RefineConfig:
    search = CoevolutionConfig(population=16, group=512, spread=0.2, rate=1.0, schedule=40)
    small = RefineConfig(
        network=f"{place / 'net.py'}:ours",
        checkpoint=place / "net.safetensors",
        data=str(place / "blobs.npz"),
        bits=("*=ternary",),
        calibration=200,
        held_out=60,
        draws=2,
        batch=200,
        roundings=("layerwise",),
        start="evolutionary",
        constants=StageConfig(10, search),
        weights=ShiftStageConfig(10, ShiftConfig(population=8, slots=16, siblings=1)),
        validate_every=5,
        scan_length=5,
        name="small",
        runs=runs,
    )
    return dataclasses.replace(small, **changes)


@pytest.fixture(scope="module")
def finished(place: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    config = settings(place, tmp_path_factory.mktemp("runs"))
    run_pipeline(config)
    return config.folder


def test_the_report(place: pathlib.Path, finished: pathlib.Path) -> None:
    result = files.read_json(finished / files.RESULT)
    accuracy = result["accuracy"]
    assert accuracy.keys() == {"float", "nearest", "layerwise", "evolutionary", "evolved"}
    assert result["network"] == f"{place / 'net.py'}:ours"
    assert result["calibration"] == 200
    assert (result["generations"], result["evaluations"]) == (20, 10 * 16 + 10 * 8)
    layers = files.read_json(finished / files.LAYERS)
    assert list(layers) == ["dense_0", "logits"]
    for layer in layers.values():
        assert layer["bits"] == "ternary"
        assert 0 < layer["evolved"]["error"] < layer["nearest"]["error"] < 1
        assert layer["nearest"]["sensitivity"] > 0
        assert 0 < layer["changed"] < 1
    for picture in (files.PICTURE, files.LAYERS_PICTURE):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")


def test_its_network_file_is_audited_and_evaluated(
    place: pathlib.Path, finished: pathlib.Path
) -> None:
    assert audit_run(finished)
    result = files.read_json(finished / files.RESULT)
    assert files.read_config(finished).bits == ("*=ternary",)
    assert evaluate_file(finished / files.NETWORK) == result["accuracy"]["evolved"]
    other = str(place / "images.npy")
    assert evaluate_file(finished / files.NETWORK, data=other)["test"] > 0.8  # agreement


def test_it_resumes(place: pathlib.Path, finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    stopped = settings(place, tmp_path, max_seconds=0.0)
    run_pipeline(stopped)
    run_pipeline(dataclasses.replace(stopped, max_seconds=None, resume=True))
    network = (stopped.folder / files.NETWORK).read_bytes()
    assert network == (finished / files.NETWORK).read_bytes()


def test_it_does_not_resume_with_other_weights(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    checkpoint = tmp_path / "net.safetensors"
    checkpoint.write_bytes((place / "net.safetensors").read_bytes())
    stopped = settings(place, tmp_path, checkpoint=checkpoint, max_seconds=0.0)
    run_pipeline(stopped)
    save_file({name: -array for name, array in load_file(checkpoint).items()}, checkpoint)
    with pytest.raises(QevoError, match=r"checkpoint_sha256: .* -> "):
        run_pipeline(dataclasses.replace(stopped, resume=True))


def test_a_run_is_named_after_network_and_bits(tmp_path: pathlib.Path) -> None:
    config = RefineConfig(network="nets/net.py:Net", bits=("*=4", "block_2/*=8"), runs=tmp_path)
    assert config.folder == tmp_path / "Net-4-block_2_8-0"


@pytest.mark.parametrize("name", ["ours", "Plain", "function"])
def test_a_network_is_read_however_it_was_written(place: pathlib.Path, name: str) -> None:
    pixels = ("own",) if name == "function" else ("unit",)
    config = settings(place, place, network=f"{place / 'net.py'}:{name}", pixels=pixels)
    data = refine_data(config)
    images = data.test.images[:20]
    module, variables = own_network(config, data)
    expected, weights = own_network(settings(place, place), data)
    found = module.apply(variables, images)
    np.testing.assert_allclose(found, expected.apply(weights, images), rtol=1e-4, atol=1e-4)
    assert set(variables["params"]) == {"dense_0", "logits"}


def test_images_without_labels(place: pathlib.Path) -> None:
    config = settings(place, place, data=str(place / "images.npy"))
    data = refine_data(config)
    assert "agreement with the float network" in data.source
    module, variables = own_network(config, data)
    for split in (data.search, data.validation, data.test):
        logits = np.asarray(module.apply(variables, split.images))
        np.testing.assert_array_equal(logits.argmax(-1), split.labels)
    parts = [len(split) for split in (data.search, data.validation, data.test)]
    assert parts[0] <= 200
    assert parts[1] == parts[2] <= 60
    everything = np.concatenate([s.images for s in (data.search, data.validation, data.test)])
    assert len(np.unique(everything.reshape(len(everything), -1), axis=0)) == len(everything)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ""}, "say which --data"),
        ({"checkpoint": pathlib.Path()}, "say which --checkpoint"),
        ({"calibration": 3}, "--calibration must be at least 8, got 3"),
        ({"network": "alexnet"}, "FILE.py:NAME or one of lenet_300_100, .* not 'alexnet'"),
        ({"network": "absent.py:Net"}, "no such file: absent.py"),
        ({"network": "{place}/net.py:Net"}, "has no Net; there are .*Plain"),
        ({"network": "{place}/net.py:number"}, "number is neither a Flax module nor a function"),
        ({"network": "{place}/net.py:LeNet300", "pixels": ("own",)}, "--pixels own is for a"),
        ({"network": "{place}/net.py:tanh", "pixels": ("own",)}, "(?s)tanh.*relu"),
        ({"network": "{place}/net.py:Plain", "names": ("a=b",)}, "--names pairs weights with"),
        ({"network": "resnet_20", "names": ("published",)}, "no published weights"),
        ({"network": "{place}/net.py:LeNet300"}, "(?s)missing.*dense_1.*of another shape"),
        ({"network": "{place}/net.py:misnamed"}, r"misnamed \(line 3\d\) fails on .*'dense_1.ker"),
        ({"network": "{place}/net.py:Training"}, r"Training fails on images \[8, 8, 1\].*'train'"),
        ({"pixels": ("0.5",)}, "--pixels is unit, raw, imagenet, own, or MEAN STD"),
        ({"pixels": ("0.5", "-0.2")}, "standard deviations must be positive"),
        ({"pixels": ("imagenet",)}, "--pixels imagenet is for 3 channels; the images have 1"),
        ({"bits": ("dense_7=4",)}, "'dense_7' matches no layer; there are dense_0, logits"),
        ({"checkpoint": pathlib.Path("absent.pth")}, "no such file: absent.pth"),
    ],
)
def test_bad_input(
    place: pathlib.Path, tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    if "network" in change:
        change = change | {"network": change["network"].format(place=place)}
    with pytest.raises(QevoError, match=message):
        run_pipeline(settings(place, tmp_path, **change))
    assert not list(tmp_path.iterdir())


def test_a_source_that_cannot_be_imported(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "broken.py").write_text("import a_module_that_is_not_there")
    (tmp_path / "script.py").write_text("raise SystemExit(2)")
    for file, error in (("broken.py", "ModuleNotFoundError"), ("script.py", r"SystemExit\(2\)")):
        config = settings(place, tmp_path, network=f"{tmp_path / file}:Net")
        with pytest.raises(QevoError, match=f"cannot be imported: {error}"):
            own_network(config, refine_data(config))


def test_unlabelled_images_that_are_none(tmp_path: pathlib.Path) -> None:
    floats, flat = tmp_path / "floats.npy", tmp_path / "flat.npy"
    np.save(floats, np.zeros((9, 8, 8, 3), np.float32))
    np.save(flat, np.zeros((9, 64), np.uint8))
    assert is_unlabelled(floats)
    with pytest.raises(QevoError, match=r"found float32 \[9, 8, 8, 3\]: scale pixels back to 0..2"):
        read_unlabelled(floats)
    with pytest.raises(QevoError, match=r"expected uint8 \[n, H, W, C\], found uint8 \[9, 64\]"):
        read_unlabelled(flat)
    flat.write_bytes(flat.read_bytes()[:40])
    with pytest.raises(QevoError, match="expected a folder of images"):
        read_unlabelled(flat)
    grey = tmp_path / "grey.npy"
    np.save(grey, np.zeros((9, 8, 8), np.uint8))
    assert read_unlabelled(grey).shape == (9, 8, 8, 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(QevoError, match=r"empty: expected images \(.png .*found none"):
        read_unlabelled(empty)


def test_a_flat_folder_of_pictures(tmp_path: pathlib.Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    assert is_unlabelled(tmp_path)
    images = read_unlabelled(tmp_path)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 1, 2])
    assert images.dtype == np.uint8


@pytest.mark.parametrize("labelled", [True, False])
def test_a_network_that_returns_images_is_told_where_to_go(
    tmp_path: pathlib.Path, labelled: bool
) -> None:
    shape = (16, 16, 1)
    flat: Any = flatten_dict(random_variables(Autoencoder(), shape), sep="/")
    checkpoint, data = tmp_path / "weights.safetensors", tmp_path / "images.npz"
    save_file(flat, checkpoint)
    images, labels = np.zeros((99, *shape), np.uint8), np.arange(99) % 3
    if labelled:
        np.savez(data, images=images, labels=labels)
    else:
        data = tmp_path / "images.npy"
        np.save(data, images)
    config = RefineConfig(
        network="autoencoder", checkpoint=checkpoint, data=str(data), runs=tmp_path
    )
    with pytest.raises(QevoError, match=r"autoencoder returns \[16, 16, 1\].*squared_error"):
        run_pipeline(config)
    assert not list(tmp_path.glob("*/"))
