"""What a command sets up for its whole process: compiled programs that are kept, other hosts."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import tyro

from qevo.core.devices import cores
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


def exit_code(run: Callable[[], int | None]) -> int:
    """What ``run`` returns, 0 for ``None``; 2 for input or files that cannot work, 130 on Ctrl-C.

    Says on standard error what was wrong.
    """
    try:
        code = run() or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # while a reader that is gone is still noticed
        return code
    except BrokenPipeError:
        return output_is_closed()
    except SystemExit as stop:  # what rich makes of a broken pipe
        if isinstance(stop.__context__, BrokenPipeError):
            return output_is_closed()
        raise
    except QevoError as error:
        print(f"qevo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"qevo: {explained(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def output_is_closed() -> int:
    """Say that nobody reads the output any more, where that can be said; returns the exit code."""
    text = "qevo: nobody reads the output any more; a run that was going on goes on with --resume"
    for stream, last in ((sys.stdout, ""), (sys.stderr, f"{text}\n")):
        if stream is None:
            continue
        try:
            stream.write(last)
            stream.flush()
        except BrokenPipeError:  # what is left in it would be tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 128 + 13  # as of SIGPIPE


_FULL = "make room; files that were complete are whole, and a run goes on with --resume"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "name a folder that can be written to, with --runs or --output",
    errno.EACCES: "give yourself permission, or name another path",
    errno.EPERM: "give yourself permission, or name another path",
}


def explained(error: OSError) -> str:
    """The file, what is wrong with it, and what to do."""
    if error.filename is None or error.errno is None:
        return str(error)
    advice = _ADVICE.get(error.errno)
    return f"{error.filename}: {error.strerror}{f'; {advice}' if advice else ''}"


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
