"""The ROC and its area, against counting pairs and thresholds one by one."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qevo.errors import QevoError
from qevo.report import draw_roc, roc_curve

CASES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda case: len({label for _, label in case}) == 2
)


def arrays(case):
    scores, labels = zip(*case, strict=True)
    return np.array(scores), np.array(labels, np.int32)


@given(CASES)
def test_area_is_the_share_of_pairs_in_order(case):
    scores, labels = arrays(case)
    normal, strange = scores[labels == 0].tolist(), scores[labels == 1].tolist()
    pairs = [(a > b) * 2 + (a == b) for a in strange for b in normal]
    area = roc_curve(scores, labels).auc
    assert isinstance(area, Fraction)
    assert area == Fraction(sum(pairs), 2 * len(pairs))
    statistic = scipy.stats.mannwhitneyu(strange, normal).statistic
    assert float(area) == pytest.approx(statistic / len(pairs))


@given(CASES)
def test_points_are_the_counts_above_each_threshold(case):
    scores, labels = arrays(case)
    curve = roc_curve(scores, labels)
    found = list(zip(*(counts.tolist() for counts in curve), strict=True))
    expected = [(0, 0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        alarm = scores >= threshold
        expected.append((int((alarm & (labels == 0)).sum()), int((alarm & (labels == 1)).sum())))
    assert found == expected


def test_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.RandomState(0)
    labels = draw.randint(0, 2, 3000)
    scores = draw.randint(0, 200, 3000) + 40 * labels
    curve = roc_curve(scores, labels)
    assert float(curve.auc) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_alarms / curve.false_alarms[-1], false)
    np.testing.assert_allclose(curve.detections / curve.detections[-1], true)


def test_large_counts_and_scores_stay_exact():
    """2e12 pairs, and scores that differ in their last bits only."""
    scores = np.repeat(np.array([2**62, 2**62 + 1, 2**62 + 2]), 1_000_000)
    labels = np.repeat([0, 1, 1], 1_000_000)
    assert roc_curve(scores, labels).auc == 1
    assert roc_curve(-scores, labels).auc == 0


def test_a_picture(tmp_path: pathlib.Path):
    draw = np.random.RandomState(0)
    labels = draw.randint(0, 2, 300)
    curves = {
        name: roc_curve(draw.randint(0, 100, 300) + shift * labels, labels)
        for name, shift in (("float", 80), ("nearest", 20), ("mine", 0))
    }
    draw_roc(tmp_path / "roc.png", curves, title="normal: 3")
    with Image.open(tmp_path / "roc.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours = {"#{:02x}{:02x}{:02x}".format(*rgb) for rgb in np.unique(pixels, axis=0)}
    assert {"#6b7280", "#c2410c"} <= colours


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5, 1.0], [0, 1], "one integer score .* got float64"),
        ([1, 2, 3], [0, 1], r"int64 \[3\] and \[2\]"),
        ([1, 2], [1, 1], "each at least once"),
        ([1, 2, 3], [0, 1, 2], "labels 0"),
        ([], [], "each at least once|integer score"),
    ],
)
def test_refuses(scores, labels, message):
    with pytest.raises(QevoError, match=message):
        roc_curve(np.array(scores), np.array(labels))
