"""Several processes that search together, one a host: how they meet, agree and end.

All of them run the same program on the same data, as JAX has it. Process 0 alone reads and writes
the run folder and shows progress; the others get from it what they need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from qevo.core.checkpoint import difference
from qevo.errors import QevoError

T = TypeVar("T")

AUTO = "auto"
MESSAGE_CHUNK = 1 << 26  # bytes that travel at once, and lie on every device meanwhile


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes of a run; without a coordinator there is this one only."""

    coordinator: str = ""
    """ADDRESS:PORT at which process 0 can be reached, the same for every process, or "auto" where
    the cluster knows (TPU slice, SLURM, Open MPI, Kubernetes); empty for a process on its own."""
    processes: int | None = None
    """How many processes there are; the cluster's own number with "auto"."""
    process: int | None = None
    """Which of them this is, from 0; the cluster's own number with "auto"."""
    heartbeat: int = 60
    """Seconds after which a silent process counts as lost, which ends the others."""

    def check(self) -> None:
        """Refuse what cannot connect.

        Raises:
          QevoError: an option is missing, or left over, or out of range.
        """
        given = (self.processes, self.process)
        if self.heartbeat < 1:
            raise QevoError(f"heartbeat must be at least 1 second, got {self.heartbeat}")
        if self.coordinator in ("", AUTO):
            if given != (None, None):
                raise QevoError(
                    "processes and process need the coordinator's ADDRESS:PORT, got coordinator "
                    f"{self.coordinator!r}"
                )
            return
        address, colon, port = self.coordinator.rpartition(":")
        if not (address and colon and port.isdecimal()):
            raise QevoError(f"coordinator must be ADDRESS:PORT or {AUTO}, got {self.coordinator!r}")
        if self.processes is None or self.process is None:
            raise QevoError("a coordinator's address needs processes and process, too")
        if not 0 <= self.process < self.processes:
            raise QevoError(
                f"process must be 0 to {self.processes - 1} of {self.processes} processes, got "
                f"{self.process}"
            )


@contextlib.contextmanager
def connected(hosts: Hosts) -> Iterator[None]:
    """Connect to the other processes; leave them together.

    To be entered before anything else uses JAX, by every process:

        with connected(Hosts("10.0.0.1:1234", processes=2, process=0)):
            result = evolve(...)

    One that fails inside says why and ends on the spot, because its orderly end would wait for the
    others, who wait for it; they end once its silence has lasted for the heartbeat.

    Raises:
      QevoError: as `Hosts.check`; no coordinator found or reached; JAX in use already.
    """
    hosts.check()
    if not hosts.coordinator:
        yield
        return
    _connect(hosts)
    try:
        yield
    except BaseException as error:
        code = _exit_code(error)
        if code and jax.process_count() > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


def _connect(hosts: Hosts) -> None:
    # Its handler would keep SIGTERM from ending the process; `evolve` has one of its own.
    jax.config.update("jax_enable_preemption_service", False)
    auto = hosts.coordinator == AUTO
    try:
        jax.distributed.initialize(
            None if auto else hosts.coordinator,
            hosts.processes,
            hosts.process,
            cluster_detection_method=None if auto else "deactivate",
            heartbeat_timeout_seconds=hosts.heartbeat,
        )
        # The devices introduce themselves now: later, JAX would not wait for a busy process.
        multihost_utils.sync_global_devices("connected")
    except (RuntimeError, ValueError) as error:
        where = "by asking the cluster" if auto else f"at {hosts.coordinator}"
        raise QevoError(f"the other processes cannot be reached {where}: {error}") from None


def _exit_code(error: BaseException) -> int:
    """What the process ends with, once what went wrong is said."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    traceback.print_exception(error)
    which = f"process {jax.process_index()} of {jax.process_count()}"
    print(f"qevo: {which} ends, and with it the others", file=sys.stderr)
    return 1


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return jax.process_index() == 0


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` returns in process 0, in every process; it is called there only.

    Args:
      make: returns what can be pickled; arrays in it become local ones.

    Raises:
      QevoError: process 0 failed, in the others. It raises its own error itself.
    """
    if jax.process_count() == 1:
        return make()
    message, failure = b"", None
    if is_first():
        try:
            message = pickle.dumps((make(), None))
        except BaseException as error:
            failure = error
            told = str(error) if isinstance(error, QevoError) else repr(error)
            message = pickle.dumps((None, told))
    message = _broadcast(message)
    if failure is not None:
        raise failure
    made, told = pickle.loads(message)
    if told is not None:
        raise QevoError(f"process 0: {told}")
    return made


def _broadcast(message: bytes) -> bytes:
    """Process 0's bytes, in every process."""
    whole, rest = divmod(len(message), MESSAGE_CHUNK)
    whole, rest = map(int, multihost_utils.broadcast_one_to_all(np.asarray([whole, rest])))
    parts = []
    for index in range(whole + 1):
        size = MESSAGE_CHUNK if index < whole else rest
        part = np.zeros(size, np.uint8)
        if is_first():
            begin = index * MESSAGE_CHUNK
            part[:] = np.frombuffer(message, np.uint8, size, begin)
        parts.append(np.asarray(multihost_utils.broadcast_one_to_all(part)).tobytes())
    return b"".join(parts)


def agreed(wish: int) -> int:
    """The largest wish of all processes; none goes on before all have said theirs."""
    if jax.process_count() == 1:
        return wish
    return int(multihost_utils.process_allgather(np.int32(wish)).max())


def check_same(setup: dict[str, Any]) -> None:
    """Refuse processes that would search for different things.

    Args:
      setup: plain JSON values; what must be the same in every process.

    Raises:
      QevoError: in every process; lists what differs in those that differ from process 0.
    """
    changes = difference(from_first(lambda: setup), setup)
    if agreed(bool(changes)):
        listed = "\n  ".join(changes) if changes else "see the messages of the other processes"
        raise QevoError(
            f"the processes have different setups; process 0 -> {jax.process_index()}:\n  {listed}"
        )


def replicate(tree: Any, place: Sharding) -> Any:
    """Arrays that every process holds alike, as global ones.

    Args:
      tree: pytree of arrays and PRNG keys, local and of the same values in every process.
      place: a sharding that leaves every array whole on every device.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, place)

    def put(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        # Not device_put, which sends all values around to compare them.
        here = np.asarray(leaf)
        return jax.make_array_from_callback(here.shape, place, lambda index: here[index])

    return jax.tree.map(put, tree)


def local(tree: Any) -> Any:
    """Arrays that `replicate` or a compiled call made global, as this process's own."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
