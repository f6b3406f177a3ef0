"""The picture of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qevo.core.folder import read_metrics
from qevo.core.random import TABLE_TOTAL
from qevo.integer.loss import UNIT
from qevo.nets.network import QuantizedNetwork
from qevo.report.saving import save_figure
from qevo.report.table import METHODS

COLORS = {
    "float": "#6b7280",
    "nearest": "#c2410c",
    "best_of_n": "#d97706",
    "gptq": "#a16207",
    "adaround": "#9d174d",
    "layerwise": "#0e7490",
    "evolutionary": "#4f46e5",
    "evolved": "#15803d",
}

STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw_run(
    path: pathlib.Path,
    *,
    accuracy: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, pathlib.Path],
    start: QuantizedNetwork,
    network: QuantizedNetwork,
    searches: Mapping[str, Any],
    validation_images: int,
) -> None:
    """Draw accuracy, progress, and what changed in each layer, to one PNG.

    Args:
      path: of the PNG.
      accuracy: of each method, as in result.json.
      metrics: the metrics.jsonl of each stage, in order.
      start: the network that the search began with.
      network: the evolved network.
      searches: final state of each stage that was a `Coevolution`.
      validation_images: how many, to bring losses and errors to one image.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7), layout="constrained")
        grid = figure.subplot_mosaic([["accuracy", "progress"], ["change", "confidence"]])
        _accuracy(grid["accuracy"], accuracy)
        _progress(grid["progress"], metrics, accuracy, validation_images)
        _change(grid["change"], start, network)
        _confidence(grid["confidence"], searches)
        save_figure(figure, path)


def _accuracy(ax: Axes, accuracy: Mapping[str, Mapping[str, float]]) -> None:
    names = [name for name in METHODS if name in accuracy][::-1]
    values = [100 * accuracy[name]["test"] for name in names]
    ax.barh([METHODS[n] for n in names], values, color=[COLORS[n] for n in names], height=0.65)
    lowest = min(values)
    ax.set_xlim(max(0.0, lowest - max(2.0, 0.3 * (max(values) - lowest))), None)
    for row, value in enumerate(values):
        ax.annotate(f" {value:.2f}", (value, row), va="center")
    ax.set_title("test accuracy, %", loc="left")


def _progress(
    ax: Axes,
    metrics: Mapping[str, pathlib.Path],
    accuracy: Mapping[str, Mapping[str, float]],
    images: int,
) -> None:
    other = ax.twinx()
    other.spines["right"].set_visible(True)
    offset = 0
    for name, path in metrics.items():
        records = read_metrics(path)
        seen = [r for r in records if "validation" in r]
        at = [offset + r["generation"] for r in seen]
        right = [100 * (1 - r["validation_errors"] / images) for r in seen]
        loss = [r["validation"] / images / UNIT for r in seen]
        ax.plot(at, right, color=COLORS["evolved"], lw=1.6, marker=".", ms=3)
        other.plot(at, loss, color="#7c3aed", lw=1.1, alpha=0.8, marker=".", ms=2)
        if offset:
            ax.axvline(offset, color="0.8", lw=0.8)
        genes = name.partition("_")[2]
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "color": "0.4"}
        ax.annotate(f" {genes}", (offset, 0.02), ha="left", va="bottom", **place)
        offset += records[-1]["generation"] if records else 0
    fitted = next((n for n in ("evolutionary", "layerwise", "nearest") if n in accuracy), "float")
    for name in dict.fromkeys(("float", fitted)):
        level = 100 * accuracy[name]["validation"]
        ax.axhline(level, color=COLORS[name], lw=0.9, ls="--", label=METHODS[name])
    _legend(ax)
    ax.set_xlim(0, max(offset, 1))
    ax.set_xlabel("generation")
    ax.set_ylabel("validation accuracy, %", color=COLORS["evolved"])
    other.set_ylabel("validation loss, nats", color="#7c3aed")
    ax.set_title("search", loc="left")


def _change(ax: Axes, start: QuantizedNetwork, network: QuantizedNetwork) -> None:
    layers = list(network.layers)
    weights = [_moved(start.weights[n], network.weights[n]) for n in layers]
    multipliers, biases = (
        [_moved(start.constants[n][kind], network.constants[n][kind]) for n in layers]
        for kind in ("multiplier", "bias")
    )
    rows = np.arange(len(layers))
    series = (("weights", weights, "#15803d"), ("multipliers", multipliers, "#0e7490"))
    for i, (label, values, color) in enumerate((*series, ("biases", biases, "#7c3aed"))):
        ax.barh(rows + (i - 1) * 0.26, values, height=0.24, label=label, color=color)
    ax.set_yticks(rows, layers)
    ax.invert_yaxis()
    ax.set_xlabel("% changed by the search")
    ax.set_title("change", loc="left")
    _legend(ax)


def _legend(ax: Axes) -> None:
    """One row above the axes, at the right of the title: no data there to cover."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
    ax.legend(frameon=False, ncols=3, handlelength=1.2, columnspacing=1.0, **place)


def _moved(before: Any, after: Any) -> float:
    return 100 * float(np.mean(np.asarray(before) != np.asarray(after)))


def _confidence(ax: Axes, searches: Mapping[str, Any]) -> None:
    bins = np.linspace(0, 100, 41)
    for (name, state), color in zip(searches.items(), ("#0e7490", "#15803d"), strict=False):
        confidence = 100 * (1 - np.asarray(state.uncertainty, np.float64) / TABLE_TOTAL)
        movable = np.asarray(state.low) < np.asarray(state.high)
        shares = np.histogram(confidence[movable], bins)[0] / max(movable.sum(), 1) * 100
        ax.stairs(shares, bins, label=name.partition("_")[2], color=color, lw=1.5)
    if searches:
        ax.set_yscale("log")
        _legend(ax)
    ax.set_xlabel("confidence: mass of a gene's table on its level, %")
    ax.set_ylabel("% of genes")
    ax.set_title("confidence", loc="left")
