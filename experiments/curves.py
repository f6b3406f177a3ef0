"""A figure of the scripts beside it: a curve for each way to choose zeros."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from zeroing import METHODS

from qevo.report.picture import STYLE

COLORS = {
    "random": "#9ca3af",
    "magnitude": "#c2410c",
    "second_order": "#0e7490",
    "cycles": "#7c3aed",
    "directed": "#15803d",
}


@contextlib.contextmanager
def picture(
    path: pathlib.Path, curves: Mapping[str, Sequence[tuple[float, float]]], level: float
) -> Iterator[Axes]:
    """The axes of a figure that is written at the end.

    Args:
      path: PNG to write.
      curves: points of each method; x is logarithmic.
      level: of the float network.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.5), layout="constrained")
        ax = figure.subplots()
        for method, points in curves.items():
            x, y = zip(*points, strict=True)
            ax.plot(x, y, "o-", ms=4, color=COLORS[method], label=METHODS[method])
        ax.axhline(level, color="0.6", lw=0.8, label="float")
        ax.set_xscale("log")
        yield ax
        ax.legend(frameon=False)
        figure.savefig(path, dpi=130)
