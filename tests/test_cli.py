"""The command line: what it teaches, what it refuses, and that the commands do their work."""

import dataclasses
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tiny
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import qevo
from qevo import cli
from qevo.run import folder as files

Said = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command; its exit code, output and errors."""

    def call(*words: object) -> tuple[int, str, str]:
        return tiny.exit_code(*words), *capsys.readouterr()

    return call


@pytest.fixture
def refused(said: Said) -> Refused:
    """Run a command that must fail in one sentence; the sentence."""

    def call(*words: object) -> str:
        code, _, error = said(*words)
        assert code == 2
        assert error.startswith("qevo: ")
        assert "Traceback" not in error
        return error.removeprefix("qevo: ").strip()

    return call


class TestHelp:
    def test_names_every_command_with_an_example(self, said: Said) -> None:
        code, text, _ = said("--help")
        assert code == 0
        for line in cli.DESCRIPTION.splitlines():
            if line.startswith("  qevo "):
                assert line.strip() in text
        for command in ("train", "evaluate", "audit"):
            assert f"  qevo {command} " in text
        assert "qevo train --help" in text

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("train", ("--data", "fashion_mnist_small", "--bits", "ternary", "--resume", "result")),
            ("train", ("--max-seconds", "--teacher", "--weights.generations", "--arithmetic")),
            ("evaluate", ("network.safetensors", "--data", "accuracy")),
            ("sensitivity", ("--average-bits", "run folder", "--checkpoint", "without a gradient")),
            ("audit", ("run folder", "floating-point", "--arithmetic")),
            ("compress", ("entropy coded", "-o", "network.safetensors")),
            ("inspect", ("zeros", "levels", "--json")),
        ],
    )
    def test_each_command_explains_itself(
        self, said: Said, command: str, words: tuple[str, ...]
    ) -> None:
        code, text, _ = said(command, "--help")
        assert code == 0
        for word in words:
            assert word in text

    def test_every_option_of_train_is_explained(self, said: Said) -> None:
        _, text, _ = said("train", "--help")
        lines = [line.strip("│ \n") for line in text.splitlines()]
        for line, following in itertools.pairwise(lines):
            if re.match("--[a-z]", line):
                assert following, line
                assert not re.match(r"--[a-z]|\(default", following), line

    def test_the_installed_command(self) -> None:
        command = pathlib.Path(sys.executable).with_name("qevo")
        done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "qevo train" in done.stdout
        assert not done.stderr

    @pytest.mark.parametrize("shell", ["bash", "zsh"])
    def test_shells_complete_the_commands(self, said: Said, shell: str) -> None:
        code, text, error = said("--tyro-print-completion", shell)
        assert (code, error) == (0, "")
        for command in ("train", "refine", "export"):
            assert f"'{command}': {{" in text
        assert "'--weights.generations'" in text

    @pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
    def test_bash_completes_a_word(self, said: Said, tmp_path: pathlib.Path) -> None:
        _, text, _ = said("--tyro-print-completion", "bash")
        (tmp_path / "qevo").write_text(text)
        typed = f'source {tmp_path}/qevo; COMP_WORDS=(qevo re); COMP_CWORD=1; COMP_LINE="qevo re"'
        script = f'{typed}; COMP_POINT=7; _tyro_qevo; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["refine", "report"], done.stderr


class TestCommands:
    def test_train_stops_and_resumes_by_name_alone(
        self, said: Said, finished: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        settings = dataclasses.replace(files.read_config(finished), runs=tmp_path)
        code, text, _ = said("train", *tiny.words(settings), "--max-seconds", "0")
        assert code == 0
        assert "420 search, 90 validation, 90 test images" in text
        assert "stopped in 1_constants after 5 generations" in text  # one call
        assert "5 generations, 80 networks evaluated" in text
        stopped = qevo.load(settings.folder / files.NETWORK)  # a network all the same
        assert stopped(tiny.blobs(3)[0]).shape == (3, tiny.CLASSES)
        code, text, error = said("train", "--name", settings.name, "--runs", tmp_path, "--resume")
        assert code == 0
        for label in ("float teacher", "nearest rounding", "layer-wise fit", "evolved"):
            assert label in text
        assert "dense_0 ternary, dense_1 ternary, logits ternary; activations 8 bit" in text
        assert "30 generations, 480 networks evaluated" in text
        assert "weights 20/20" in error  # progress
        network = settings.folder / files.NETWORK
        assert f"wrote {network}" in text.splitlines()
        assert network.read_bytes() == (finished / files.NETWORK).read_bytes()

    def test_a_changed_flag_is_no_resume(self, refused: Refused, finished: pathlib.Path) -> None:
        settings = files.read_config(finished)
        place = ("--name", settings.name, "--runs", settings.runs)
        before = tiny.contents(finished)
        error = refused("train", *place, "--resume", "--batch", "32", "--bits", "*=4")
        assert error.splitlines()[1:3] == ["  batch: 64 -> 32", "  bits: ['*=ternary'] -> ['*=4']"]
        assert "add --resume" in refused("train", *place, "--data", settings.data)
        assert tiny.contents(finished) == before

    def test_evaluate_prints_what_the_run_reported(
        self, said: Said, finished: pathlib.Path
    ) -> None:
        code, text, _ = said("evaluate", finished / files.NETWORK, "--arithmetic", "int")
        assert code == 0
        known = json.loads((finished / files.RESULT).read_text())["accuracy"]["evolved"]
        assert f"test       {100 * known['test']:.2f} %" in text
        assert f"validation {100 * known['validation']:.2f} %" in text

    def test_audit_finds_no_float(self, said: Said, finished: pathlib.Path) -> None:
        code, text, _ = said("audit", finished, "--arithmetic", "int")
        assert code == 0
        assert text.count("integers only: no floating-point value") == 2
        code, text, _ = said("audit", finished)  # as it ran, by the paths this machine measured
        assert code == 0
        assert text.count("one generation, arithmetic='fast'") == 2
        assert "floating-point values:" not in text

    def test_audit_fails_where_there_is_one(
        self, said: Said, finished: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli, "audit_run", lambda *_, **__: False)
        assert said("audit", finished)[0] == 1

    def test_ctrl_c_is_no_crash(self, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        def press(config: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "run_pipeline", press)
        code, _, error = said("train")
        assert code == 130
        assert "Traceback" not in error


class TestBadInput:
    def test_no_data_folder(
        self, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> None:
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
        monkeypatch.delenv("QEVO_DATA_DIR", raising=False)
        error = refused("train", "--data", "mnist", "--runs", tmp_path)
        assert "QEVO_DATA_DIR is not set" in error
        assert "fashion_mnist_small, which comes with qevo" in error
        monkeypatch.setenv("QEVO_DATA_DIR", str(tmp_path / "gone"))
        error = refused("train", "--data", "mnist", "--runs", tmp_path)
        assert f"QEVO_DATA_DIR={tmp_path / 'gone'}: expected a folder" in error
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--data", "mnits"), "expected one of mnist, fashion_mnist, cifar10"),
            (("--data", "nowhere/mine.npz"), "nowhere/mine.npz: no such file or folder"),
            (("--bits", "*=9"), "bits must be 'ternary' or 2 to 8, not 9"),
            (("--bits", "*=4", "conv_*=2"), "'conv_*' matches no layer; there are dense_0"),
            (("--device", "tpu"), "no device of kind 'tpu' here; there is: cpu:0"),
            (("--resume",), "nothing to resume"),
            (("--weights.search.population", "5"), "an even number"),
            (("--training.epochs", "0"), "--training.epochs must be at least 1"),
            (("--teacher", "nowhere.safetensors"), "no such file: nowhere"),
        ],
    )
    def test_of_train(
        self, refused: Refused, tmp_path: pathlib.Path, words: tuple[str, ...], message: str
    ) -> None:
        assert message in refused("train", "--runs", tmp_path, *words)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "words", [(), ("trian",), ("train", "--bots", "4"), ("train", "--activation-bits", "5")]
    )
    def test_of_words_it_does_not_know(self, said: Said, words: tuple[str, ...]) -> None:
        code, out, error = said(*words)
        assert code == 2
        assert "Traceback" not in out + error
        assert "qevo" in out + error

    def test_a_folder_that_cannot_be_written(
        self, refused: Refused, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "file").touch()
        data = tiny.write_blobs(tmp_path / "blobs.npz")
        error = refused("train", "--data", data, "--runs", tmp_path / "file")
        assert str(tmp_path / "file") in error

    def test_network_files(
        self, refused: Refused, finished: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        good, bad = finished / files.NETWORK, tmp_path / "bad.safetensors"
        assert "no such file" in refused("evaluate", bad)
        bad.write_bytes(good.read_bytes()[:-1000])
        assert "cut short" in refused("evaluate", bad)
        bad.write_text("hello")
        assert "cut short" in refused("evaluate", bad)
        with safe_open(good, framework="np") as file:
            header = json.loads(file.metadata()["qevo"])
        save_file(load_file(good), bad, {"qevo": json.dumps(header | {"version": 99})})
        error = refused("evaluate", bad)
        assert "version 99; this qevo reads version 1" in error
        save_file({"x": np.zeros(3, np.int8)}, bad)
        assert "not one of qevo's networks" in refused("evaluate", bad)
        shutil.copy(good, bad)
        assert "say which --data" in refused("evaluate", bad)

    def test_run_folders(
        self, refused: Refused, finished: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        assert "is it a run folder" in refused("audit", tmp_path).replace(f" {tmp_path}", " it")
        folder = tmp_path / "run"
        shutil.copytree(finished, folder)
        (folder / files.TARGETS).unlink()
        assert f"no such file: {folder / files.TARGETS}" in refused("audit", folder)

    def test_a_checkpoint_cut_in_half(
        self, refused: Refused, finished: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        settings = files.read_config(finished)
        folder = tmp_path / settings.name
        shutil.copytree(finished, folder)
        checkpoint = folder / "2_weights" / "checkpoint.safetensors"
        checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
        before = tiny.contents(folder)
        error = refused("train", "--name", settings.name, "--runs", tmp_path, "--resume")
        assert "checkpoint.safetensors is damaged" in error
        after = tiny.contents(folder)
        changed = {name for name in before if before[name] != after[name]}
        assert changed <= {files.CONFIG, "1_constants/checkpoint.safetensors"}
