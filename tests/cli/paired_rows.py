"""Paired rows for tests of what is printed: fixed numbers, and every verdict."""

from __future__ import annotations

from llamafarm.evaluation.report import PairedRows
from llamafarm.monitoring.comparison import PairedChange, ScoreChange

BETTER = PairedRows(
    28,
    1,
    1,
    (
        ScoreChange("loss", PairedChange(-0.392, -0.45, -0.33, 28, 1, 1, "better")),
        ScoreChange("accuracy", PairedChange(0.0625, 0.02, 0.1, 22, 6, 2, "better")),
        ScoreChange("exact_match", PairedChange(0.1, None, None, 2, 0, 18, "too few rows")),
        ScoreChange("token_f1", PairedChange(0.02, -0.01, 0.05, 9, 7, 4, "no difference")),
        ScoreChange("rouge_l", PairedChange(0.2, 0.1, 0.3, 15, 3, 2, "better")),
    ),
)
SAME = PairedRows(
    0, 0, 30, (ScoreChange("loss", PairedChange(0.0, 0.0, 0.0, 0, 0, 30, "no difference")),)
)
WORSE = PairedRows(
    2, 28, 0, (ScoreChange("loss", PairedChange(0.061, 0.04, 0.08, 2, 28, 0, "worse")),)
)
