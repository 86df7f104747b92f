"""What `train` decides before anything is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm import api
from llamafarm.monitoring.events import Event, MessageEvent
from llamafarm.strategy.overrides import Override
from llamafarm.training import run_directory

KEY = "training_args.resume_from_checkpoint"


class AskedError(Exception):
    """Raised in place of looking at the directory."""


@pytest.mark.parametrize(
    ("overwrite", "resumes", "notices"),
    [
        (False, True, []),
        (True, False, [f"{KEY} (--set {KEY}) has no effect: --overwrite replaces the run"]),
    ],
)
def test_overwrite_overrules_the_key_of_the_strategy_and_says_so(
    overwrite: bool,
    resumes: bool,
    notices: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Sink:
        def handle(self, event: Event) -> None:
            events.append(event)

        def close(self) -> None: ...

    def asked(root: Path, *, resume: bool, overwrite: bool) -> None:
        raise AskedError(root, resume, overwrite)

    events: list[Event] = []
    monkeypatch.setattr(run_directory, "check_output_directory", asked)
    overrides = (
        Override("dataset.path", "rows.jsonl", "--dataset rows.jsonl"),
        Override("training_args.output_dir", str(tmp_path), f"--output {tmp_path}"),
        Override(KEY, "true", f"--set {KEY}"),
    )
    request = api.TrainRequest(overrides=overrides, overwrite=overwrite)
    with pytest.raises(AskedError) as caught:
        api.train(request, sinks=(Sink(),))
    assert caught.value.args == (tmp_path, resumes, overwrite)
    assert [e.text for e in events if isinstance(e, MessageEvent)] == notices
    assert api.run_directory_of(request) == tmp_path
