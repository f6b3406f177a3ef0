"""Full disks, folders that cannot be written to, readers that go away, small terminals."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator

import pytest
import support
import tiny

from qevo.core import progress
from qevo.run import TrainConfig
from qevo.run import folder as files
from qevo.run.session import exit_code

RING = "5 5\n1 2 1\n2 3 1\n3 4 1\n4 5 1\n5 1 1\n"
ROOM = "make room; files that were complete are whole, and a run goes on with --resume"
ELSEWHERE = "name a folder that can be written to, with --runs or --output"
CLOSED = "qevo: nobody reads the output any more; a run that was going on goes on with --resume\n"

Capture = pytest.CaptureFixture[str]


class Disk:
    """A file system of its own.

    Attributes:
      path: where it is mounted.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def fill(self) -> None:
        """Leave no room, not even for what a small file begins with."""
        with contextlib.suppress(OSError), (self.path / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Disk]:
    """One of 8 MiB, where mounting is allowed."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield Disk(path)
    subprocess.run(["umount", path], check=True)


def fails(arguments: list[object], capsys: Capture) -> str:
    """The one line that a command says before it ends with 2."""
    assert tiny.exit_code(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    told = [line for line in said if line.startswith("qevo: ")]
    assert len(told) == 1
    assert said[-1] == told[0]
    return told[0]


@pytest.fixture
def run(finished: pathlib.Path, disk: Disk) -> pathlib.Path:
    """A finished run on a disk of its own."""
    return pathlib.Path(shutil.copytree(finished, disk.path / "run"))


@pytest.fixture
def settings(finished: pathlib.Path, tmp_path: pathlib.Path) -> TrainConfig:
    """The finished run again, elsewhere, from its teacher."""
    known = files.read_config(finished)
    assert isinstance(known, TrainConfig)
    teacher = finished / files.TEACHER
    return dataclasses.replace(known, runs=tmp_path / "runs", teacher=teacher)


def same_network(folder: pathlib.Path, other: pathlib.Path) -> bool:
    return (folder / files.NETWORK).read_bytes() == (other / files.NETWORK).read_bytes()


class TestFullDisk:
    def test_a_search_keeps_its_checkpoint_and_resumes_to_the_same_bits(
        self, disk: Disk, tmp_path: pathlib.Path
    ) -> None:
        def fill(record: dict[str, int]) -> None:
            if record["generation"] == 40:
                disk.fill()

        folder = disk.path / "search"
        with pytest.raises(OSError, match="No space left on device") as error:
            support.noisy_search(folder, callback=fill)
        assert pathlib.Path(str(error.value.filename)).parent == folder
        assert {path.name for path in folder.iterdir()} == {
            "checkpoint.safetensors",
            "metrics.jsonl",
        }
        disk.empty()
        found = support.noisy_search(folder, resume=True)
        whole = support.noisy_search(tmp_path / "whole")
        assert support.state(found, folder) == support.state(whole, tmp_path / "whole")

    @pytest.mark.slow
    @pytest.mark.parametrize("room", ["8k", "300k", "900k", "1100k"])
    def test_training_resumes_to_the_same_network(
        self,
        room: str,
        disk: Disk,
        settings: TrainConfig,
        finished: pathlib.Path,
        capsys: Capture,
    ) -> None:
        """The room ends at the teacher, a rounding, and two checkpoints of the weights."""
        settings = dataclasses.replace(settings, runs=disk.path)
        disk.remount(f"size={room}")
        told = fails(["train", *tiny.words(settings)], capsys)
        path = re.escape(str(settings.folder))
        assert re.fullmatch(rf"qevo: {path}/\S+: No space left on device; {ROOM}", told)
        left = [path for path in settings.folder.rglob("*") if path.is_file()]
        assert not [path for path in left if path.name.startswith(".")]  # nothing half written
        for path in left:
            if path.suffix == ".safetensors":
                assert files.load_arrays(path)  # raises where it is not whole
        disk.remount("size=8m")
        assert tiny.exit_code("train", *tiny.words(settings), "--resume") == 0
        assert same_network(settings.folder, finished)

    def test_an_exported_file_stays_whole(
        self, run: pathlib.Path, disk: Disk, capsys: Capture
    ) -> None:
        command = ["export", run, "--to", "safetensors", "--no-check"]
        assert tiny.exit_code(*command) == 0
        output = run / "network.packed.safetensors"
        whole = output.read_bytes()
        disk.fill()
        told = fails(command, capsys)
        assert told == f"qevo: {output}: No space left on device; {ROOM}"
        assert output.read_bytes() == whole
        assert not list(run.glob(".*.tmp"))

    def test_a_solution_is_named(self, disk: Disk, tmp_path: pathlib.Path, capsys: Capture) -> None:
        (tmp_path / "ring.mc").write_text(RING)
        disk.fill()
        output = disk.path / "solution"
        told = fails(
            ["solve", tmp_path / "ring.mc", "--seconds", 0.5, "--chains", 2, "--output", output],
            capsys,
        )
        assert told == f"qevo: {output}: No space left on device; {ROOM}"
        assert not output.exists()

    def test_a_report_leaves_the_page_before_it(
        self, run: pathlib.Path, disk: Disk, capsys: Capture
    ) -> None:
        page = run / "report.html"
        page.write_text("the page before")
        disk.fill()
        told = fails(["report", run, "--examples", 0], capsys)
        assert told == f"qevo: {page}: No space left on device; {ROOM}"
        assert page.read_text() == "the page before"


class TestReadOnlyFolder:
    def test_training_says_so_before_it_begins(
        self, disk: Disk, settings: TrainConfig, capsys: Capture
    ) -> None:
        disk.remount("ro")
        settings = dataclasses.replace(settings, runs=disk.path)
        told = fails(["train", *tiny.words(settings)], capsys)
        assert told == f"qevo: {settings.folder}: Read-only file system; {ELSEWHERE}"

    def test_a_run_there_is_exported_and_solved_to_elsewhere(
        self, run: pathlib.Path, disk: Disk, tmp_path: pathlib.Path, capsys: Capture
    ) -> None:
        disk.remount("ro")
        before = tiny.contents(run)
        command = ["export", run, "--to", "safetensors", "--no-check"]
        told = fails(command, capsys)
        output = run / "network.packed.safetensors"
        assert told == f"qevo: {output}: Read-only file system; {ELSEWHERE}"
        assert tiny.exit_code(*command, "--output", tmp_path / "mine") == 0
        assert (tmp_path / "mine").exists()
        told = fails(["report", run, "--examples", 0], capsys)
        assert told == f"qevo: {run / 'report.html'}: Read-only file system; {ELSEWHERE}"
        assert tiny.contents(run) == before


@pytest.mark.parametrize("through", [print, lambda text: progress.Console().print(text)])
def test_a_reader_that_is_gone(
    through: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert exit_code(lambda: through("hello")) == 141
        gone.flush()  # as the interpreter does in the end: no second error
    assert capsys.readouterr().err == CLOSED


def test_other_ends_are_left_alone(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        exit_code(lambda: sys.exit(5))
    assert ended.value.code == 5
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)
    assert capsys.readouterr().err == ""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No display, and a terminal of which nothing is known."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "COLUMNS", "LINES", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def qevo_command(*words: object) -> list[str]:
    return [sys.executable, "-m", "qevo", *map(str, words)]


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("both", [False, True])
def test_training_into_head(both: bool, settings: TrainConfig, finished: pathlib.Path) -> None:
    """Also with standard error in the pipe, and then without a display or a terminal."""
    command = qevo_command("train", *tiny.words(settings))
    errors = subprocess.STDOUT if both else subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout
        assert str(settings.folder) in process.stdout.readline()
        process.stdout.close()
        said = "" if both else process.stderr.read() if process.stderr else ""
    assert process.returncode == 141
    assert said == ("" if both else CLOSED)
    assert not (settings.folder / files.RESULT).exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert same_network(settings.folder, finished)
    assert (settings.folder / files.PICTURE).read_bytes().startswith(b"\x89PNG")


def in_terminal(command: list[str], columns: int) -> tuple[int, str]:
    """The exit status, and all that was written, of a command in a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # what reading from a terminal without a writer raises
            while part := os.read(ours, 1 << 16):
                written += part
    os.close(ours)
    return process.returncode, written.decode()


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_a_terminal_of_40_columns(settings: TrainConfig, finished: pathlib.Path) -> None:
    status, written = in_terminal(qevo_command("train", *tiny.words(settings)), 40)
    assert status == 0, written
    assert same_network(settings.folder, finished)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    paths = [line for line in lines if str(settings.runs) in line]
    assert max(len(line) for line in lines if line not in paths) <= 40
    assert "multipliers biases 10/10 accepted" in text
    assert re.search(r"weights 20/20 accepted [\d,]+\s", text)
    assert len(re.findall(r"^[│|].*\d\d\.\d\d", text, re.MULTILINE)) == 5  # all rows of the table
