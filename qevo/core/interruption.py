"""Ctrl-C and SIGTERM as a wish that a run may grant when all is saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interruption:
    """The signal that asked the run to stop, or ``None``."""

    signal: int | None = None


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Note the first Ctrl-C or SIGTERM instead of dying; a second Ctrl-C interrupts at once.

    A SIGTERM is delivered again on leaving, when all is saved: whoever sent it wants an end.
    """
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked.signal is not None:
            raise KeyboardInterrupt
        asked.signal = number

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked.signal == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
