"""The figures of a report as PNG files, for papers and slides."""

from __future__ import annotations

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

from qevo.report.picture import COLORS, STYLE
from qevo.report.saving import save_figure

Run = Mapping[str, Any]  # one of the runs of report.json

RUNS = ("#15803d", "#1d4ed8", "#c2410c", "#7c3aed", "#0e7490", "#be185d", "#a16207", "#475569")
_ACROSS = 4  # histograms or images side by side


def draw_figures(stem: pathlib.Path, runs: Sequence[Run]) -> list[pathlib.Path]:
    """Draw what the runs have: curves of all, and levels and examples of each.

    Args:
      stem: the report's path without its suffix; what each figure shows follows it.
      runs: as report.json holds them.

    Returns:
      The files written.
    """
    written = []

    def place(what: str) -> pathlib.Path:
        written.append(stem.with_name(f"{stem.name}-{what}.png"))
        return written[-1]

    with rc_context(STYLE):
        if any(run["curve"] for run in runs):
            _draw_curves(place("curves"), runs)
        for number, run in enumerate(runs, 1):
            which = f"-{number}" if len(runs) > 1 else ""
            if run["layers"]:
                _draw_levels(place(f"levels{which}"), run["layers"])
            if run["examples"] and run["examples"]["shown"]:
                _draw_examples(place(f"examples{which}"), run["examples"]["shown"])
    return written


def png_of_image(image: np.ndarray) -> bytes:
    """A PNG of uint8 ``[H, W, C]``: colours for 3 channels, else the first one in grey."""
    colours = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    file = io.BytesIO()
    imsave(file, colours, format="png")
    return file.getvalue()


def _draw_curves(path: pathlib.Path, runs: Sequence[Run]) -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, over, label in zip(
        axes, ("evaluations", "seconds"), ("networks evaluated", "seconds of search"), strict=True
    ):
        for run, color in zip(runs, _cycle(len(runs)), strict=True):
            if run["curve"]:
                accuracy = 100 * np.array(run["curve"]["accuracy"])
                ax.plot(run["curve"][over], accuracy, color=color, lw=1.4, label=run["name"])
        if len(runs) == 1 and runs[0]["accuracy"]:
            for method in ("float", runs[0]["start"]):
                level = 100 * runs[0]["accuracy"][method]["validation"]
                ax.axhline(level, color=COLORS[method], lw=0.9, ls="--", label=method)
        ax.set_xlim(0, None)
        ax.set_xlabel(label)
    axes[0].set_ylabel("validation accuracy, %")
    axes[1].legend(frameon=False)
    save_figure(figure, path)


def _draw_levels(path: pathlib.Path, layers: Sequence[Mapping[str, Any]]) -> None:
    rows = -(-len(layers) // _ACROSS)
    figure = Figure(figsize=(10, 1.9 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, min(_ACROSS, len(layers)), squeeze=False).ravel()
    for ax, layer in zip(grid, layers, strict=False):
        found = layer["levels"]
        at = found["low"] + np.arange(len(found["counts"]))
        ax.bar(at, found["counts"], color=COLORS["evolved"], width=0.84)
        ax.stairs(found["before"], np.append(at, at[-1] + 1) - 0.5, color="0.35", lw=0.9)
        ax.set_title(layer["name"], loc="left", fontsize=9)
        ax.tick_params(labelsize=7)
    for ax in grid[len(layers) :]:
        ax.set_axis_off()
    save_figure(figure, path)


def _draw_examples(path: pathlib.Path, shown: Sequence[Mapping[str, Any]]) -> None:
    rows = -(-len(shown) // _ACROSS)
    figure = Figure(figsize=(8, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, _ACROSS, squeeze=False).ravel()
    for ax in grid:
        ax.set_axis_off()
    for ax, example in zip(grid, shown, strict=False):
        ax.imshow(imread(io.BytesIO(base64.b64decode(example["png"]))), interpolation="nearest")
        says = f"{example['label']}\nfloat {example['float']}\ninteger {example['integer']}"
        ax.set_title(says, fontsize=8, loc="left", parse_math=False)
    save_figure(figure, path)


def _cycle(count: int) -> list[str]:
    return [RUNS[number % len(RUNS)] for number in range(count)]
