from __future__ import annotations

import json

import pytest

from llamafarm.data.formats import FORMATS, RowSpec, to_conversation
from llamafarm.data.records import BadRow, Record
from llamafarm.data.rows import Conversation, RowRef, Segment
from llamafarm.errors import DataError
from llamafarm.strategy.conversions import DATA_FORMAT
from llamafarm.strategy.model import FORMAT_ALIASES
from llamafarm.strategy.nodes import ScalarNode

Q, A = "Why?", "Because."
ASKED = [("user", Q), ("assistant", A)]


def _parse(fields: dict[str, object], **spec: object) -> tuple[Conversation, str]:
    parsed = to_conversation(Record(RowRef("r.jsonl", 7), fields), RowSpec(**spec))  # type: ignore[arg-type]
    assert not isinstance(parsed, BadRow), parsed.reason
    return parsed


def _turns(fields: dict[str, object], **spec: object) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in _parse(fields, **spec)[0].messages]


def _bad(fields: dict[str, object], **spec: object) -> BadRow:
    parsed = to_conversation(Record(RowRef("r.jsonl", 7), fields), RowSpec(**spec))  # type: ignore[arg-type]
    assert isinstance(parsed, BadRow)
    return parsed


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"instruction": Q, "output": A}, "alpaca"),
        ({"instruction": Q, "input": "", "output": A}, "alpaca"),
        ({"instruction": Q, "input": None, "output": A, "history": [], "system": ""}, "alpaca"),
        ({"instruction": "", "input": Q, "output": A}, "alpaca"),
        ({"instruction": Q, "context": "", "response": A, "category": "qa"}, "alpaca"),
        ({"Instruction": Q, "Output": A}, "alpaca"),
        ({"prompt": Q, "completion": A}, "prompt_completion"),
        ({"question": Q, "answer": A}, "qa"),
        ({" Question ": Q, "ANSWER": A}, "qa"),
        ({"query": Q, "response": A, "id": 5}, "qa"),
        ({"q": Q, "a": A}, "qa"),
        ({"prompt": Q, "response": A}, "qa"),
        ({"input": Q, "output": A}, "qa"),
        ({"problem": Q, "solution": A}, "qa"),
        ({"prompt": Q, "generation": A}, "qa"),
        ({"message_1": Q, "message_2": A}, "qa"),
        ({"INSTRUCTION": Q, "RESPONSE": A, "METADATA": "{}"}, "alpaca"),
        ({"prompt": Q, "completion": A, "label": True}, "prompt_completion"),
        ({"prompt": Q, "chosen": A, "rejected": "No."}, "preference"),
        (
            {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
            "messages",
        ),
        (
            {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
            "sharegpt",
        ),
        (
            {"conversations": [{"role": "user", "content": Q}, {"role": "model", "content": A}]},
            "sharegpt",
        ),
        ({"prompt": [{"role": "user", "content": Q}], "completion": A}, "prompt_completion"),
        (
            {
                "prompt": [{"role": "user", "content": Q}],
                "completion": [{"role": "assistant", "content": A}],
            },
            "prompt_completion",
        ),
    ],
)
def test_formats_are_recognised_by_their_keys(fields: dict[str, object], name: str) -> None:
    conversation, found = _parse(fields)
    assert found == name
    assert [(m.role, m.content) for m in conversation.messages] == ASKED
    assert str(conversation.source) == "r.jsonl:7"


def test_a_text_has_no_turns() -> None:
    conversation, name = _parse({"text": "Once upon a time.", "label": 3})
    assert (conversation.text, conversation.messages, name) == ("Once upon a time.", (), "text")


def test_alpaca_joins_instruction_and_input_and_keeps_both_apart() -> None:
    conversation, _ = _parse(
        {
            "system": "Be kind.",
            "history": [["Hi", "Hello"]],
            "instruction": "Translate.",
            "input": "Katze",
            "output": "cat",
        }
    )
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate.\n\nKatze"),
        ("assistant", "cat"),
    ]
    assert (conversation.messages[3].instruction, conversation.messages[3].input) == (
        "Translate.",
        "Katze",
    )


def test_roles_have_the_names_of_all_tools_in_use() -> None:
    turns = _turns(
        {
            "conversations": [
                {"from": "developer", "value": "Be brief."},
                {"from": "Human", "value": Q},
                {"from": "chatgpt", "value": "Hm."},
                {"from": "user", "value": "And?"},
                {"from": "assistant", "value": A},
            ]
        }
    )
    assert [role for role, _ in turns] == ["system", "user", "assistant", "user", "assistant"]


def test_content_may_be_a_list_of_text_parts() -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    turns = _turns(
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": A}]}
    )
    assert turns == ASKED


def test_the_system_of_a_sharegpt_row_comes_first() -> None:
    turns = _turns(
        {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}],
        }
    )
    assert turns == [("system", "Be kind."), *ASKED]


def test_an_empty_system_turn_is_none() -> None:
    turns = _turns(
        {
            "messages": [
                {"role": "system", "content": " "},
                {"role": "user", "content": Q},
                {"role": "assistant", "content": A},
            ]
        }
    )
    assert turns == ASKED


def test_every_example_in_a_hint_is_a_row_of_its_format() -> None:
    for row_format in FORMATS.values():
        fields = json.loads(row_format.example)
        forced = {"data_format": row_format.name} if row_format.by_name else {}
        assert _parse(fields, **forced)[1] == row_format.name


def test_a_forced_format_is_obeyed() -> None:
    fields = {"instruction": "x", "output": "y", "question": Q, "answer": A}
    assert _parse(fields)[1] == "alpaca"
    assert _turns(fields, data_format="qa") == ASKED
    assert "text" in _bad(fields, data_format="text").reason


def test_columns_map_our_names_to_those_of_the_file() -> None:
    fields = {"Frage": Q, "Antwort": A, "answer": "not this one"}
    assert _turns(fields, columns={"question": "Frage", "answer": "Antwort"}) == ASKED


def test_a_column_that_a_row_lacks_is_named() -> None:
    bad = _bad({"Frage": Q}, columns={"question": "Frage", "answer": "Antwort"})
    assert bad.reason == "answer: expected text, found no column 'Antwort'"


def test_an_unknown_column_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        RowSpec(columns={"questoin": "Frage"})
    assert "did you mean `question`?" in caught.value.render()


def test_a_row_with_several_faults_names_them_all() -> None:
    bad = _bad({"question": 5, "answer": ["x"]})
    assert [p.path for p in bad.problems] == ["question", "answer"]
    assert all(p.where == "r.jsonl:7" for p in bad.problems)
    assert all('{"question": "…", "answer": "…"}' in p.hint for p in bad.problems)
    assert not bad.empty


@pytest.mark.parametrize(
    ("fields", "empty"),
    [
        ({"question": Q, "answer": ""}, True),
        ({"question": Q, "answer": None}, True),
        ({"question": Q}, True),
        ({"question": 5, "answer": ""}, False),
        ({"messages": []}, True),
        ({"messages": [{"role": "user", "content": Q}]}, True),
        ({"frage": Q}, False),
        ({"text": "  "}, True),
    ],
)
def test_rows_that_only_lack_a_text_are_told_from_rows_that_are_wrong(
    fields: dict[str, object], empty: bool
) -> None:
    assert _bad(fields).empty is empty


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "assistant", "content": A, "reasoning_content": "hm"}, "<think>"),
        ({"role": "assistant", "content": None}, "found null"),
        ({"role": "assistant", "content": 7}, "a number (7)"),
        ({"role": "assistant", "content": ["x"]}, "expected a text part"),
        ({"role": "assistant", "content": A, "train_detail": []}, "whole turn"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "a part of type 'image_url'"),
    ],
)
def test_what_a_turn_cannot_say_here_is_an_error(turn: dict[str, object], said: str) -> None:
    assert said in _bad({"messages": [{"role": "user", "content": Q}, turn]}).reason


@pytest.mark.parametrize("history", ["x", [["only one"]], [[Q, ""]], [{"q": Q}], [[Q, 5]]])
def test_a_broken_history_is_a_fault(history: object) -> None:
    assert "history" in _bad({"instruction": Q, "output": A, "history": history}).reason


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"question": Q, "answer": A, "category": "x"}, "qa"),
        ({"question": Q, "answer": A, "text": "x"}, "qa"),
        ({"question": Q, "answer": A, "choices": [A]}, "multiple_choice"),
        ({"question": Q, "answer": A, "context": "x"}, "context_qa"),
        ({"question": Q, "answer": A, "article": "x", "summary": "y"}, "context_qa"),
        ({"article": Q, "summary": A, "text": "x"}, "summary"),
        ({"instruction": Q, "context": "x", "response": A}, "alpaca"),
        ({"instruction": Q, "output": A, "reflection": "x"}, "alpaca"),
        ({"instruction": Q, "output": A, "reflection": "x", "corrected": "y"}, "reflection"),
        ({"prompt": Q, "completion": A, "text": "x"}, "prompt_completion"),
        ({"prompt": Q, "chosen": A, "rejected": "x", "completion": "y"}, "preference"),
        ({"text": "x", "segments": [{"start": 0.0, "end": 1.5}]}, "text"),
        ({"text": "x", "chosen": A}, "text"),
        ({"text": "x", "article": "y"}, "text"),
    ],
)
def test_rows_that_could_be_of_two_formats_have_the_one_that_says_more(
    fields: dict[str, object], name: str
) -> None:
    assert _parse(fields)[1] == name


def test_a_row_that_lacks_a_field_is_told_of_the_format_that_lacks_least() -> None:
    assert _bad({"question": Q}).reason == "answer: expected text, found no such field"
    assert _bad({"rejected": A, "prompt": Q}).problems[0].path == "chosen"
    assert _parse({"chosen": A, "prompt": Q})[1] == "preference"
    assert _bad({"question": Q, "choices": ["a"]}).problems[0].path == "solution"
    assert _bad({"article": "x"}).problems[0].path == "summary"


def test_every_name_that_another_tool_uses_leads_to_a_format() -> None:
    assert not FORMAT_ALIASES.keys() & FORMATS.keys()
    for alias, name in FORMAT_ALIASES.items():
        assert name in FORMATS
        assert DATA_FORMAT.apply(ScalarNode(alias), "dataset.format") == (("dataset.format", name),)


WHOLE = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
REJECTED = [{"role": "user", "content": Q}, {"role": "assistant", "content": "No."}]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": Q, "chosen": A, "rejected": "No."},
        {"question": Q, "chosen": A, "rejected": None},
        {"instruction": Q, "input": "", "chosen": A, "rejected": "No."},
        {"instruction": Q, "chosen_response": A, "rejected_response": "No."},
        {"prompt": WHOLE[:1], "chosen": WHOLE[1:], "rejected": REJECTED[1:]},
        {"prompt": Q, "chosen": WHOLE, "rejected": REJECTED},
        {"chosen": WHOLE, "rejected": REJECTED},
        {
            "conversations": [{"from": "human", "value": Q}],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": "No."},
        },
    ],
)
def test_of_two_answers_the_chosen_one_is_trained(fields: dict[str, object]) -> None:
    assert _turns(fields) == ASKED
    assert _parse(fields)[1] == "preference"


SAID = {"role": "assistant", "content": "Hm."}
HISTORY = [{"role": "user", "content": "Hi"}, SAID, {"role": "user", "content": Q}]
CHOSEN = {"role": "assistant", "content": A}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": HISTORY, "completion": A},
        {"prompt": HISTORY, "completion": [CHOSEN]},
        {"prompt": HISTORY, "chosen": A, "rejected": "No."},
        {"prompt": HISTORY, "chosen": [CHOSEN], "rejected": [SAID]},
        {"prompt": HISTORY, "chosen": [*HISTORY, CHOSEN], "rejected": [*HISTORY, SAID]},
        {"conversations": HISTORY, "chosen": CHOSEN, "rejected": SAID},
        {"instruction": Q, "history": [["Hi", "Hm."]], "chosen": A, "rejected": "No."},
    ],
)
def test_answers_in_a_prompt_are_not_trained(fields: dict[str, object]) -> None:
    messages = _parse(fields)[0].messages
    assert [m.content for m in messages] == ["Hi", "Hm.", Q, A]
    assert [m.content for m in messages if m.role == "assistant" and m.trained] == [A]


def test_an_answer_that_says_what_the_prompt_said_is_trained() -> None:
    fields = {"prompt": HISTORY, "chosen": [*HISTORY, SAID], "rejected": [*HISTORY, CHOSEN]}
    answers = [m for m in _parse(fields)[0].messages if m.role == "assistant"]
    assert [(m.content, m.trained) for m in answers] == [("Hm.", False), ("Hm.", True)]


@pytest.mark.parametrize(
    "asked", [{"prompt": Q, "messages": WHOLE}, {"prompt": WHOLE}, {"messages": WHOLE}]
)
@pytest.mark.parametrize("thanks", [[], [{"role": "user", "content": "Thanks."}]])
def test_the_last_chosen_answer_is_trained_where_the_row_has_it_twice(
    asked: dict[str, object], thanks: list[object]
) -> None:
    chosen = [*WHOLE, *thanks]
    conversation, _ = _parse({**asked, "chosen": chosen, "rejected": REJECTED})
    assert [m.content for m in conversation.messages if m.trained and m.role != "user"] == [A]


def test_a_prompt_comes_before_a_list_of_turns_that_holds_the_answer_too() -> None:
    assert _turns({"prompt": Q, "messages": WHOLE, "chosen": A, "rejected": "No."}) == ASKED


SYSTEM = {"role": "system", "content": "Be kind."}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {"at": "x"}}}],
}


@pytest.mark.parametrize(
    ("prompt", "start"),
    [
        ([SYSTEM, *HISTORY], HISTORY),
        (HISTORY, [SYSTEM, *HISTORY]),
        ([HISTORY[0], {**SAID, "content": "Hm. "}, HISTORY[2]], HISTORY),
        (HISTORY, [{**HISTORY[0], "content": " Hi\n"}, *HISTORY[1:]]),
        ([HISTORY[0], CALLING, HISTORY[2]], [HISTORY[0], CALLING, HISTORY[2]]),
    ],
)
def test_answers_of_the_prompt_are_known_again_beside_system_prompts_and_blanks(
    prompt: list[object], start: list[object]
) -> None:
    fields = {"prompt": prompt, "chosen": [*start, CHOSEN], "rejected": [*start, SAID]}
    answers = [m for m in _parse(fields)[0].messages if m.role == "assistant"]
    assert [m.trained for m in answers] == [False, True]


def test_another_call_than_the_prompt_s_is_trained() -> None:
    function = {"name": "look", "arguments": {"at": "y"}}
    other = {**CALLING, "tool_calls": [{"id": "c1", "function": function}]}
    fields = {
        "prompt": [HISTORY[0], CALLING, HISTORY[2]],
        "chosen": [HISTORY[0], other, HISTORY[2], CHOSEN],
        "rejected": "No.",
    }
    answers = [m for m in _parse(fields)[0].messages if m.role == "assistant"]
    assert [m.trained for m in answers] == [True, True]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"prompt": None, "chosen": WHOLE, "rejected": REJECTED}, "preference"),
        ({"messages": WHOLE, "chosen": None, "rejected": None}, "messages"),
        ({"messages": None, "conversations": WHOLE}, "sharegpt"),
        ({"question": Q, "answer": A, "choices": None}, "qa"),
    ],
)
def test_a_field_that_is_null_gives_a_row_no_format(fields: dict[str, object], name: str) -> None:
    assert _turns(fields) == ASKED
    assert _parse(fields)[1] == name


def test_a_text_beside_turns_that_are_null_is_a_text() -> None:
    assert _parse({"text": "Once upon a time.", "messages": None})[1] == "text"


def test_a_row_of_nulls_is_told_what_is_null() -> None:
    assert _bad({"messages": None}).reason == "messages: expected a list of turns, found null"
    assert _bad({"prompt": None, "chosen": A, "rejected": "No."}).problems[0].path == "prompt"


def test_a_prompt_with_an_answer_and_a_completion_without_one_has_nothing_to_learn() -> None:
    bad = _bad({"prompt": HISTORY, "completion": [{"role": "user", "content": "?"}]})
    assert bad.reason == "completion: no turn of the assistant is trained: nothing to learn"


def test_the_answers_in_the_history_of_an_alpaca_row_are_trained() -> None:
    messages = _parse({"instruction": Q, "output": A, "history": [["Hi", "Hm."]]})[0].messages
    assert [m.content for m in messages if m.role == "assistant" and m.trained] == ["Hm.", A]


def test_the_system_prompt_of_a_preference_row_comes_first() -> None:
    fields = {"system": "Be kind.", "question": Q, "chosen": A, "rejected": "No."}
    assert _turns(fields) == [("system", "Be kind."), *ASKED]
    assert _turns({"system": "Be kind.", "chosen": WHOLE, "rejected": WHOLE})[0][0] == "system"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chosen": A, "rejected": "No."}, "prompt: expected text, found no such field"),
        ({"prompt": Q, "chosen": "", "rejected": "No."}, "chosen: is empty"),
        ({"prompt": "Who?", "chosen": WHOLE, "rejected": WHOLE}, "the prompt of the row"),
        ({"prompt": Q, "chosen": WHOLE[:1], "rejected": WHOLE}, "no turn of the assistant"),
        ({"prompt": Q, "chosen": 5, "rejected": 6}, "a number (5)"),
    ],
)
def test_a_preference_row_without_a_prompt_or_an_answer_is_a_fault(
    fields: dict[str, object], said: str
) -> None:
    assert said in _bad(fields).reason


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": Q, "completion": A},
        {"messages": WHOLE},
        {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
        {"instruction": Q, "output": A},
    ],
)
def test_an_answer_that_is_marked_as_undesirable_is_not_trained(fields: dict[str, object]) -> None:
    bad = _bad({**fields, "label": False})
    assert bad.reason == "label: marked as undesirable: not trained"
    assert not bad.empty
    assert _turns({**fields, "label": True}) == ASKED


def test_a_first_answer_its_reflection_and_the_correction_are_turns() -> None:
    fields = {"instruction": Q, "output": "So.", "reflection": "Too short.", "corrected": A}
    assert _turns(fields) == [
        ("user", Q),
        ("assistant", "So."),
        ("user", "Too short."),
        ("assistant", A),
    ]


def test_choices_are_listed_below_the_question() -> None:
    fields = {"question": Q, "choices": ["a", "b"], "explanation": "It is b."}
    conversation, _ = _parse(fields)
    assert [m.content for m in conversation.messages] == [f"{Q}\n\n- a\n- b", "It is b."]
    assert conversation.messages[0].input == "- a\n- b"
    assert _turns({**fields, "solution": "b"})[1] == ("assistant", "b")


@pytest.mark.parametrize("choices", ["a, b", [], [1, 2], [""], None])
def test_broken_choices_are_a_fault(choices: object) -> None:
    fields = {"question": Q, "choices": choices, "solution": "b"}
    assert "choices" in _bad(fields, data_format="multiple_choice").reason


def test_an_article_stands_before_the_question_about_it() -> None:
    conversation, _ = _parse({"article": "Rain.", "question": Q, "answer": A})
    assert conversation.messages[0].content == f"Rain.\n\n{Q}"
    assert (conversation.messages[0].instruction, conversation.messages[0].input) == (Q, "Rain.")
    assert _turns({"context": " ", "question": Q, "answer": A}) == ASKED


def test_a_summary_is_asked_for() -> None:
    turns = _turns({"article": "Rain all day.", "summary": "Wet."})
    assert turns[0][1].endswith("\n\nRain all day.")
    assert turns[0][1].startswith("Summarize")
    assert turns[1] == ("assistant", "Wet.")


def test_jeopardy_is_read_only_where_it_is_named() -> None:
    fields = {"question": "It barks.", "category": "Animals", "answer": "a dog"}
    assert _turns(fields) == [("user", "It barks."), ("assistant", "a dog")]
    assert _turns(fields, data_format="jeopardy") == [
        ("user", "It barks.\n\nAnimals"),
        ("assistant", "what is a dog"),
    ]


def test_pieces_of_text_stay_as_they_are() -> None:
    pieces = [{"label": False, "text": "<s>Q: x\n"}, {"label": True, "text": "A: y</s>"}]
    conversation, name = _parse({"segments": pieces})
    assert name == "input_output"
    assert conversation.segments == (Segment("<s>Q: x\n", False), Segment("A: y</s>", True))
    assert not conversation.messages


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ("x", "expected a list of pieces"),
        (["x"], "segments[0]: expected an object"),
        ([{"label": 1, "text": "x"}], "segments[0].label: expected true or false"),
        ([{"label": True}], "segments[0].text: expected text, found null"),
        ([{"label": False, "text": "x"}, {"label": True, "text": " "}], "nothing to learn"),
        ([], "nothing to learn"),
    ],
)
def test_broken_pieces_of_text_are_faults(segments: object, said: str) -> None:
    assert said in _bad({"segments": segments}).reason


def test_fields_of_turns_and_names_of_roles_are_mapped() -> None:
    fields = {
        "dialog": [
            {"speaker": "Doctor", "words": "x", "role": "user"},
            {"speaker": "Patient", "words": Q},
            {"speaker": "doctor", "words": A},
        ]
    }
    columns = {"messages": "dialog", "role": "speaker", "content": "words"}
    roles = {"user": "Patient", "assistant": "Doctor"}
    assert _turns(fields, columns=columns, roles=roles) == [("assistant", "x"), *ASKED]


def test_names_that_are_not_mapped_keep_their_meaning() -> None:
    fields = {"messages": [{"role": "Frage", "content": Q}, {"role": "assistant", "content": A}]}
    assert _turns(fields, roles={"user": "Frage"}) == ASKED


def test_a_turn_without_a_role_says_what_it_has() -> None:
    bad = _bad({"messages": [{"speaker": "x", "words": Q}]})
    assert "messages[0].role: no such field; the turn has speaker, words" in bad.reason


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"columns": {"rolle": "x"}}, "did you mean `role`?"),
        ({"roles": {"asistant": "x"}}, "did you mean `assistant`?"),
        ({"roles": {"user": "a", "assistant": "A "}}, '"a" is the name of user and assistant'),
        ({"roles": {"user": "a"}, "data_format": "qa"}, "has no effect"),
        ({"columns": {"role": "a"}, "data_format": "qa"}, "unknown field"),
    ],
)
def test_a_mapping_that_cannot_take_effect_is_refused(spec: dict[str, object], said: str) -> None:
    with pytest.raises(DataError) as caught:
        RowSpec(**spec)  # type: ignore[arg-type]
    assert said in caught.value.render()


def test_all_names_that_cannot_be_mapped_are_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        RowSpec(columns={"questoin": "x"}, roles={"usr": "y"})
    assert [p.path for p in caught.value.problems] == [
        "dataset.columns.questoin",
        "dataset.roles.usr",
    ]


@pytest.mark.parametrize("name", ["images", "videos", "audios"])
def test_a_row_that_needs_more_than_text_is_refused_by_name(name: str) -> None:
    assert _bad({"messages": WHOLE, name: ["a.png"]}).problems[0].path == name
    assert _turns({"messages": WHOLE, name: []}) == ASKED


def test_the_system_prompt_of_a_messages_row_comes_first() -> None:
    assert _turns({"messages": WHOLE, "system": "Be kind."}) == [("system", "Be kind."), *ASKED]
