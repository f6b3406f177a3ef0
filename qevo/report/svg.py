"""Charts as inline SVG: coloured by the page's style, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from qevo.report.html import Html, element

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 10, 40
POINTS = 400  # of a curve; more are not seen


class Line(NamedTuple):
    """A curve, or a level across the chart where it has one point."""

    label: str
    css: str
    x: Sequence[float]
    y: Sequence[float]


class Axis(NamedTuple):
    """A range of values along so many pixels, from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies, in pixels."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def line_chart(
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    levels: Sequence[Line] = (),
    marks: Sequence[float] = (),
) -> Html:
    """Curves over a common axis.

    Args:
      lines: the curves.
      x, y: what the axes show; the second is for a title above the chart.
      levels: values of one ``y`` each, drawn across the chart.
      marks: places along ``x`` where something ends.
    """
    ys = [value for line in (*lines, *levels) for value in line.y]
    xs = [value for line in lines for value in line.x]
    across = Axis(0, max(xs, default=0) or 1, LEFT, WIDTH - RIGHT)
    low, high = _range(ys)
    up = Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(across, up), _text(x, across.end, HEIGHT - 5, "end")]
    parts += [
        _rule("mark", across.place(mark), TOP, across.place(mark), up.start) for mark in marks
    ]
    for level in levels:
        at = up.place(level.y[0])
        parts.append(_rule(f"level {level.css}", across.start, at, across.end, at))
    for line in lines:
        step = math.ceil(len(line.x) / POINTS) or 1
        kept = {*range(0, len(line.x), step), len(line.x) - 1} if line.x else set()
        dots = [(across.place(line.x[i]), up.place(line.y[i])) for i in sorted(kept)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in dots)
        label = element("title", line.label)
        parts.append(
            element("polyline", label, css=f"line {line.css}", attributes={"points": points})
        )
        if dots:
            parts.append(_dot(line.css, *dots[-1]))
    return _svg(f"{y} over {x}", parts, WIDTH, HEIGHT)


def legend(lines: Sequence[Line]) -> Html:
    """What the colours stand for."""
    keys = [
        element("span", element("i", css=line.css), line.label, css="key")
        for line in {line.label: line for line in lines}.values()
    ]
    return element("p", *keys, css="legend")


def histogram(low: int, counts: Sequence[int], before: Sequence[int], *, label: str) -> Html:
    """How often each level occurs, with an outline of how often it did before.

    Args:
      low: the first level.
      counts, before: of the levels from there on.
      label: what it shows, for those who cannot see it.
    """
    width, height, foot = 200, 96, 16
    most = max(*counts, *before, 1)
    slot = width / len(counts)
    up = Axis(0, most, height - foot, 4)
    parts = []
    for place, (now, then) in enumerate(zip(counts, before, strict=True)):
        left, wide = place * slot + 0.08 * slot, 0.84 * slot
        text = f"level {low + place}: {now:,}, before {then:,}"
        top = up.place(now)
        parts.append(_box("count", left, top, wide, up.start - top, text))
        ghost = up.place(then)
        parts.append(_rule("ghost", left, ghost, left + wide, ghost))
    shown = range(len(counts)) if len(counts) <= 8 else (0, -low, len(counts) - 1)
    for place in shown:
        at = min(max((place + 0.5) * slot, 8), width - 8)
        parts.append(_text(str(low + place), at, height - 3, "middle"))
    return _svg(label, parts, width, height)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two, at most about so many."""
    rough = max((high - low) / count, 1e-300)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's label: 12k, 1.5M, 0.05."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{letter}"
    return f"{value:.6g}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Somewhat more than what the values span."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.01
    return low - room, high + room


def _grid(across: Axis, up: Axis) -> list[Html]:
    parts = []
    for value in ticks(up.low, up.high):
        at = up.place(value)
        parts.append(_rule("grid", across.start, at, across.end, at))
        parts.append(_text(short(value), across.start - 6, at + 4, "end"))
    for value in ticks(across.low, across.high):
        at = across.place(value)
        parts.append(_text(short(value), at, up.start + 16, "middle"))
    return parts


def _svg(label: str, parts: Sequence[Html], width: int, height: int) -> Html:
    box = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label}
    return element("svg", *parts, attributes=box)


def _rule(css: str, x1: float, y1: float, x2: float, y2: float) -> Html:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", css=css, attributes={key: f"{v:.1f}" for key, v in ends.items()})


def _dot(css: str, x: float, y: float) -> Html:
    return element(
        "circle", css=f"dot {css}", attributes={"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3"}
    )


def _box(css: str, x: float, y: float, width: float, height: float, title: str) -> Html:
    sides = {"x": x, "y": y, "width": width, "height": max(height, 0.0)}
    attributes = {key: f"{value:.2f}" for key, value in sides.items()}
    return element("rect", element("title", title), css=css, attributes=attributes)


def _text(text: str, x: float, y: float, anchor: str) -> Html:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return element("text", text, attributes=place)
