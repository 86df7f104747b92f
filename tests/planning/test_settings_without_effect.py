"""A setting that does less than its name says is told."""

from __future__ import annotations

from llamafarm.planning.later import not_in_this_version
from llamafarm.strategy.model import Monitoring, Strategy, TrainingArgs


def test_a_checkpoint_path_is_noticed_and_defaults_and_a_log_level_are_not() -> None:
    strategy = Strategy(
        id="s",
        monitoring=Monitoring(log_level="debug"),
        training_args=TrainingArgs(resume_from_checkpoint="checkpoint-5"),
    )
    fields = {d.field for d in not_in_this_version(strategy)}
    assert "training_args.resume_from_checkpoint" in fields
    assert "monitoring.log_level" not in fields
    assert not list(not_in_this_version(Strategy(id="s")))
