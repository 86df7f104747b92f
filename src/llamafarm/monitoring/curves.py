"""Training and eval loss over the steps, drawn in text.

The training loss is a fine line of braille dots (2 x 4 of them a character), every evaluation a
diamond, so that the two can be told apart without colour. Where the output cannot show these
characters, dots and circles do.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamafarm.monitoring.history import Point

_MIN_LABEL_WIDTH = 6
_MIN_WIDTH, _MIN_HEIGHT = 24, 3
_DOTS_X, _DOTS_Y = 2, 4
_DOT_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE_BLANK = 0x2800


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a drawing. line None: braille."""

    line: str | None
    marker: str
    tick: str
    wall: str
    corner: str
    floor: str
    legend_line: str


BRAILLE = Glyphs(None, "◆", "┤", "│", "└", "─", "⠒⠒")
ASCII = Glyphs(".", "o", "+", "|", "+", "-", "..")


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a point lies in a grid of columns x rows; row 0 is the top."""

    step_low: int
    step_high: int
    loss_low: float
    loss_high: float

    def column(self, step: int, columns: int) -> int:
        return round((step - self.step_low) / (self.step_high - self.step_low) * (columns - 1))

    def row(self, loss: float, rows: int) -> int:
        return round((self.loss_high - loss) / (self.loss_high - self.loss_low) * (rows - 1))

    def label(self, row: int, rows: int) -> str:
        """The loss at a row, with the decimals that tell two labels apart."""
        extent = self.loss_high - self.loss_low
        decimals = min(max(1 - math.floor(math.log10(extent)), 2), 4)
        return f"{self.loss_high - row / (rows - 1) * extent:.{decimals}f}"


def render_curves(
    train: Sequence[Point],
    evaluation: Sequence[Point],
    *,
    width: int = 72,
    height: int = 9,
    last_step: int | None = None,
    ascii_only: bool = False,
) -> str:
    """The curves with their axes in `width` columns and `height` + 2 lines; empty when there is
    nothing to draw.

    last_step: right end of the step axis, for a run that is still going on.
    """
    width, height = max(width, _MIN_WIDTH), max(height, _MIN_HEIGHT)
    points = [p for p in (*train, *evaluation) if math.isfinite(p[1])]
    scale = _scale_of(points, last_step)
    if scale is None:
        return ""
    glyphs = ASCII if ascii_only else BRAILLE
    labels = {row: scale.label(row, height) for row in (0, height // 2, height - 1)}
    margin = max(_MIN_LABEL_WIDTH, *(len(label) for label in labels.values()))
    columns = width - margin - 2
    cells = _draw_line(train, scale, columns, height, glyphs)
    for step, loss in evaluation:
        if math.isfinite(loss):
            cells[scale.row(loss, height), scale.column(step, columns)] = glyphs.marker
    lines = []
    for row in range(height):
        wall = glyphs.tick if row in labels else glyphs.wall
        text = "".join(cells.get((row, column), " ") for column in range(columns))
        lines.append(f"{labels.get(row, ''):>{margin}} {wall}{text}".rstrip())
    indent = " " * (margin + 1)
    return "\n".join([*lines, *(indent + line for line in _floor(scale, columns, glyphs))])


def _scale_of(points: Sequence[Point], last_step: int | None) -> _Scale | None:
    steps, losses = [p[0] for p in points], [p[1] for p in points]
    step_high = max([*steps, last_step or 0], default=0)
    if not points or step_high <= min(steps):
        return None
    low, high = min(losses), max(losses)
    if high - low < 1e-3:
        low, high = low - 5e-4, high + 5e-4
    return _Scale(min(steps), step_high, low, high)


def _draw_line(
    train: Sequence[Point], scale: _Scale, columns: int, height: int, glyphs: Glyphs
) -> dict[tuple[int, int], str]:
    """Characters by (row, column) of the training curve."""
    per_x, per_y = (1, 1) if glyphs.line else (_DOTS_X, _DOTS_Y)
    bits: dict[tuple[int, int], int] = defaultdict(int)
    for x, y in _dots(train, scale, columns * per_x, height * per_y):
        bits[y // per_y, x // per_x] |= 1 if glyphs.line else _DOT_BITS[x % _DOTS_X][y % _DOTS_Y]
    return {cell: glyphs.line or chr(_BRAILLE_BLANK + value) for cell, value in bits.items()}


def _dots(
    train: Sequence[Point], scale: _Scale, columns: int, rows: int
) -> Iterable[tuple[int, int]]:
    """A connected line through the mean of the points that share a column."""
    by_column: dict[int, list[float]] = defaultdict(list)
    for step, loss in train:
        if math.isfinite(loss):
            by_column[scale.column(step, columns)].append(loss)
    corners = [
        (x, scale.row(sum(values) / len(values), rows)) for x, values in sorted(by_column.items())
    ]
    yield from corners[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        length = max(x1 - x0, abs(y1 - y0))
        for i in range(1, length + 1):
            yield round(x0 + (x1 - x0) * i / length), round(y0 + (y1 - y0) * i / length)


def _floor(scale: _Scale, columns: int, glyphs: Glyphs) -> tuple[str, str]:
    """The step axis and, under it, its ends and the legend."""
    first, last = str(scale.step_low), f"step {scale.step_high}"
    legend = f"{glyphs.legend_line} train   {glyphs.marker} eval"
    room = max(columns - len(first) - len(last), len(legend) + 2)
    return glyphs.corner + glyphs.floor * columns, f" {first}{legend:^{room}}{last}"
