"""What a person sees while a run goes on."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 10.0  # seconds between lines where the output is no terminal
_WIDE = 100  # columns of a terminal from which on there is room for more than what was accepted
_STEPS = "▁▂▃▄▅▆▇█"
_CURVE = 12  # letters
_KEPT = 20 * _CURVE  # values that a curve is drawn from, at most
_NARROW = 72  # columns below which numbers need the room of the bar
_NARROWEST = 50  # columns below which two numbers have room: what is done, and what was accepted


Words = Callable[[Mapping[str, int]], str | None]


class ProgressReport:
    """A bar on a terminal, a line every ten seconds elsewhere, nothing when switched off.

    A wide terminal also shows the curve of the accepted fitness, from the session's start. With a
    limit in seconds, the total is what can be done within it, if that is less. What ``words`` makes
    of all that records have said so far, if anything, stands in place of the best fitness.
    """

    def __init__(
        self,
        total: int,
        done: int,
        *,
        title: str,
        enabled: bool,
        limit: float | None = None,
        words: Words | None = None,
    ):
        self._console = Console(file=sys.stderr)
        self._enabled = enabled
        self._title = title
        self._total, self._first, self._limit = total, done, limit
        self._began = time.monotonic()
        self._said = self._began
        self._accepted: list[int] = []
        self._calls, self._stride = 0, 1
        self._words = words
        self._seen: dict[str, int] = {}
        self._bar = None
        if enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                *([] if self._console.width < _NARROW else [BarColumn(bar_width=24)]),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                *([] if self._console.width < _NARROWEST else [TimeRemainingColumn(compact=True)]),
                console=self._console,
            )
            facts = "compiling" if done < total else "done before"
            self._task = self._bar.add_task(title, total=total, completed=done, facts=facts)

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
        self._seen |= record
        accepted = f"accepted {record['accepted']:,}"
        words = self._words(self._seen) if self._words else None
        best = f"best {record['best']:,}"
        both = f"{words or best}  {accepted}"
        if self._bar is None:
            self.show(done, both)
        elif self._console.width < _WIDE:
            narrow = self._console.width < _NARROWEST
            self.show(done, words if words and not narrow else accepted)
        else:
            self.show(done, f"{both} {self._curve(record['accepted'])}")

    def _curve(self, accepted: int) -> str:
        self._calls += 1
        if self._calls % self._stride == 0:
            self._accepted.append(accepted)
        if len(self._accepted) > _KEPT:
            self._accepted, self._stride = self._accepted[1::2], 2 * self._stride
        return sparkline(self._accepted) if self._console.encoding.startswith("utf") else ""

    def show(self, done: int, facts: str) -> None:
        """Show how much is done, how fast, what else there is to say, and the time left."""
        if not self._enabled:
            return
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._began, 1e-9)
        total = self._total
        if self._bar is None or self._console.width >= _NARROWEST:
            facts = f"{rate:.1f}/s  {facts}"
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


def sparkline(values: Sequence[int], width: int = _CURVE) -> str:
    """A curve in at most ``width`` letters, each the mean of as many values; "" if it is flat."""
    least, most = min(values, default=0), max(values, default=0)
    if least == most:
        return ""
    count = min(width, len(values))
    ends = [len(values) * part // count for part in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    top = len(_STEPS) - 1
    return "".join(_STEPS[round(top * (mean - least) / (most - least))] for mean in means)
