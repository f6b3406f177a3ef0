"""Tables and the picture of `qevo sensitivity`: layers, bits, and what a size costs."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.box import SIMPLE
from rich.table import Table

from qevo.report.picture import COLORS, STYLE
from qevo.report.saving import save_figure

Result = Mapping[str, Any]  # what sensitivity.json holds

_LEAST = 1e-5  # nats, below which differences are float noise
_MARK = "▸"
_HEIGHT = 4.6  # inches, of the curve
_LINES = {"shared out": COLORS["evolved"], "all alike": COLORS["nearest"]}


def sensitivity_table(result: Result) -> Table:
    """Divergence of each layer at each number of bits, in mnat; the chosen ones marked."""
    title = f"divergence if only this layer is rounded ({result['method']}), mnat"
    return _table(result, title, lambda cell: millis(cell["sensitivity"]))


def size_table(result: Result) -> Table:
    """Bytes of each layer at each number of bits, and of all; the chosen ones marked."""
    size = result["size"]
    table = _table(result, f"bytes, {size}", lambda cell: f"{cell[size]:,.0f}")
    table.show_footer = True
    table.columns[0].footer = "all"
    table.columns[1].footer = f"{sum(layer['weights'] for layer in _layers(result)):,}"
    for column, bits in zip(table.columns[2:], _columns(result), strict=True):
        total = sum(layer["bits"][bits][size] for layer in _layers(result))
        column.footer = f"{total:,.0f}"
    return table


def whole_network_table(result: Result) -> Table:
    """Size, divergence and accuracy of the whole network: float, shared out, all layers alike."""
    measured = result["whole_network"]
    table = Table(
        title=f"whole network, on {measured['float']['images']:,} held-out images",
        title_justify="left",
    )
    table.add_column("bits")
    for column in ("bytes", "divergence, mnat", "accuracy, %"):
        table.add_column(column, justify="right")
    for name, row in measured.items():
        cells = ("", "") if name == "float" else (f"{row['bytes']:,.0f}", millis(row["held_out"]))
        label = "shared out" if name == "shared" else name
        style = "bold" if name == "shared" else ""
        table.add_row(label, *cells, f"{100 * row['accuracy']:.2f}", style=style)
    return table


def millis(nats: float) -> str:
    """Thousandths, to a hundredth at most."""
    value = 1000 * nats
    if nats < _LEAST:
        return f"<{1000 * _LEAST:g}"
    return f"{value:.{2 if value < 9.995 else 1}f}" if value < 99.95 else f"{value:,.0f}"


def draw_sensitivity(path: pathlib.Path, result: Result) -> None:
    """A heat map of layers and bits, and the least sum of divergences over the size."""
    rows, columns = len(result["layers"]), len(_columns(result))
    with rc_context(STYLE):
        height = max(_HEIGHT, 1.2 + 0.36 * rows)
        figure = Figure(figsize=(6.4 + 0.85 * columns, height), layout="constrained")
        below = max(height - _HEIGHT, 1e-3)  # many layers make the heat map tall, not the curve
        ratios: Any = {"width_ratios": (1.05 * columns, 5.2), "height_ratios": (_HEIGHT, below)}
        grid = figure.add_gridspec(2, 2, **ratios)
        _heat_map(figure.add_subplot(grid[:, 0]), result)
        _trade_off(figure.add_subplot(grid[0 if below > 1 else slice(2), 1]), result)
        save_figure(figure, path)


def _heat_map(ax: Axes, result: Result) -> None:
    columns, names = _columns(result), list(result["layers"])
    size = result["size"]
    cells = [[layer["bits"][bits] for bits in columns] for layer in _layers(result)]
    costs = np.array([[max(cell["sensitivity"], _LEAST) for cell in row] for row in cells])
    norm = LogNorm(max(costs.min(), 1e-4), max(costs.max(), 1e-3))
    ax.imshow(costs, cmap="YlOrRd", norm=norm, aspect="auto")
    chosen = _chosen(result)
    for row, name in enumerate(names):
        for column, bits in enumerate(columns):
            cell = cells[row][column]
            dark = norm(costs[row, column]) > 0.66
            picked = chosen.get(name) == bits
            style: Any = {"ha": "center", "color": "white" if dark else "#1f2937"}
            weight = "bold" if picked else "normal"
            text = millis(cell["sensitivity"])
            ax.text(column, row - 0.02, text, va="bottom", fontsize=9, fontweight=weight, **style)
            text = _bytes(cell[size])
            ax.text(column, row + 0.06, text, va="top", fontsize=6.5, alpha=0.75, **style)
            if picked:
                frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88)
                frame.set(fill=False, edgecolor=COLORS["evolved"], linewidth=2.2)
                ax.add_patch(frame)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel("bits of the layer's weights")
    ax.set_title(
        f"{result['network']}: divergence if only this layer is rounded, mnat",
        loc="left",
        fontsize=10,
    )


def _trade_off(ax: Axes, result: Result) -> None:
    columns, size = _columns(result), result["size"]
    scale = 8 / sum(layer["weights"] for layer in _layers(result))  # from bytes to bits a weight
    alike = [
        [sum(layer["bits"][bits][key] for layer in _layers(result)) for bits in columns]
        for key in (size, "sensitivity")
    ]
    series = (
        ("shared out", "shared out, sum of the layers", np.array(result["curve"]).T, "-"),
        ("all alike", "all alike, sum of the layers", np.array(alike), "o-"),
    )
    for kind, label, (sizes, losses), style in series:
        values = 1000 * np.maximum(losses, _LEAST)
        ax.plot(scale * sizes, values, style, color=_LINES[kind], ms=4, lw=1.6, label=label)
    for bits, x, y in zip(columns, *alike, strict=True):
        left = bits == "ternary"  # few bytes more than nothing: there is no room at its right
        offset = {"xytext": (-5, 5) if left else (5, 4), "textcoords": "offset points"}
        style = {"fontsize": 8, "color": _LINES["all alike"], "ha": "right" if left else "left"}
        ax.annotate(bits, (scale * x, 1000 * max(y, _LEAST)), **offset, **style)
    measured = {k: v for k, v in (result["whole_network"] or {}).items() if k != "float"}
    for name, row in measured.items():
        shared = name == "shared"
        color = _LINES["shared out" if shared else "all alike"]
        place = scale * row["bytes"], 1000 * max(row["held_out"], _LEAST)
        label = "whole network, measured, accuracy" if shared else None
        ax.plot(*place, "D", color=color, mfc="white", mew=1.6, ms=7, ls="", label=label)
        at: Any = {"xytext": (-8, -3) if shared else (8, -5), "textcoords": "offset points"}
        at |= {"ha": "right" if shared else "left", "fontsize": 8, "color": color}
        ax.annotate(f"{100 * row['accuracy']:.1f} %", place, **at)
    ax.margins(x=0.16)
    ax.set_yscale("log")
    ax.set_xlabel(f"bits for each weight, {size}")
    ax.set_title("what a size costs, mnat", loc="left", fontsize=10)
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, loc="upper right")


def _table(result: Result, title: str, show: Callable[[Mapping[str, Any]], str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=0)
    table.add_column("layer", overflow="fold")
    table.add_column("weights", justify="right")
    for bits in _columns(result):
        table.add_column(bits, justify="right")
    chosen = _chosen(result)
    for name, layer in result["layers"].items():
        cells = [
            f"[bold green]{_MARK}{show(cell)}[/]" if chosen.get(name) == bits else show(cell)
            for bits, cell in layer["bits"].items()
        ]
        table.add_row(name, f"{layer['weights']:,}", *cells)
    return table


def _layers(result: Result) -> Iterator[Mapping[str, Any]]:
    return iter(result["layers"].values())


def _columns(result: Result) -> list[str]:
    return list(next(_layers(result))["bits"])


def _chosen(result: Result) -> dict[str, str]:
    allocation = result["allocation"] or {"bits": {}}
    return {name: str(bits) for name, bits in allocation["bits"].items()}


def _bytes(count: float) -> str:
    if count < 10_000:
        return f"{count:,.0f} B"
    return f"{count / 1000:,.1f} kB" if count < 10_000_000 else f"{count / 1e6:,.1f} MB"
