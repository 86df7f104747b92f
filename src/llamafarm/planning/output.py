"""Where a run goes."""

from __future__ import annotations

from pathlib import Path

from llamafarm.strategy.model import Strategy

RUNS = Path("fine_tuned_models")


def output_directory(strategy: Strategy, working_directory: Path) -> Path:
    """The run directory: as written, from the working directory; else fine_tuned_models/<id>."""
    written = strategy.training_args.output_dir
    chosen = RUNS / strategy.id if written is None else Path(written).expanduser()
    return working_directory / chosen
