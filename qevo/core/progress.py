"""What a person sees while a run goes on."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 10.0  # seconds between lines where the output is no terminal


class ProgressReport:
    """A bar on a terminal, a line every ten seconds elsewhere, nothing when switched off.

    With a limit in seconds, the total is what can be done within it, if that is less.
    """

    def __init__(
        self, total: int, done: int, *, title: str, enabled: bool, limit: float | None = None
    ):
        self._console = Console(file=sys.stderr)
        self._enabled = enabled
        self._title = title
        self._total, self._first, self._limit = total, done, limit
        self._began = time.monotonic()
        self._said = self._began
        self._bar = None
        if enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, facts="compiling")

    def __enter__(self) -> ProgressReport:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, record: dict[str, Any]) -> None:
        """Show that ``done`` generations are done, with the last one's record."""
        self.show(done, f"best {record['best']:,}  accepted {record['accepted']:,}")

    def show(self, done: int, facts: str) -> None:
        """Show how much is done, how fast, what else there is to say, and the time left."""
        if not self._enabled:
            return
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._began, 1e-9)
        facts, total = f"{rate:.1f}/s  {facts}", self._total
        if self._limit is not None:
            total = max(min(total, self._first + round(rate * self._limit)), done)
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, facts=facts)
        elif now - self._said >= _LINE_EVERY or done >= self._total:
            left = (total - done) / max(rate, 1e-9)
            self._said = now
            self._console.print(
                f"{self._title} {done}/{total}  {facts}  {left:.0f} s left", highlight=False
            )
