from __future__ import annotations

from llamafarm.decision import Decision
from llamafarm.planning.render import render_decisions, short_field

DECISIONS = (
    Decision("hardware.device", "cuda:0", "detected", "NVIDIA A10, 22.5 GiB free of 23.7 GiB"),
    Decision("training_args.eval_steps", "500", "warning", "eval_steps=500 exceeds the run"),
    Decision("training_args.learning_rate", "5e-05", "strategy", "my_training, line 10"),
    Decision("method.r", "8", "default", ""),
    Decision("base_model", "x", "notice", "other weights stand in"),
)


def test_decisions_are_aligned_and_remarks_come_last() -> None:
    assert render_decisions(DECISIONS).splitlines() == [
        "  device         cuda:0  detected  NVIDIA A10, 22.5 GiB free of 23.7 GiB",
        "  learning_rate  5e-05   strategy  my_training, line 10",
        "  method.r       8       default",
        "  notice         other weights stand in",
        "  warning        eval_steps=500 exceeds the run",
    ]


def test_a_long_value_pushes_only_its_own_line() -> None:
    long = Decision("method.target_modules", "q_proj, " * 10, "default", "")
    first = render_decisions((DECISIONS[0], long)).splitlines()[0]
    assert first.index("detected") < 60


def test_nothing_renders_as_nothing() -> None:
    assert render_decisions(()) == ""


def test_familiar_sections_are_left_out_of_names() -> None:
    assert short_field("training_args.learning_rate") == "learning_rate"
    assert short_field("hardware.device") == "device"
    assert short_field("method.r") == "method.r"
