"""Two processes on loopback: the bits of one, agreement on the end, no hang when one dies."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from safetensors.numpy import load_file
from support import environment, noisy_search, state, walk

from qevo.core.folder import CHECKPOINT, METRICS
from qevo.core.hosts import AUTO, Hosts, agreed, check_same, connected, from_first
from qevo.errors import QevoError

HEARTBEAT = 4

JOIN = """
import pathlib, sys, time
from qevo.core.hosts import Hosts, connected, from_first
from support import noisy_search, state, walk

address, process, heartbeat, folder = sys.argv[1:]
process, folder = int(process), pathlib.Path(folder)
hosts = Hosts(address, processes=2, process=process, heartbeat=int(heartbeat))
mine = folder / str(process)  # a folder of one's own: nothing is shared but what JAX sends
"""

MANY_RUNS = (
    JOIN
    + """
import json, signal
import jax
import numpy as np
from qevo.errors import QevoError

def outcome(run):
    try:
        result = run()
    except (QevoError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return [result.stopped, result.generations]

def press(record):
    if process == 1 and record["generation"] == 4:
        signal.raise_signal(signal.SIGINT)

def parts(**settings):
    return outcome(lambda: walk(folder=mine / "parts", devices=None, scan_length=3, **settings))

with connected(hosts):
    assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
    whole = noisy_search(mine / "whole", devices=None)
    assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves((whole.solution, whole.carry)))
    found = {
        "genes": np.asarray(whole.solution).tolist(),
        "metrics": whole.metrics,
        "pressed": parts(callback=press, checkpoint_seconds=1e9),
        "time": parts(resume=True, max_seconds=0 if process == 1 else 1e9),
        "resumed": parts(resume=True),
        "again": parts(),
        "seeds": outcome(lambda: walk(seed=process, devices=2)),
        "odd": outcome(lambda: walk(devices=3)),
        "failed": outcome(lambda: from_first(lambda: 1 // 0)),
        "files": sorted(str(path.relative_to(mine)) for path in mine.rglob("*.*")),
    }
print("FOUND" + json.dumps(found))
"""
)

SLOW_RUN = (
    JOIN
    + """
with connected(hosts):
    walk(
        folder=mine,
        devices=None,
        generations=300,
        scan_length=2,
        checkpoint_generations=1,
        callback=lambda _: time.sleep(0.02),
    )
"""
)


def start(program: str, folder: pathlib.Path) -> list[subprocess.Popen[str]]:
    """Both processes of a run, with two forced devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = (sys.executable, "-W", "error", "-c", program, address)
    return [
        subprocess.Popen(
            [*command, str(process), str(HEARTBEAT), str(folder)],
            env=environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]


def test_two_processes_are_one_search(tmp_path: pathlib.Path) -> None:
    processes = start(MANY_RUNS, tmp_path)
    found = []
    for process in processes:
        out, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
        found.append(json.loads(out.partition("FOUND")[2]))

    alone = noisy_search(tmp_path / "alone")
    assert state(alone, tmp_path / "alone") == state(alone, tmp_path / "0" / "whole")
    parts = walk(folder=tmp_path / "walk")
    assert state(parts, tmp_path / "walk") == state(parts, tmp_path / "0" / "parts")
    for said in found:
        assert said["genes"] == np.asarray(alone.solution).tolist()
        assert said["metrics"] == alone.metrics
        assert said["pressed"] == ["interrupted", 6]  # at the end of a call
        assert said["time"] == ["time", 9]
        assert said["resumed"] == ["generations", 12]
        odd = "QevoError: 3 devices cannot be shared out evenly over 2 processes"
        assert said["odd"] == odd
    first, second = found
    assert first["again"].startswith("QevoError: ")
    assert "already holds a run; resume it" in first["again"]
    assert second["again"] == first["again"].replace(": ", ": process 0: ", 1)
    assert "process 0 -> 1:\n  key: [0, 0] -> [0, 1]" in second["seeds"]
    assert "see the messages of the other processes" in first["seeds"]
    assert first["failed"].startswith("ZeroDivisionError: ")
    assert second["failed"].startswith("QevoError: process 0: ZeroDivisionError")
    files = [f"{run}/{file}" for run in ("parts", "whole") for file in (CHECKPOINT, METRICS)]
    assert first["files"] == files
    assert second["files"] == []


@pytest.mark.parametrize(
    ("number", "victim"),
    [
        ("SIGKILL", 1),
        pytest.param("SIGSTOP", 1, marks=pytest.mark.slow),
        pytest.param("SIGKILL", 0, marks=pytest.mark.slow),  # JAX's coordinator
    ],
)
def test_a_lost_process_ends_the_other_and_the_run_resumes(
    tmp_path: pathlib.Path, number: str, victim: int
) -> None:
    """SIGSTOP leaves the connection open: only the missing heartbeat tells the survivor."""
    processes = start(SLOW_RUN, tmp_path)
    checkpoint = tmp_path / "0" / CHECKPOINT
    try:
        deadline = time.monotonic() + 240
        while not checkpoint.exists() or load_file(checkpoint)["generation"] == 0:
            assert [p.poll() for p in processes] == [None, None]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        processes[victim].send_signal(getattr(signal, number))
        began = time.monotonic()
        assert processes[1 - victim].wait(timeout=60) != 0
        assert time.monotonic() - began < 2 * HEARTBEAT + 5
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert 0 < load_file(checkpoint)["generation"] < 300
    result = walk(folder=tmp_path / "0", generations=300, resume=True)
    alone = walk(folder=tmp_path / "alone", generations=300)
    assert state(result, tmp_path / "0") == state(alone, tmp_path / "alone")


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (Hosts("here"), "coordinator must be ADDRESS:PORT or auto, got 'here'"),
        (Hosts(":80", 2, 0), "coordinator must be ADDRESS:PORT"),
        (Hosts("a:b", 2, 0), "coordinator must be ADDRESS:PORT"),
        (Hosts("a:80"), "a coordinator's address needs processes and process"),
        (Hosts("a:80", processes=2), "needs processes and process"),
        (Hosts("a:80", 2, 2), "process must be 0 to 1 of 2 processes, got 2"),
        (Hosts("a:80", 2, -1), "process must be 0 to 1 of 2 processes, got -1"),
        (Hosts(processes=2), "processes and process need the coordinator's ADDRESS:PORT"),
        (Hosts(AUTO, process=0), "need the coordinator's ADDRESS:PORT, got coordinator 'auto'"),
        (Hosts(heartbeat=0), "heartbeat must be at least 1 second, got 0"),
    ],
)
def test_options_that_cannot_connect(hosts: Hosts, message: str) -> None:
    with pytest.raises(QevoError, match=message), connected(hosts):
        pytest.fail("entered")


@pytest.mark.parametrize(
    ("hosts", "place", "detection"),
    [
        (Hosts("a:80", 3, 2, heartbeat=7), ("a:80", 3, 2), "deactivate"),
        (Hosts(AUTO, heartbeat=7), (None, None, None), None),
    ],
)
def test_what_jax_is_told(
    hosts: Hosts, place: Any, detection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGTERM must still end the process, and the devices introduce themselves at once."""
    said: list[Any] = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: said.append(setting))
    for name in ("initialize", "shutdown"):
        call = lambda *words, _name=name, **options: said.append((_name, words, options))  # noqa: E731
        monkeypatch.setattr(jax.distributed, name, call)
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: said.append(name))
    with connected(hosts):
        said.append("inside")
    options = {"cluster_detection_method": detection, "heartbeat_timeout_seconds": 7}
    assert said == [
        ("jax_enable_preemption_service", False),
        ("initialize", place, options),
        "connected",
        "inside",
        ("shutdown", (), {}),
    ]


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (Hosts(AUTO), "the other processes cannot be reached by asking the cluster: "),
        (Hosts("127.0.0.1:9", 2, 1), "the other processes cannot be reached at 127.0.0.1:9: "),
    ],
)
def test_jax_in_use_already(hosts: Hosts, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    assert jax.devices()
    with pytest.raises(QevoError, match=message + ".*must be called before"), connected(hosts):
        pytest.fail("entered")


def test_a_process_on_its_own_asks_nobody() -> None:
    with connected(Hosts()):
        assert from_first(lambda: "made here") == "made here"
        assert agreed(2) == 2
        check_same({"seed": 1})
    with pytest.raises(ZeroDivisionError), connected(Hosts()):
        raise ZeroDivisionError


def test_imports_leave_the_devices_alone() -> None:
    """JAX connects to other processes only before it has looked for devices."""
    program = "import jax, qevo.cli; jax.config.update('jax_num_cpu_devices', 3); "
    program += "assert len(jax.devices()) == 3"
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)
