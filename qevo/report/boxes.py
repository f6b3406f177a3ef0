"""Pictures of what detectors find, side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qevo.detection import Detections, matches
from qevo.errors import QevoError
from qevo.report.picture import STYLE
from qevo.report.saving import save_figure

LOST = "#dc2626"
CLASS_COLORS = (  # white reads on each, and none is the red of what is lost
    "#1d4ed8",
    "#15803d",
    "#7c3aed",
    "#0e7490",
    "#a16207",
    "#be185d",
    "#4d7c0f",
    "#475569",
    "#86198f",
    "#7c2d12",
)


def draw_boxes(
    path: pathlib.Path,
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Detections]],
    classes: Sequence[str],
    *,
    reference: str | None = None,
    confidence: float = 0.25,
    overlap: float = 0.5,
) -> None:
    """Draw images in rows and what each detector finds in columns, to a PNG.

    Args:
      path: of the PNG.
      images: uint8 ``[h, w, 3]``, of any sizes.
      columns: by title, what is found in each image, boxes in its pixels; the truth may be one of
        them (`Detections.known`).
      classes: names, in label order.
      reference: title of a column with which those after it are compared: what they lose of it is
        dashed in red, what is new has a name with a plus.
      confidence: scores above it are drawn.
      overlap: of union, from which two boxes of a class are the same object.

    Raises:
      QevoError: numbers of images that differ, nothing to draw, or a reference that is no column.
    """
    counts = {title: len(found) for title, found in columns.items()}
    if not images or not counts or set(counts.values()) != {len(images)}:
        raise QevoError(
            f"expected detections of {len(images)} images, at least one, found {counts}"
        )
    if reference is not None and reference not in columns:
        raise QevoError(f"reference: expected one of {', '.join(columns)}, found {reference}")
    shapes = [max(image.shape[0] / image.shape[1], 0.3) for image in images]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(columns), 3.6 * sum(shapes) + 0.3), layout="constrained")
        grid = figure.subplots(
            len(images), len(columns), squeeze=False, gridspec_kw={"height_ratios": shapes}
        )
        for row, image in enumerate(images):
            compared: Detections | None = None
            for ax, (title, found) in zip(grid[row], columns.items(), strict=True):
                ax.imshow(image)
                ax.axis("off")
                if row == 0:
                    ax.set_title(title, loc="left")
                shown = found[row].above(confidence)
                _draw(ax, shown, compared, classes, overlap)
                if title == reference:
                    compared = shown
        save_figure(figure, path, dpi=110)


def _draw(
    ax: Axes,
    found: Detections,
    compared: Detections | None,
    classes: Sequence[str],
    overlap: float,
) -> None:
    new = np.zeros(len(found), bool)
    if compared is not None:
        new = matches(found, compared, overlap=overlap) < 0
        lost = matches(compared, found, overlap=overlap) < 0
        for box, label in zip(compared.boxes[lost], compared.labels[lost], strict=True):
            _box(ax, box, LOST, f"lost: {classes[label]}", "--")
    for row in reversed(range(len(found))):  # the most confident on top
        label, score = found.labels[row], found.scores[row]
        told = f"{'+ ' if new[row] else ''}{classes[label]}"
        if score < 1:  # as all but the truth have
            told += f" {100 * score:.0f}"
        _box(ax, found.boxes[row], CLASS_COLORS[label % len(CLASS_COLORS)], told, "-")


def _box(ax: Axes, box: np.ndarray, color: str, told: str, style: str) -> None:
    x0, y0, x1, y1 = (float(side) for side in box)
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=1.4, ls=style))
    back = {"facecolor": color, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    place = {"ha": "left", "va": "top", "fontsize": 6, "clip_on": True}
    ax.text(max(x0, 0), max(y0, 0), told, color="white", bbox=back, **place)
