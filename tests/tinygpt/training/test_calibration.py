"""How surely a model prefers a reply, and how often it does so rightly.

Tests: training/calibration.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tinygpt.data.preferences import Preference
from tinygpt.training import calibration
from tinygpt.training.calibration import bins_of, error_of, kinds_of, report

# of the better reply: the model is 90 % sure three times and twice right, 62 % sure and right, and
# at a tie not right
P = np.array([0.9, 0.92, 0.08, 0.62, 0.5])


def test_bins_by_hand() -> None:
    """A pair belongs to the bin of the preferred reply's probability, also where that is worse."""
    bins = bins_of(P)
    edges = [(round(part.low, 2), round(part.high, 2), part.pairs) for part in bins]
    assert edges == [(0.5, 0.55, 1), (0.6, 0.65, 1), (0.9, 0.95, 3)]
    assert [part.right for part in bins] == pytest.approx([0, 1, 2 / 3])
    assert [part.sure for part in bins] == pytest.approx([0.5, 0.62, (0.9 + 0.92 + 0.92) / 3])
    by_hand = (0.5 + 0.38 + abs(2 - 0.9 - 0.92 - 0.92)) / 5
    assert error_of(bins) == pytest.approx(by_hand)
    assert bins_of(np.ones(3))[0][:3] == pytest.approx((0.95, 1, 3))


def test_a_calibrated_model_is_off_by_little() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 100_000)
    right = rng.uniform(size=len(p)) < p
    found = bins_of(np.where(right, p, 1 - p))
    assert error_of(found) < 0.01
    assert all(abs(part.right - part.sure) < 4 * part.error for part in found)


def test_the_kinds_of_pairs_are_those_of_their_true_scores() -> None:
    right = "Tom. Thank you."
    pairs = [
        Preference("q", right, "Tom. So what.", "", "Tom"),
        Preference("q", right, "Ann. Thank you.", "", "Tom"),
        Preference("q", "Tom. So what.", "park. So what.", "", "Tom"),
    ]
    pairs += pairs[1:2] * 2
    lines = list(report(pairs, P))
    assert lines[0] == "right       60.0%, 3 of 5 pairs; a guess is right in 50%"
    assert [line.strip() for line in lines[1:4]] == [
        "100.0%, 1 of 1 pair: right and kind against right and rude",
        "66.7%, 2 of 3 pairs: right and kind against wrong",
        "0.0%, 0 of 1 pair: right and rude against wrong",
    ]
    assert "0.90 to 0.95                         3    91.3%    66.7%" in lines
    assert kinds_of([*pairs, Preference("q", "a", "b")]) == {}


def test_the_picture_has_each_bin_and_the_diagonal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    calibration.draw(P, "five $pairs", tmp_path / "calibration.png")
    above, below = figures[0].axes
    diagonal, points = above.get_lines()[:2]
    assert diagonal.get_xydata().tolist() == [[0.5, 0.5], [1, 1]]
    assert points.get_ydata() == pytest.approx([0, 1, 2 / 3])
    assert [bar.get_height() for bar in below.patches] == [1, 1, 3]
    assert [bar.get_x() for bar in below.patches] == pytest.approx([0.5, 0.6, 0.9])
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
