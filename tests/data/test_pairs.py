"""Rows with two answers, of which both are learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llamafarm.data.formats import FORMATS, REJECTED_NOTICE, RowSpec, to_conversation
from llamafarm.data.prepare import prepare
from llamafarm.data.records import BadRow, Record
from llamafarm.data.request import Answers
from llamafarm.data.rows import RowRef
from llamafarm.data.tokenized import PreparedData
from llamafarm.errors import DataError

from .rows_on_disk import request_for, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Q, A, NO = "Why?", "Because.", "No."
PAIR = {"prompt": Q, "chosen": A, "rejected": NO}
ASKED = {"role": "user", "content": Q}
WHOLE = [ASKED, {"role": "assistant", "content": A}]
REJECTED = [ASKED, {"role": "assistant", "content": NO}]
HISTORY = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hm."}, ASKED]
BOTH: tuple[Answers, ...] = ("paired", "rejected")


def parsed(fields: dict[str, Any], answers: Answers) -> Any:
    return to_conversation(Record(RowRef("r.jsonl", 7), fields), RowSpec(answers=answers))


def answer(fields: dict[str, Any], answers: Answers) -> list[str]:
    """What is learnt of the side."""
    found = parsed(fields, answers)
    assert not isinstance(found, BadRow), found.reason
    conversation, name = found
    assert name == "preference"
    return [m.content for m in conversation.messages if m.role == "assistant" and m.trained]


def faults(fields: dict[str, Any], answers: Answers) -> str:
    found = parsed(fields, answers)
    assert isinstance(found, BadRow)
    assert found.source == RowRef("r.jsonl", 7)
    return found.reason


@pytest.mark.parametrize(
    "fields",
    [
        PAIR,
        {"question": Q, "chosen": A, "rejected": NO},
        {"instruction": Q, "chosen_response": A, "rejected_response": NO},
        {"prompt": Q, "chosen": WHOLE, "rejected": REJECTED},
        {"chosen": WHOLE, "rejected": REJECTED},
        {"prompt": HISTORY, "chosen": A, "rejected": NO},
        {"prompt": HISTORY, "chosen": [*HISTORY, WHOLE[1]], "rejected": [*HISTORY, REJECTED[1]]},
        {
            "conversations": [{"from": "human", "value": Q}],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": NO},
        },
    ],
)
def test_each_side_learns_its_own_answer_to_the_same_prompt(fields: dict[str, Any]) -> None:
    assert answer(fields, "chosen") == answer(fields, "paired") == [A]
    assert answer(fields, "rejected") == [NO]
    chosen, rejected = (parsed(fields, side)[0].messages[:-1] for side in BOTH)
    assert chosen == rejected


@pytest.mark.parametrize("answers", BOTH)
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({**PAIR, "chosen": ""}, "chosen"),
        ({**PAIR, "rejected": ""}, "rejected"),
        ({**PAIR, "rejected": None}, "rejected"),
        ({"prompt": Q, "chosen": WHOLE, "rejected": [ASKED]}, "rejected"),
    ],
)
def test_a_fault_of_one_answer_drops_both(
    fields: dict[str, Any], named: str, answers: Answers
) -> None:
    assert named in faults(fields, answers)


@pytest.mark.parametrize("answers", BOTH)
def test_faults_of_both_answers_are_told_at_once(answers: Answers) -> None:
    reason = faults({**PAIR, "chosen": "", "rejected": ""}, answers)
    assert "chosen" in reason and "rejected" in reason


def test_where_only_the_chosen_answer_is_learnt_the_other_may_lack() -> None:
    assert answer({**PAIR, "rejected": None}, "chosen") == [A]


@pytest.mark.parametrize("answers", BOTH)
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"question": Q, "answer": A}, "qa"),
        ({"messages": WHOLE}, "messages"),
        ({"text": "Once upon a time."}, "text"),
    ],
)
def test_a_row_of_one_answer_is_refused_with_the_reason(
    fields: dict[str, Any], name: str, answers: Answers
) -> None:
    assert name in FORMATS
    assert faults(fields, answers) == (
        f"chosen: expected a row with two answers, found one of format {name} (stage: dpo learns "
        "from the difference)"
    )


# From a file to tokens.


@pytest.fixture(scope="module")
def sides(
    smollm2_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PreparedData]:
    """One file prepared three times, in one cache."""
    directory = tmp_path_factory.mktemp("pairs")
    rows = [
        {"prompt": f"What is {i}?", "chosen": f"It is the {i}.", "rejected": f"Not the {i}."}
        for i in range(6)
    ]
    file = write_jsonl(directory / "pairs.jsonl", rows)
    answers: tuple[Answers, ...] = ("chosen", "paired", "rejected")
    return {
        name: prepare(
            request_for(file, eval_wanted=False, answers=name),
            smollm2_tokenizer,
            cache_dir=directory / "cache",
        )
        for name in answers
    }


def learnt(data: PreparedData, tokenizer: Any) -> dict[str, str]:
    rows = data.train
    return {
        str(rows.source(i)): tokenizer.decode(rows.input_ids(i)[rows.trained(i)])
        for i in range(len(rows))
    }


def test_both_sides_of_a_file_have_the_same_rows_and_other_answers(
    sides: dict[str, PreparedData], smollm2_tokenizer: PreTrainedTokenizerFast
) -> None:
    found = {name: learnt(data, smollm2_tokenizer) for name, data in sides.items()}
    assert found["chosen"] == found["paired"]
    assert found["paired"].keys() == found["rejected"].keys()
    assert len(found["paired"]) == 6
    assert all(text.startswith("It is the") for text in found["paired"].values())
    assert all(text.startswith("Not the") for text in found["rejected"].values())


def test_only_who_leaves_the_rejected_answers_out_is_told_so(
    sides: dict[str, PreparedData],
) -> None:
    told = {name: REJECTED_NOTICE in data.report.notices for name, data in sides.items()}
    assert told == {"chosen": True, "paired": False, "rejected": False}


def test_a_file_with_a_row_of_one_answer_is_refused_by_its_line(
    smollm2_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [PAIR, {**PAIR, "rejected": ""}])
    request = request_for(file, eval_wanted=False, answers="paired")
    with pytest.raises(DataError) as caught:
        prepare(request, smollm2_tokenizer, cache_dir=tmp_path / "cache")
    (problem,) = caught.value.problems
    assert problem.where.endswith("rows.jsonl:2")
    assert "rejected" in f"{problem.path} {problem.message}"
