"""What a command sets up for its whole process: compiled programs that are kept, other hosts."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import tyro

from qevo.core.hosts import Hosts, connected
from qevo.errors import QevoError

C = TypeVar("C")


@contextlib.contextmanager
def session(hosts: Hosts | None = None, *, device_per_core: bool = False) -> Iterator[None]:
    """Set up the process of a command or a script; to be entered before anything uses JAX.

    Compiled programs are kept in the user's cache folder, or where JAX_COMPILATION_CACHE_DIR says;
    importing qevo changes no such setting.

    Args:
      hosts: the processes that share the search.
      device_per_core: make every core a device, for searches of many small steps, which one
        device does on one core; unless the environment says how many devices there are, or JAX
        is in use already.

    Raises:
      QevoError: as `connected`.
    """
    if device_per_core and not _devices_are_given():
        with contextlib.suppress(RuntimeError):  # JAX is in use
            jax.config.update("jax_num_cpu_devices", cores())
    folder = cache_folder()
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder / "jax"))
    with connected(hosts or Hosts()):
        yield


def _devices_are_given() -> bool:
    flags = os.environ.get("XLA_FLAGS", "")
    return "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in flags


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def exit_code(run: Callable[[], int | None]) -> int:
    """What ``run`` returns, 0 for ``None``; 2 for input that cannot work, 130 on Ctrl-C.

    Says on standard error what was wrong.
    """
    try:
        return run() or 0
    except (QevoError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"qevo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def script(main: Callable[[C], None], config: type[C], description: str | None) -> None:
    """Run an experiment as a command of its own: ``config`` is its command line."""
    settings = tyro.cli(config, description=description)
    with session():
        sys.exit(exit_code(lambda: main(settings)))


def cache_folder() -> pathlib.Path | None:
    """Where qevo keeps what it can make again: below XDG_CACHE_HOME, else ~/.cache."""
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the XDG specification has relative ones ignored
        return given / "qevo"
    try:
        return pathlib.Path.home() / ".cache" / "qevo"
    except RuntimeError:  # a user without a home
        return None


def plans_file() -> pathlib.Path | None:
    """Where plans (`qevo.nets.plan`) are kept."""
    folder = cache_folder()
    return folder and folder / "plans.json"
