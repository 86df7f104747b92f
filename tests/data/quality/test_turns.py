from __future__ import annotations

import pytest

from llamafarm.data.quality.turns import turn_faults
from llamafarm.data.rows import Conversation, RowRef, Segment
from tests.data.quality.conversations import chat, finding_of, kinds_of, qa, report_of


@pytest.mark.parametrize(
    ("roles", "faults"),
    [
        ("ua", ()),
        ("sua", ()),
        ("suaua", ()),
        ("uata", ()),
        ("uattaua", ()),
        ("u", ("no_answer",)),
        ("suau", ("no_answer",)),
        ("uat", ("no_answer",)),
        ("s", ("only_system",)),
        ("a", ("no_user",)),
        ("sa", ("no_user",)),
        ("aua", ("assistant_first",)),
        ("saua", ("assistant_first",)),
        ("uua", ("same_role_twice",)),
        ("uaa", ("same_role_twice",)),
        ("ssua", ("same_role_twice",)),
        ("uu", ("no_answer", "same_role_twice")),
    ],
)
def test_the_order_of_roles_tells_what_is_wrong(roles: str, faults: tuple[str, ...]) -> None:
    assert turn_faults(roles) == faults


def test_turns_are_counted_by_role() -> None:
    report = report_of([chat("s:Be kind.", "u:Hello?", "a:Hello!"), qa("Who?", "I.", 2)])
    assert dict(report.turns) == {"system": 1, "user": 2, "assistant": 2}


def test_rows_without_an_answer_are_named_by_line() -> None:
    rows = [qa("Who?", "The one."), chat("u:Who?", "a:The one.", "u:Which one?", line=2)]
    finding = finding_of(report_of(rows), "no_answer")
    assert finding is not None and finding.rows == 1
    assert str(finding.examples[0].source) == "rows.jsonl:2"
    assert finding.level == "warning"


def test_a_turn_that_says_nothing_is_found() -> None:
    assert "empty_turn" in kinds_of(chat("s: \n", "u:Who?", "a:The one."))


def test_plain_text_and_pieces_of_text_have_no_turns() -> None:
    text = Conversation(RowRef("r", 1), text="Once upon a time there was a liver.")
    pieces = Conversation(RowRef("r", 2), segments=(Segment("Q: ", False), Segment("Yes.", True)))
    report = report_of([text, pieces])
    assert report.turns == () and report.findings == ()
