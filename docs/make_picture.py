"""Draw what a run printed as docs/result.svg: `python docs/make_picture.py RUN_DIR`."""

import sys
from pathlib import Path

from rich.console import Console

from llamafarm.monitoring.curves import render_curves
from llamafarm.monitoring.history import LossHistory
from llamafarm.monitoring.metrics_file import read_events
from llamafarm.monitoring.summary import RunSummary, render_summary


def main(run_dir: Path) -> None:
    """Write the picture beside this file."""
    import json

    events = read_events(run_dir / "metrics.jsonl")
    history = LossHistory.of(events)
    curves = render_curves(history.train_points, history.eval_points, width=88)
    summary = RunSummary.from_json(json.loads((run_dir / "summary.json").read_text()))
    text = render_summary(summary, Path("fine_tuned_models/demo3_quick"), curves=curves)
    # rich draws into a file that is thrown away; the picture is what it recorded.
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=96, file=nowhere)
        console.print(text, highlight=False, markup=False)
        console.save_svg(str(Path(__file__).with_name("result.svg")), title="llamafarm train")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
