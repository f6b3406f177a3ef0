"""`qevo evaluate` and `qevo plan` on what a run left."""

import pathlib
import shutil

import numpy as np
import pytest
import tiny
from export_networks import NETWORKS
from networks import quantized, random_images

from qevo.data import load
from qevo.errors import QevoError
from qevo.nets import Autoencoder
from qevo.run import folder as files
from qevo.run.evaluating import evaluate_file, print_plan

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", ["evolved", "nearest"])
@pytest.mark.parametrize("arithmetic", ["int", "fast"])
def test_evaluate_reprints_the_accuracy(
    finished: pathlib.Path, capsys: Capture, name: str, arithmetic: str
) -> None:
    file = finished / ("network.safetensors" if name == "evolved" else f"{name}.safetensors")
    known = files.read_json(finished / files.RESULT)["accuracy"][name]
    assert evaluate_file(file, arithmetic=arithmetic) == known
    said = capsys.readouterr().out
    assert str(file) in said
    assert "dense_0 ternary" in said
    for part, value in known.items():
        assert f"{part:<10} {100 * value:.2f} %" in said


@pytest.mark.parametrize("command", ["evaluate", "inspect", "compress"])
def test_a_run_folder_stands_for_its_network(
    finished: pathlib.Path, tmp_path: pathlib.Path, capsys: Capture, command: str
) -> None:
    output = ["-o", tmp_path / "out.qevo"] if command == "compress" else []
    seen: list[str | bytes] = []
    for path in (finished, finished / files.NETWORK):
        assert tiny.exit_code(command, path, *output) == 0
        said = capsys.readouterr().out
        assert "dense_0" in said or "out.qevo" in said
        seen.append((tmp_path / "out.qevo").read_bytes() if output else said)
    assert seen[0] == seen[1]


def test_evaluate_takes_other_data(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    alone = tmp_path / "network.safetensors"
    shutil.copy(finished / files.NETWORK, alone)
    with pytest.raises(QevoError, match="say which --data"):
        evaluate_file(alone)
    images, labels = tiny.blobs(90, seed=4)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    result = evaluate_file(alone, data=str(tmp_path / "other.npz"))
    assert all(value > 0.7 for value in result.values())
    np.savez(tmp_path / "large.npz", images=np.zeros((9, 9, 9), np.uint8), labels=np.arange(9) % 3)
    with pytest.raises(QevoError, match=r"images must be uint8 \[B, 8, 8, 1\]"):
        evaluate_file(alone, data=str(tmp_path / "large.npz"))


def test_evaluate_says_how_well_images_are_reconstructed(
    tmp_path: pathlib.Path, capsys: Capture
) -> None:
    images = random_images((16, 16, 1), 60)
    network = quantized(Autoencoder(widths=(3, 4), code=2), images, bits=4)
    network.save(tmp_path / "network.safetensors")
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(60) % 3)
    path = str(tmp_path / "images.npz")
    result = evaluate_file(tmp_path / "network.safetensors", data=path)
    test = load(path).test.images
    found = np.clip(network(test) * network.output_scale, 0, 1)
    assert result["test"] == pytest.approx(np.square(found - test / 255).mean(), rel=0.01)
    assert f"test       squared error {result['test']:.6f}" in capsys.readouterr().out


def test_an_accuracy_is_that_of_a_classifier_of_these_classes(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    images, labels = tiny.blobs(count=40)
    np.savez(tmp_path / "four.npz", images=images, labels=np.arange(40) % 4)
    with pytest.raises(QevoError, match=r"tells 3 classes apart, and .* has 4"):
        evaluate_file(finished / files.NETWORK, data=str(tmp_path / "four.npz"))
    network = NETWORKS["detector"]()
    network.save(tmp_path / "network.safetensors")
    draw = np.random.RandomState(0).randint(0, 256, (40, *network.image_shape)).astype(np.uint8)
    np.savez(tmp_path / "large.npz", images=draw, labels=labels)
    with pytest.raises(QevoError, match="is a detector's network"):
        evaluate_file(tmp_path / "network.safetensors", data=str(tmp_path / "large.npz"))


def test_evaluate_notices_data_that_changed(tmp_path: pathlib.Path, finished: pathlib.Path) -> None:
    """Other images may bring ones that the run searched on into the test split."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    images, labels = tiny.blobs(seed=5)
    np.savez(tmp_path / "blobs.npz", images=images, labels=labels)
    changed = files.read_json(folder / files.CONFIG) | {"data": str(tmp_path / "blobs.npz")}
    files.write_json(folder / files.CONFIG, changed)
    with pytest.raises(QevoError, match="has changed since the run"):
        evaluate_file(folder / files.NETWORK)
    assert evaluate_file(folder / files.NETWORK, data=str(tmp_path / "blobs.npz"))
    assert evaluate_file(folder / files.NETWORK, split_seed=1)


def test_a_plan_shows_every_layer(finished: pathlib.Path, capsys: Capture) -> None:
    made = print_plan(finished / files.NETWORK, arithmetic="int", batch=32, measure=True)
    said = capsys.readouterr().out
    for name, layer in made.layers.items():
        (line,) = (line for line in said.splitlines() if f" {name} " in line)
        assert layer.path in line
        assert f"{layer.bound:,}" in line
        assert "2^31" in line
    assert "one after the other, 32 images at once" in said
    again = print_plan(finished / files.NETWORK, arithmetic="int", batch=32)
    assert again == made  # kept, not measured


def test_a_plan_needs_a_network(tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match="no such file"):
        print_plan(tmp_path / "none.safetensors")
