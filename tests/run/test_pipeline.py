"""`qevo train` from data to report, and every way to stop and go on."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image
from support import records

import qevo
from qevo.algorithms import CoevolutionConfig
from qevo.core.progress import ProgressReport
from qevo.data import Dataset, Split, load
from qevo.errors import QevoError
from qevo.quantize import float_logits
from qevo.run import StageConfig, TrainConfig, run_pipeline
from qevo.run import folder as files
from qevo.run.claim import LOCK
from qevo.run.preparation import check
from qevo.run.teacher import trained_network

METHODS = {"float", "nearest", "best_of_n", "layerwise", "evolved"}


@pytest.fixture
def settings(finished: pathlib.Path) -> TrainConfig:
    """Those of the finished run."""
    return files.read_config(finished)


@pytest.fixture
def again(settings: TrainConfig, finished: pathlib.Path, tmp_path: pathlib.Path) -> TrainConfig:
    """The same run elsewhere, from the same teacher."""
    return dataclasses.replace(settings, runs=tmp_path, teacher=finished / files.TEACHER)


def read(folder: pathlib.Path) -> dict[str, Any]:
    return files.read_json(folder / files.RESULT)


def logged(folder: pathlib.Path) -> list[int]:
    return [record["generation"] for record in records(folder)]


def test_no_choice_sees_the_test_images(
    again: TrainConfig, finished: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other test images all that was chosen is the same, and only the report differs."""

    def with_other_tests(config: TrainConfig) -> Dataset:
        data = load(config.data, seed=config.split_seed)
        junk = Split(255 - data.test.images[::-1], (data.test.labels + 1) % tiny.CLASSES)
        return dataclasses.replace(data, test=junk)

    monkeypatch.setattr("qevo.run.pipeline.load_data", with_other_tests)
    run_pipeline(dataclasses.replace(again, teacher=None))
    ours, others = tiny.contents(finished), tiny.contents(again.folder)
    chosen = [name for name in ours if name.endswith(".safetensors") and "checkpoint" not in name]
    assert len(chosen) == 6
    for name in (*chosen, "2_weights/metrics.jsonl"):
        assert ours[name] == others[name], name
    before, after = read(finished)["accuracy"], read(again.folder)["accuracy"]
    for method in METHODS:
        assert before[method]["validation"] == after[method]["validation"]
        assert before[method]["test"] != after[method]["test"]


class TestRunFolder:
    def test_is_complete(self, finished: pathlib.Path) -> None:
        stages = ("1_constants", "2_weights")
        assert set(tiny.contents(finished)) == {
            LOCK,
            "config.json",
            "teacher.safetensors",
            "nearest.safetensors",
            "best_of_n.safetensors",
            "layerwise.safetensors",
            "targets.safetensors",
            "seconds.json",
            *(f"{s}/{f}" for s in stages for f in ("checkpoint.safetensors", "metrics.jsonl")),
            "network.safetensors",
            "result.json",
            "run.png",
        }

    def test_result_says_what_was_done(self, finished: pathlib.Path, settings: TrainConfig) -> None:
        result = read(finished)
        assert set(result["accuracy"]) == METHODS
        for part in result["accuracy"].values():
            assert set(part) == {"validation", "test"}
            assert all(value in set(np.arange(91) / 90) for value in part.values())
        assert result["accuracy"]["float"]["test"] > 0.9
        assert result["accuracy"]["evolved"]["test"] > 0.8
        assert result["bits"] == dict.fromkeys(("dense_0", "dense_1", "logits"), "ternary")
        assert result["activation_bits"] == 8
        assert result["generations"] == 30
        assert result["evaluations"] == 30 * 16
        assert result["peak_memory_bytes"] > 2**20
        assert isinstance(result["compilation_cached"], bool)
        assert result["seed"] == settings.seed
        assert (result["data"], result["network"]) == (settings.data, "lenet_300_100")
        assert set(result["seconds"]) == (METHODS - {"float", "evolved"}) | {
            "teacher",
            "1_constants",
            "2_weights",
            "compilation",
        }
        assert all(seconds > 0 for seconds in result["seconds"].values())
        assert {"python", "qevo", "jax", "jaxlib", "flax", "numpy"} <= set(result["versions"])
        assert result["device"].startswith(("1 x ", "2 x ", "4 x ", "8 x "))
        assert result["commit"] is None or len(result["commit"].rstrip("+")) == 40
        network = (finished / files.NETWORK).read_bytes()
        assert result["network_sha256"] == hashlib.sha256(network).hexdigest()

    def test_metrics_hold_one_line_for_each_generation(self, finished: pathlib.Path) -> None:
        for stage, generations in (("1_constants", 10), ("2_weights", 20)):
            found = records(finished / stage)
            assert logged(finished / stage) == list(range(1, generations + 1))
            assert all(isinstance(v, int) for record in found for v in record.values())
            seen = [r for r in found if "validation" in r]
            assert [r["generation"] for r in seen] == list(range(5, generations + 1, 5))
            assert all(0 <= r["validation_errors"] <= 90 for r in seen)
            accepted = [r["accepted"] for r in found]
            assert accepted == sorted(accepted, reverse=True)
            assert accepted[-1] < accepted[0]  # both stages found something

    def test_each_stage_changes_its_own_genes(self, finished: pathlib.Path) -> None:
        start = qevo.load(finished / "nearest.safetensors")
        network = qevo.load(finished / files.NETWORK)
        for kind in ("multiplier", "bias"):
            assert any(
                np.any(network.constants[n][kind] != start.constants[n][kind])
                for n in network.layers
            )
        moved = [
            np.abs(np.asarray(network.weights[n], np.int32) - np.asarray(start.weights[n]))
            for n in network.layers
        ]
        assert max(m.max() for m in moved) == 1  # no further than the radius
        assert (network.layers, network.ranges) == (start.layers, start.ranges)


class TestSameBytes:
    def test_with_integer_products_only(self, finished: pathlib.Path, again: TrainConfig) -> None:
        """And from a teacher's file, with other chunks and calls."""
        result = run_pipeline(
            dataclasses.replace(again, arithmetic="int", candidate_chunk=3, scan_length=7)
        )
        before = read(finished)
        assert result["network_sha256"] == before["network_sha256"]
        assert result["accuracy"] == before["accuracy"]
        ours, theirs = tiny.contents(again.folder), tiny.contents(finished)
        for name in ("network", "nearest", "best_of_n", "layerwise", "targets", "teacher"):
            file = f"{name}.safetensors"
            assert ours[file] == theirs[file], file

    def test_stopped_by_ctrl_c_and_resumed(
        self, finished: pathlib.Path, again: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pressed as the first stage ends, which must not begin the second; and in the second."""
        show = ProgressReport.__call__

        for resume, title in ((False, "multipliers biases"), (True, "weights")):

            def press(self: ProgressReport, done: int, record: dict[str, int]) -> None:
                show(self, done, record)
                if self._title == title and done == 10:  # noqa: B023
                    os.kill(os.getpid(), signal.SIGINT)

            with monkeypatch.context() as patch:
                patch.setattr(ProgressReport, "__call__", press)
                with pytest.raises(KeyboardInterrupt):
                    run_pipeline(dataclasses.replace(again, resume=resume))
            assert (again.folder / "2_weights").exists() == resume
        assert logged(again.folder / "2_weights") == list(range(1, 11))

        result = run_pipeline(dataclasses.replace(again, resume=True))
        assert result["network_sha256"] == read(finished)["network_sha256"]
        for stage in ("1_constants", "2_weights"):
            ours, theirs = (f / stage / "metrics.jsonl" for f in (again.folder, finished))
            assert ours.read_bytes() == theirs.read_bytes()

    def test_resumes_on_a_machine_whose_floats_differ(
        self, finished: pathlib.Path, settings: TrainConfig, tmp_path: pathlib.Path
    ) -> None:
        """What floats made is in the folder: nothing of it is made again. Extends the run, too."""
        folder = tmp_path / settings.name
        shutil.copytree(finished, folder)
        before = tiny.contents(folder)
        teacher = files.load_arrays(folder / files.TEACHER)
        teacher["params"]["logits"]["bias"] += np.float32(1e-3)
        files.save_arrays(folder / files.TEACHER, teacher)
        longer = StageConfig(25, settings.weights.search)
        result = run_pipeline(
            dataclasses.replace(settings, runs=tmp_path, resume=True, weights=longer)
        )
        assert result["generations"] == 35
        assert logged(folder / "2_weights") == list(range(1, 26))
        after = tiny.contents(folder)
        for name in ("nearest.safetensors", "targets.safetensors", "seconds.json"):
            assert after[name] == before[name]
        assert result["seconds"]["teacher"] == json.loads(before["seconds.json"])["teacher"]


@pytest.mark.data
def test_a_published_teacher_keeps_its_pixel_rule(tmp_path: pathlib.Path) -> None:
    """Also as the teacher.safetensors that a run leaves."""
    weights = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "resnet8_cifar10"
    images = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    split = Split(images, np.arange(4, dtype=np.int32))
    data = Dataset("own", split, split, split, tuple("0123456789"), "own")
    given, logits = weights / "resnet8_cifar10_f32_keras_names.npz", []
    for name in ("first", "second"):
        config = TrainConfig(architecture="resnet_8", teacher=given, runs=tmp_path, name=name)
        config.folder.mkdir()
        for _ in range(2):  # what is given, and what is kept
            module, variables = trained_network(config, data, {})
            logits.append(float_logits(module, variables, images))
        given = config.folder / files.TEACHER
    assert all(np.array_equal(found, logits[0]) for found in logits[1:])
    damaged = files.load_arrays(given)
    damaged["pixels"]["slope"] = np.zeros(3)
    files.save_arrays(given, damaged)
    with pytest.raises(QevoError, match="are no rule for pixels"):
        trained_network(config, data, {})


def test_a_run_has_its_folder_for_itself_until_its_end(again: TrainConfig) -> None:
    def locked() -> bool:
        with (again.folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    seen = []
    run_pipeline(again, callback=lambda record: seen.append(locked()))
    assert len(seen) == 30
    assert all(seen)
    assert not locked()


class TestRefused:
    """Each leaves every byte of the folder as it was."""

    @pytest.fixture(autouse=True)
    def _untouched(self, finished: pathlib.Path) -> Any:
        before = tiny.contents(finished)
        yield
        assert tiny.contents(finished) == before

    def test_a_folder_that_holds_a_run(self, settings: TrainConfig) -> None:
        with pytest.raises(QevoError, match="already holds a run: add --resume"):
            run_pipeline(settings)

    def test_a_folder_that_holds_anything(
        self, settings: TrainConfig, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "used").mkdir()
        (tmp_path / "used" / "network.safetensors").write_text("precious")
        (tmp_path / "file").write_text("precious")
        for name in ("used", "file"):
            with pytest.raises(QevoError, match="already exists: choose another"):
                run_pipeline(dataclasses.replace(settings, runs=tmp_path, name=name))
        assert set(tiny.contents(tmp_path).values()) == {b"precious"}

    def test_a_run_that_another_process_is_at(self, settings: TrainConfig) -> None:
        with (settings.folder / LOCK).open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(QevoError, match="another process is at work in "):
                run_pipeline(dataclasses.replace(settings, resume=True))

    def test_changed_settings_all_listed(self, settings: TrainConfig) -> None:
        changed = dataclasses.replace(
            settings,
            resume=True,
            batch=32,
            bits=("*=4",),
            weights=dataclasses.replace(
                settings.weights, search=dataclasses.replace(settings.weights.search, rate=0.5)
            ),
            scan_length=3,  # free to change
        )
        with pytest.raises(QevoError) as refusal:
            run_pipeline(changed)
        lines = str(refusal.value).splitlines()
        assert lines[1:-1] == [
            "  batch: 64 -> 32",
            "  bits: ['*=ternary'] -> ['*=4']",
            "  weights.search.rate: 1.0 -> 0.5",
        ]
        assert "nothing was changed" in lines[-1]

    def test_a_longer_first_stage_once_the_second_has_begun(self, settings: TrainConfig) -> None:
        longer = StageConfig(40, settings.constants.search)
        with pytest.raises(QevoError, match=r"constants.generations: 10 -> 40"):
            run_pipeline(dataclasses.replace(settings, resume=True, constants=longer))

    def test_other_images_under_the_same_name(
        self, settings: TrainConfig, tmp_path: pathlib.Path
    ) -> None:
        images, labels = tiny.blobs(seed=2)
        np.savez(tmp_path / "blobs.npz", images=images, labels=labels)
        with pytest.raises(QevoError, match=r"data: .*\n  data_sha256: "):
            run_pipeline(
                dataclasses.replace(settings, resume=True, data=str(tmp_path / "blobs.npz"))
            )

    def test_nothing_to_resume(self, settings: TrainConfig, tmp_path: pathlib.Path) -> None:
        with pytest.raises(QevoError, match="nothing to resume"):
            run_pipeline(dataclasses.replace(settings, runs=tmp_path, resume=True))
        assert not list(tmp_path.iterdir())


class TestBadSettings:
    """Found before anything is trained or a folder is made."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bits": ("9",)}, "bits must be 'ternary' or 2 to 8, not 9"),
            ({"bits": ("*=4", "conv_*=3")}, "'conv_.*' matches no layer; there are dense_0"),
            ({"bits": ("logits=4",)}, "no pattern matches layer dense_0"),
            ({"architecture": "lenet_5"}, r"LeNet5 cannot take images of \(8, 8, 1\)"),
            ({"seed": -1}, "--seed must be 0 to 4294967295, got -1"),
            ({"seed": 1 << 32}, "--seed must be 0 to 4294967295, got 4294967296"),
            ({"draws": 0}, "--draws must be at least 1, got 0"),
            ({"calibration": -5}, "--calibration must be at least 1"),
            ({"validate_every": 0}, "--validate-every must be at least 1"),
            ({"radius": 0}, "--radius must be at least 1"),
            ({"radius": 200}, "--radius must be at most 127, got 200"),
            ({"batch": 1 << 17}, "--batch must be at most 65535"),
            (
                {"weights": StageConfig(-1, CoevolutionConfig())},
                "--weights.generations must be 0 or more, got -1",
            ),
            ({"teacher": pathlib.Path("absent.safetensors")}, "no such file: absent"),
            ({"data": "absent.npz"}, "absent.npz"),
            ({"device": "tpu"}, "no device of kind 'tpu' here; there is: cpu:0"),
        ],
    )
    def test_is_refused(
        self, settings: TrainConfig, tmp_path: pathlib.Path, change: Any, message: str
    ) -> None:
        with pytest.raises(QevoError, match=message):
            run_pipeline(dataclasses.replace(settings, runs=tmp_path, **change))
        assert not list(tmp_path.iterdir())

    def test_a_search_that_cannot_be(self, settings: TrainConfig, tmp_path: pathlib.Path) -> None:
        search = dataclasses.replace(settings.weights.search, population=7)
        with pytest.raises(QevoError, match="an even number"):
            run_pipeline(
                dataclasses.replace(settings, runs=tmp_path, weights=StageConfig(20, search))
            )
        assert not list(tmp_path.iterdir())

    def test_an_npz_without_published_weights(
        self, settings: TrainConfig, tmp_path: pathlib.Path
    ) -> None:
        data, given = load(settings.data), pathlib.Path(settings.data)
        npz = dataclasses.replace(settings, teacher=given, runs=tmp_path)
        with pytest.raises(QevoError, match=r"LeNet300 has no published weights.*ResNet20"):
            check(npz, data)
        with pytest.raises(QevoError, match=r"blobs\.npz: no published weights: an array"):
            check(dataclasses.replace(npz, architecture="resnet_20"), data)


class TestTeacher:
    @pytest.mark.parametrize("wrong", ["network", "damaged", "shape"])
    def test_of_another_kind(
        self, finished: pathlib.Path, again: TrainConfig, tmp_path: pathlib.Path, wrong: str
    ) -> None:
        path = tmp_path / "teacher.safetensors"
        if wrong == "network":
            path.write_bytes((finished / files.NETWORK).read_bytes())
        elif wrong == "damaged":
            path.write_bytes((finished / files.TEACHER).read_bytes()[:-100])
        else:
            teacher = files.load_arrays(finished / files.TEACHER)
            teacher["params"]["logits"]["bias"] = np.zeros(10, np.float32)
            files.save_arrays(path, teacher)
        messages = {
            "network": "does not fit LeNet300 on images",
            "damaged": "is damaged",
            "shape": r"params/logits/bias is \(10,\), not \(3,\); 1 of 6 arrays differ",
        }
        with pytest.raises(QevoError, match=messages[wrong]):
            run_pipeline(dataclasses.replace(again, teacher=path))
        assert not again.folder.exists()


def test_a_folder_of_images_without_any_search(again: TrainConfig, tmp_path: pathlib.Path) -> None:
    """The report of a run whose stages are both left out: the start is the result."""
    images, labels = tiny.blobs(60)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = tmp_path / "pictures" / "train" / f"class_{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{i}.png")
    nothing = StageConfig(0, again.constants.search)
    result = run_pipeline(
        dataclasses.replace(
            again,
            data=str(tmp_path / "pictures"),
            name="",
            constants=nothing,
            weights=nothing,
            targets="labels",
            start="layerwise",
        )
    )
    folder = tmp_path / "pictures-lenet_300_100-0"
    assert result == read(folder)
    assert result["generations"] == result["evaluations"] == 0
    assert result["accuracy"]["evolved"] == result["accuracy"]["layerwise"]
    network, start = (folder / f"{name}.safetensors" for name in ("network", "layerwise"))
    assert network.read_bytes() == start.read_bytes()
    assert (folder / files.PICTURE).exists()
    assert not (folder / files.TARGETS).exists()


@pytest.mark.data
def test_published_weights_and_the_architecture() -> None:
    """Whatever the file is called; ResNet-20 fits no other depth."""
    folder = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "resnet_cifar10"
    settings = TrainConfig(
        data="cifar10", architecture="resnet_20", teacher=folder / "resnet20_cifar10_f32.npz"
    )
    data = load("cifar10")
    check(settings, data)
    with pytest.raises(QevoError, match="npz holds ResNet20; --architecture says ResNet56"):
        check(dataclasses.replace(settings, architecture="resnet_56"), data)


@pytest.mark.data
def test_published_weights_keep_their_pixel_rule(
    again: TrainConfig, tmp_path: pathlib.Path
) -> None:
    """MLPerf Tiny's ResNet-8 takes raw pixels, in a resumed run as well."""
    weights = pathlib.Path(os.environ["QEVO_DATA_DIR"]) / "weights" / "resnet8_cifar10"
    published = tmp_path / "published.npz"
    shutil.copy(weights / "resnet8_cifar10_f32_keras_names.npz", published)
    photos = load("cifar10").test
    np.savez(tmp_path / "photos.npz", images=photos.images[:300], labels=photos.labels[:300])
    nothing = StageConfig(0, again.constants.search)
    settings = dataclasses.replace(
        again,
        data=str(tmp_path / "photos.npz"),
        architecture="resnet_8",
        teacher=published,
        bits=("8",),
        calibration=32,
        draws=1,
        targets="labels",
        constants=nothing,
        weights=nothing,
    )
    accuracy = run_pipeline(settings)["accuracy"]
    assert accuracy["float"]["test"] > 0.7
    assert accuracy["nearest"]["test"] > 0.7
    published.unlink()
    (settings.folder / "nearest.safetensors").unlink()  # to be made again from what was kept
    assert run_pipeline(dataclasses.replace(settings, resume=True))["accuracy"] == accuracy
