"""Trackers: each generation told once and in order, through kills and resumes."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import struct
import sys
from collections import Counter
from typing import Any

import pytest
import tiny
from support import noisy_search, records, walk
from tensorboardX.proto.event_pb2 import Event

from qevo import cli
from qevo.errors import QevoError
from qevo.run import TensorBoard, run_pipeline, to_tracker
from qevo.run import folder as files

STAGES = {"1_constants": 10, "2_weights": 20}


class Tracker:
    """Called as those of Weights & Biases, MLflow and Comet are; steps may only grow."""

    def __init__(self) -> None:
        self.rows: list[dict[str, int]] = []

    @property
    def last(self) -> int:
        return self.rows[-1]["generation"] if self.rows else 0

    def log(self, values: dict[str, Any], step: int) -> None:
        assert step > self.last
        assert "generation" not in values
        self.rows.append({"generation": step} | values)


class Killed(Exception):
    """Ends a search without a word to it."""


def events(folder: pathlib.Path) -> list[Event]:
    """What TensorBoard reads: length, checksum, event, checksum, and so on."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        found.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += length + 16
    return found


def scalars(folder: pathlib.Path) -> list[dict[str, int]]:
    """One record for each step, with every value that was written once."""
    values = [(e.step, v.tag, v.simple_value) for e in events(folder) for v in e.summary.value]
    assert max(Counter((step, tag) for step, tag, _ in values).values()) == 1
    steps = list(dict.fromkeys(step for step, _, _ in values))
    assert steps == sorted(steps)
    found: dict[int, dict[str, int]] = {step: {"generation": step} for step in steps}
    for step, tag, value in values:
        found[step][tag] = int(value)
    return list(found.values())


class TestToTracker:
    def test_hands_on_each_record(self) -> None:
        tracker, seen = Tracker(), walk(scan_length=5).metrics
        walk(callback=to_tracker(tracker.log), scan_length=5)
        assert tracker.rows == seen

    def test_some_of_them_by_other_names(self) -> None:
        tracker, seen = Tracker(), walk().metrics
        walk(callback=to_tracker(tracker.log, prefix="walk/", every=5))
        assert [row["generation"] for row in tracker.rows] == [5, 10]
        assert tracker.rows[1]["walk/best"] == seen[9]["best"]
        assert all(name.startswith("walk/") for name in tracker.rows[0] if name != "generation")
        with pytest.raises(QevoError, match="every must be at least 1, got 0"):
            to_tracker(tracker.log, every=0)

    def test_after_a_kill_no_step_comes_twice(self, tmp_path: pathlib.Path) -> None:
        """Generation 7 is logged, but the last checkpoint is older."""
        tracker = Tracker()

        def log(values: dict[str, int], step: int) -> None:
            tracker.log(values, step=step)
            if step == 7:
                raise Killed

        with pytest.raises(Killed):
            walk(callback=to_tracker(log), scan_length=2, folder=tmp_path)
        again = to_tracker(tracker.log, after=tracker.last)
        walk(callback=again, scan_length=2, folder=tmp_path, resume=True)
        assert tracker.rows == walk().metrics

    def test_one_process_of_several_logs(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("qevo.run.tracking.is_first", lambda: False)
        tracker = Tracker()
        walk(callback=to_tracker(tracker.log))
        with TensorBoard(tmp_path) as board:
            walk(callback=board)
        assert tracker.rows == []
        assert not list(tmp_path.iterdir())


class TestTensorBoard:
    def test_has_what_the_metrics_have(self, tmp_path: pathlib.Path) -> None:
        """Validation too, which only some generations look at."""
        with TensorBoard(tmp_path) as board:
            noisy_search(tmp_path, callback=board)
        assert scalars(tmp_path) == records(tmp_path)
        assert sum("validation" in record for record in scalars(tmp_path)) == 90 // 4

    def test_every_step_is_there_once_after_a_kill(self, tmp_path: pathlib.Path) -> None:
        """And after a session without it; an event file of somebody else stays."""
        (tmp_path / "events.out.tfevents.1.theirs").write_text("precious")

        def killed_at(last: int) -> Any:
            def kill(record: dict[str, int]) -> None:
                if record["generation"] == last:
                    raise Killed

            return kill

        rare = {"scan_length": 2, "folder": tmp_path, "checkpoint_seconds": 1e9}
        with pytest.raises(Killed):
            walk(callback=killed_at(5), **rare, checkpoint_generations=2)
        for last in (9, 8):

            def tell(record: dict[str, int], board: Any, last: int) -> None:
                board(record)
                killed_at(last)(record)

            with pytest.raises(Killed), TensorBoard(tmp_path) as board:
                walk(callback=lambda r: tell(r, board, last), **rare, resume=True)  # noqa: B023
        with TensorBoard(tmp_path) as board:
            walk(callback=board, **rare, resume=True)
        theirs = tmp_path / "events.out.tfevents.1.theirs"
        assert theirs.read_text() == "precious"
        theirs.unlink()
        assert scalars(tmp_path) == records(tmp_path) == walk().metrics

    def test_an_open_tensorboard_forgets_the_file_before(self, tmp_path: pathlib.Path) -> None:
        """By the mark of a restart, ahead of the first step."""
        with TensorBoard(tmp_path) as board:
            walk(callback=board)
        marks = [e for e in events(tmp_path) if e.HasField("session_log")]
        assert [(mark.step, mark.session_log.status) for mark in marks] == [(1, 1)]
        assert scalars(tmp_path) == walk().metrics  # without metrics.jsonl, too

    def test_of_a_search_that_is_over(self, tmp_path: pathlib.Path) -> None:
        walk(folder=tmp_path)
        with TensorBoard(tmp_path) as board:
            walk(callback=board, folder=tmp_path, resume=True)
        assert scalars(tmp_path) == records(tmp_path)

    def test_nothing_is_written_of_nothing(self, tmp_path: pathlib.Path) -> None:
        with TensorBoard(tmp_path / "new"):
            pass
        walk(folder=tmp_path)
        with pytest.raises(QevoError, match="already holds a run"), TensorBoard(tmp_path) as board:
            walk(callback=board, folder=tmp_path)
        assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl", ".safetensors"}

    def test_without_the_package(
        self, finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run is refused before anything is trained or written."""
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        missing = r"needs tensorboardX: pip install -e '\.\[tracking\]'"
        with pytest.raises(QevoError, match=missing):
            TensorBoard(tmp_path)
        settings = dataclasses.replace(files.read_config(finished), runs=tmp_path, tensorboard=True)
        with pytest.raises(QevoError, match=missing):
            run_pipeline(settings)
        assert not list(tmp_path.iterdir())


class TestRuns:
    def test_tells_a_callback_and_tensorboard_of_both_stages(
        self, finished: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        """Stopped and resumed in the first stage; the network is the same."""
        settings = dataclasses.replace(
            files.read_config(finished),
            runs=tmp_path,
            teacher=finished / files.TEACHER,
            tensorboard=True,
        )
        tracker = Tracker()
        stopped = dataclasses.replace(settings, max_seconds=0)
        run_pipeline(stopped, callback=to_tracker(tracker.log))
        assert tracker.last == 5
        resumed = dataclasses.replace(settings, resume=True)
        result = run_pipeline(resumed, callback=to_tracker(tracker.log, after=tracker.last))
        assert (
            result["network_sha256"] == files.read_json(finished / files.RESULT)["network_sha256"]
        )

        before, expected = 0, []
        for stage, generations in STAGES.items():
            found = records(settings.folder / stage)
            assert found == records(finished / stage)
            assert scalars(settings.folder / stage) == found
            for record in found:
                named = {f"{stage}/{k}": v for k, v in record.items() if k != "generation"}
                expected.append({"generation": before + record["generation"]} | named)
            before += generations
        assert tracker.rows == expected

    def test_a_finished_run_gets_its_event_files_by_resuming(
        self, finished: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        name = files.read_config(finished).name
        shutil.copytree(finished, tmp_path / name)
        words = ["train", "--runs", str(tmp_path), "--name", name, "--resume", "--tensorboard"]
        command: Any = cli.parse(words)
        run_pipeline(command.run)
        for stage in STAGES:
            assert scalars(tmp_path / name / stage) == records(finished / stage)
        assert (
            tiny.contents(tmp_path / name)[files.NETWORK] == tiny.contents(finished)[files.NETWORK]
        )
