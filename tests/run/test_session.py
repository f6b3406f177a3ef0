"""What a command sets up: a cache of compiled programs, and nothing on import."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
import support

from qevo.errors import QevoError
from qevo.run.session import cache_folder, exit_code, session

TWICE = """
import json
import jax
from support import walk
from qevo.run.session import session

before = jax.config.jax_compilation_cache_dir
with session():
    results = [walk() for _ in range(2)]
print(json.dumps([before, *(result.compile_cached for result in results)]))
"""


def test_a_program_is_compiled_once(tmp_path: pathlib.Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(pathlib.Path(support.__file__).parent),
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-W", "error", "-c", TWICE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [None, False, True]
    assert list((tmp_path / "qevo" / "jax").iterdir())


def test_the_users_own_cache_folder_counts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", before or "")
    with session():
        assert jax.config.jax_compilation_cache_dir == before
    assert not list(tmp_path.iterdir())


def test_the_default_cache_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "qevo"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == tmp_path / "home" / ".cache" / "qevo"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (QevoError("bits: 5"), 2, "qevo: bits: 5\n"),
        (OSError("disk full"), 2, "qevo: disk full\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_is_said_and_not_traced(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert exit_code(fail) == code
    assert capsys.readouterr().err == said


def test_success_is_zero_or_what_the_command_says() -> None:
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 1) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
    ],
    ids=["nothing", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS"],
)
def test_every_core_is_a_device_unless_the_user_says_otherwise(
    given: dict[str, str], expected: int | None
) -> None:
    code = (
        "import jax; from qevo.core.devices import cores; from qevo.run.session import session\n"
        "with session(device_per_core=True): print(jax.device_count('cpu'), cores())\n"
        "with session(device_per_core=True): pass  # in use by now"
    )
    unset = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in unset} | given
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    devices, cores = map(int, done.stdout.split())
    assert devices == (expected or cores)
