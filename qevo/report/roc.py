"""How well integer scores tell anomalies from normal images: ROC, and the area under it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from qevo.errors import QevoError
from qevo.report.picture import COLORS, STYLE
from qevo.report.saving import save_figure
from qevo.report.table import METHODS


class Roc(NamedTuple):
    """Counts of what an alarm threshold catches, from no alarm to all; int64 ``[k]``."""

    false_alarms: np.ndarray
    detections: np.ndarray

    @property
    def auc(self) -> Fraction:
        """Area under the curve, exact.

        The share of pairs of a normal and an anomalous image in which the anomaly has the greater
        score, ties counting half: the rank statistic of Mann and Whitney 1947.
        """
        width = np.diff(self.false_alarms)
        twice = int((width * (self.detections[:-1] + self.detections[1:])).sum())
        return Fraction(twice, 2 * int(self.false_alarms[-1]) * int(self.detections[-1]))


def roc_curve(scores: np.ndarray, anomalous: np.ndarray) -> Roc:
    """The curve of all thresholds; equal scores raise an alarm together.

    Args:
      scores: integers ``[n]``, such as `qevo.nets.reconstruction_errors`; greater is stranger.
      anomalous: 0 or 1 ``[n]``.

    Raises:
      QevoError: other types or shapes, or nothing to tell apart.
    """
    scores, anomalous = np.asarray(scores), np.asarray(anomalous)
    if scores.dtype.kind not in "iu" or scores.ndim != 1 or anomalous.shape != scores.shape:
        raise QevoError(
            "expected one integer score and one label for each image, got"
            f" {scores.dtype} {list(scores.shape)} and {list(anomalous.shape)}"
        )
    if set(np.unique(anomalous).tolist()) != {0, 1}:
        raise QevoError("expected labels 0 (normal) and 1 (anomaly), each at least once")
    order = np.argsort(-scores.astype(np.int64), kind="stable")
    falls = np.flatnonzero(np.diff(scores[order]))  # thresholds lie between unequal scores
    ends = np.concatenate([falls + 1, [len(scores)]])
    caught = np.concatenate([[0], np.cumsum(anomalous[order], dtype=np.int64)])[ends]
    zero = np.zeros(1, np.int64)
    return Roc(np.concatenate([zero, ends - caught]), np.concatenate([zero, caught]))


def draw_roc(path: pathlib.Path, curves: Mapping[str, Roc], *, title: str = "") -> None:
    """Draw curves by the name of their method, with their areas, to a PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.5, 5), layout="constrained")
        ax = figure.subplots()
        for name, curve in curves.items():
            shares = (100 * counts / counts[-1] for counts in curve)
            label = f"{METHODS.get(name, name)}, AUC {float(curve.auc):.4f}"
            ax.plot(*shares, color=COLORS.get(name), lw=1.3, label=label)
        ax.axline((0, 0), slope=1, color="0.7", lw=0.8)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 100)
        ax.set_aspect("equal")
        ax.set_xlabel("false alarms, % of normal images")
        ax.set_ylabel("detections, % of anomalies")
        ax.set_title(title, loc="left")
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        save_figure(figure, path)
