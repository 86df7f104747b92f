"""What comes with the program."""

from __future__ import annotations

from pathlib import Path


def bundled_demos() -> Path | None:
    """The demo strategies and data: inside the installed package, or `demos/` of the checkout."""
    here = Path(__file__).resolve()
    for candidate in (here.parent / "demos", here.parents[2] / "demos"):
        if (candidate / "strategies.yaml").is_file():
            return candidate
    return None
