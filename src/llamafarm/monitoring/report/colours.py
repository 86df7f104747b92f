"""Colours of the curves: they differ for every kind of colour vision, and can be read on white and
on nearly black.
"""

BLUE = "#3b82c4"
ORANGE = "#d9772b"
GREY = "#808894"
RED = "#c8504f"

# One run beside others.
RUN_COLOURS = (BLUE, ORANGE, "#3a9a5b", "#b0559a", "#9a7d1e", "#2a9d9d", "#7a6bd0", RED)

# On paper.
INK = "#3c434c"
LINE = "#e3e6ea"
