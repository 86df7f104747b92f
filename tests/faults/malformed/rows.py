"""Rows of right JSON and wrong fields: turns, roles, tools, weights, pairs, plain texts."""

from __future__ import annotations

from typing import Any

from .case import Case, bad_line, bad_row, good_row, jsonl, row

USER = {"role": "user", "content": "Why?"}
ASSISTANT = {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
QUESTION = {"question": "Why?"}
NOTHING = "no turn of the assistant: nothing to learn"


def _turns(name: str, said: str, *turns: Any, **fields: Any) -> Case:
    return bad_row(f"messages: {name}", {"messages": list(turns), **fields}, said)


def _asked(name: str, said: str, answer: Any) -> Case:
    """A conversation whose second turn is wrong."""
    return _turns(name, said, USER, answer)


def _calls(name: str, said: str, calls: Any) -> Case:
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    return bad_row(f"tools: {name}", {"messages": [USER, turn]}, said)


def _tools(name: str, said: str, tools: Any) -> Case:
    return bad_row(f"tools: {name}", {"messages": [USER, ASSISTANT], "tools": tools}, said)


TURNS = (
    _turns("none", "messages: is an empty list"),
    bad_row("messages: null", {"messages": None}, "messages"),
    bad_row("messages: a text", {"messages": "hello"}, "expected a list of turns, found text"),
    bad_row("messages: a number", {"messages": 5}, "expected a list of turns, found a number (5)"),
    bad_row("messages: one turn that asks", {"messages": USER}, NOTHING),
    bad_row("messages: JSON as text", {"messages": '[{"role": "user"}]'}, "found text"),
    _turns("a text as a turn", "messages[0]: expected a turn with role and content", "hello"),
    _turns("a null as a turn", "messages[1]: expected a turn", USER, None, ASSISTANT),
    _turns("a list as a turn", "messages[0]: expected a turn", ["user", "Why?"]),
    _turns("an empty turn", "messages[0].role: no such field; the turn has none", {}),
    _turns("no role", "messages[0].role: no such field; the turn has content", {"content": "x"}),
    _turns("a role that is null", "messages[0].role", {"role": None, "content": "x"}),
    _turns("a role that is a number", "found a number (1)", {"role": 1, "content": "x"}),
    _turns("a role that is empty", "messages[0].role", {"role": "", "content": "x"}),
    _turns("a role that nobody has", 'found text ("boss")', {"role": "boss", "content": "x"}),
    _turns("a role that is a list", "found a list", {"role": ["user"], "content": "x"}),
    _turns("no content", "messages[0].content: expected text, found null", {"role": "user"}),
    _asked("content that is null", "messages[1].content: expected text, found null",
           {"role": "assistant", "content": None}),
    _asked("content that is empty", "the assistant's turn is empty",
           {"role": "assistant", "content": ""}),
    _asked("content of spaces", "the assistant's turn is empty",
           {"role": "assistant", "content": " \n\t"}),
    _asked("content that is a number", "found a number (42)", {"role": "assistant", "content": 42}),
    _asked("content that is true", "found true", {"role": "assistant", "content": True}),
    _asked("content that is an object", "found an object",
           {"role": "assistant", "content": {"text": "B"}}),
    _asked("content of no parts", "the assistant's turn is empty",
           {"role": "assistant", "content": []}),
    _asked("a part that is a text", "messages[1].content[0]: expected a text part",
           {"role": "assistant", "content": ["B"]}),
    _asked("a part without its text", "messages[1].content[0].text",
           {"role": "assistant", "content": [{"type": "text"}]}),
    _turns("a picture",
           "messages[0].content[0]: expected a text part, found a part of type 'image_url'",
           {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
           ASSISTANT),
    _turns("a user who says nothing", "the user's turn is empty",
           {"role": "user", "content": ""}, ASSISTANT),
    _turns("only a system prompt", "nothing to learn", SYSTEM),
    _turns("only a user", NOTHING, USER),
    _turns("no assistant", NOTHING, SYSTEM, USER),
    _turns("two users and no assistant", NOTHING, USER, USER),
    _turns("a tool alone", "nothing to learn", {"role": "tool", "content": "4"}),
    bad_row("messages: pictures beside them", {"messages": [USER, ASSISTANT], "images": ["a.png"]},
            "images: pictures, films and sound"),
    bad_row("messages: marked as bad", {"messages": [USER, ASSISTANT], "label": False},
            "marked as undesirable"),
    bad_row("messages: several faults at once",
            {"messages": [{"role": "boss", "content": "x"}, {"role": "user", "content": 5}]},
            "messages[1].content: expected text, found a number (5)"),
    bad_row("messages: 5,000 faults", {"messages": [{"role": "boss", "content": 5}] * 5000},
            "messages[0].role: expected system, user, assistant or tool"),
    bad_row("messages: a system prompt that is a list",
            {"messages": [USER, ASSISTANT], "system": ["x"]}, "system: expected text"),
)  # fmt: skip


def _order(name: str, kind: str, *turns: Any) -> Case:
    """A conversation that is read, and told to be in an odd order."""
    return good_row(f"order: {name}", {"messages": list(turns)}, findings=(kind,))


ORDER = (
    _order("the answer before the question", "assistant_first", ASSISTANT, USER),
    _order("an answer first, as a greeting", "assistant_first", ASSISTANT, USER, ASSISTANT),
    _order("a question after the last answer", "no_answer", USER, ASSISTANT, USER),
    _order("two answers one after the other", "same_role_twice", USER, ASSISTANT, ASSISTANT),
    _order("two questions one after the other", "same_role_twice", USER, USER, ASSISTANT),
    _order("two system prompts", "same_role_twice", SYSTEM, SYSTEM, USER, ASSISTANT),
    _order("a system prompt in the middle", "system_late", USER, SYSTEM, ASSISTANT),
    _order("an answer to nothing", "no_user", ASSISTANT),
    _order("a system prompt and an answer", "no_user", SYSTEM, ASSISTANT),
    _turns("a tool that answers no call", "messages[2].tool_call_id: answers no call",
           USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
           {"role": "tool", "content": "4", "tool_call_id": "other"}, ASSISTANT),
)  # fmt: skip

TRAINED = (
    _asked("a weight of 0.5", "messages[1].weight: expected 0 or 1, found a number (0.5)",
           ASSISTANT | {"weight": 0.5}),
    _asked("a weight of -1", "found a number (-1)", ASSISTANT | {"weight": -1}),
    _asked("a weight of 2", "found a number (2)", ASSISTANT | {"weight": 2}),
    _asked("a weight that is a text", 'found text ("1")', ASSISTANT | {"weight": "1"}),
    _asked("a weight that is true", "found true", ASSISTANT | {"weight": True}),
    _asked("a weight that is a list", "expected 0 or 1, found a list", ASSISTANT | {"weight": [1]}),
    _asked("no weight on any answer", "no turn of the assistant is trained",
           ASSISTANT | {"weight": 0}),
    _turns("a weight on the question", "only the assistant's turns are trained",
           USER | {"weight": 1}, ASSISTANT),
    _asked("train as a number", "messages[1].train: expected true or false",
           ASSISTANT | {"train": 1}),
    _asked("train and weight apart", "contradict each other",
           ASSISTANT | {"train": True, "weight": 0}),
    _asked("parts of a turn", "parts of a turn cannot be left out",
           ASSISTANT | {"train_detail": [{"begin_offset": 0}]}),
    _asked("reasoning in a field of its own", "reasoning is read from the content",
           ASSISTANT | {"reasoning_content": "Hm."}),
)  # fmt: skip

TOOLS = (
    _calls("a text", "messages[1].tool_calls", "look_up"),
    _calls("a number", "messages[1].tool_calls: expected a list of tool calls", 5),
    _calls("an object", "messages[1].tool_calls: expected a list of tool calls", {"name": "x"}),
    _calls("a text as a call", "messages[1].tool_calls[0]: expected a tool call", ["look_up"]),
    _calls("null as a call", "messages[1].tool_calls[0]: expected a tool call", [None]),
    _calls("a call of nothing", "messages[1].tool_calls[0].function", [{"id": "1"}]),
    _turns("a call of nothing in the first turn",
           'messages[0].tool_calls[0].function: expected {"name": …, "arguments": {…}}, found null',
           {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}),
    _calls("a call without a name", "function.name: expected the name of a tool",
           [{"function": {"arguments": "{}"}}]),
    _calls("a call of an empty name", "found an empty text",
           [{"function": {"name": " ", "arguments": "{}"}}]),
    _calls("arguments that are missing", "a call without arguments has {}",
           [{"function": {"name": "look_up"}}]),
    _calls("arguments that are no JSON", "arguments: not valid JSON",
           [{"function": {"name": "look_up", "arguments": "{city: Rome}"}}]),
    _calls("arguments that are cut off", "arguments: not valid JSON",
           [{"function": {"name": "look_up", "arguments": '{"city": "Ro'}}]),
    _calls("arguments that are a list", "expected a JSON object, found a list",
           [{"function": {"name": "look_up", "arguments": "[1]"}}]),
    _calls("arguments with a key twice", 'the key "a" stands twice',
           [{"function": {"name": "look_up", "arguments": '{"a": 1, "a": 2}'}}]),
    _calls("arguments with NaN", "NaN is not JSON",
           [{"function": {"name": "look_up", "arguments": '{"a": NaN}'}}]),
    _calls("arguments with half of a character", "half of a character",
           [{"function": {"name": "look_up", "arguments": '{"a": "\\ud83d"}'}}]),
    _calls("arguments 10,000 deep", "too deep",
           [{"function": {"name": "look_up", "arguments": "[" * 10_000}}]),
    _calls("another type", 'expected "function", found text ("retrieval")',
           [CALL | {"type": "retrieval"}]),
    _calls("an id that is a number", "id: expected text, found a number (7)", [CALL | {"id": 7}]),
    _turns("the user calls a tool", "only the assistant calls tools",
           USER | {"tool_calls": [CALL]}, ASSISTANT),
    _tools("described by a number", "tools: expected a list of tools, found a number (5)", 5),
    _tools("described by words", "tools: not valid JSON", "look_up"),
    _tools("described by names", "tools[0]: not valid JSON", ["look_up"]),
    _tools("described by null", "tools[0]: is null", [None]),
    _tools("described by nothing", "tools[0].function", [{}]),
    _tools("without a name", "tools[0].function.name: expected the name", [{"function": {}}]),
    _tools("described by JSON cut off", "tools: not valid JSON", '[{"type": "function"'),
)  # fmt: skip

SHAREGPT = (
    bad_row("ShareGPT: none", {"conversations": []}, "conversations: is an empty list"),
    bad_row("ShareGPT: a text", {"conversations": "hi"}, "expected a list of turns"),
    bad_row("ShareGPT: no value", {"conversations": [{"from": "human"}]}, "conversations[0].value"),
    bad_row("ShareGPT: no from", {"conversations": [{"value": "x"}]}, "conversations[0].from"),
    bad_row("ShareGPT: somebody else", {"conversations": [{"from": "narrator", "value": "x"}]},
            'conversations[0].from: expected system, user, assistant or tool, found text'),
    bad_row("ShareGPT: a value that is a list of numbers",
            {"conversations": [{"from": "human", "value": [1]}]}, "conversations[0].value[0]"),
    bad_row("ShareGPT: a person alone", {"conversations": [{"from": "human", "value": "x"}]},
            NOTHING),
    bad_row("ShareGPT: a call that is no JSON",
            {"conversations": [{"from": "human", "value": "x"},
                               {"from": "function_call", "value": "look_up()"}]},
            "conversations[1].value: not valid JSON"),
    bad_row("ShareGPT: a call that is null",
            {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call"}]},
            "conversations[1].value: is null"),
    bad_row("ShareGPT: a call of an empty list",
            {"conversations": [{"from": "human", "value": "x"},
                               {"from": "function_call", "value": "[]"}]},
            "conversations[1].value: expected"),
    bad_row("ShareGPT: a system prompt of no text",
            {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}],
             "system": 5}, "system: expected text, found a number (5)"),
)  # fmt: skip

ALPACA = (
    bad_row("alpaca: no output", {"instruction": "Count."}, "output"),
    bad_row("alpaca: output is null", {"instruction": "Count.", "output": None}, "found null"),
    bad_row("alpaca: output is empty", {"instruction": "Count.", "output": ""}, "output: is empty"),
    bad_row("alpaca: output is a list", {"instruction": "Count.", "output": ["1"]}, "found a list"),
    bad_row("alpaca: instruction is empty", {"instruction": "", "output": "1"}, "instruction"),
    bad_row("alpaca: instruction is null", {"instruction": None, "output": "1"}, "instruction"),
    bad_row("alpaca: instruction is a number", {"instruction": 7, "output": "1"}, "a number (7)"),
    bad_row("alpaca: input is a number", {"instruction": "Count.", "input": 3, "output": "1"},
            "input: expected text, found a number (3)"),
    bad_row("alpaca: history is a text",
            {"instruction": "Count.", "output": "1", "history": "earlier"}, "history: expected"),
    bad_row("alpaca: history of three", {"instruction": "Count.", "output": "1",
            "history": [["a", "b", "c"]]}, "history[0]: expected [question, answer]"),
    bad_row("alpaca: history with a blank", {"instruction": "Count.", "output": "1",
            "history": [["a", "b"], ["c", " "]]}, "history[1]: expected [question, answer]"),
    bad_row("alpaca: history of nulls", {"instruction": "Count.", "output": "1",
            "history": [[None, None]]}, "history[0]"),
    bad_row("alpaca: system is an object",
            {"instruction": "Count.", "output": "1", "system": {}}, "system: expected text"),
    bad_row("alpaca: marked as bad", {"instruction": "Count.", "output": "1", "label": False},
            "marked as undesirable"),
)  # fmt: skip

PAIRS = (
    bad_row("prompt: no completion", {"prompt": "Why?"}, "no such field"),
    bad_row("prompt: completion is null", {"prompt": "Why?", "completion": None}, "found null"),
    bad_row("prompt: completion is empty", {"prompt": "Why?", "completion": ""}, "is empty"),
    bad_row("prompt: prompt is empty", {"prompt": " ", "completion": "B"}, "prompt: is empty"),
    bad_row("prompt: prompt is a number", {"prompt": 5, "completion": "B"}, "prompt: expected"),
    bad_row("prompt: completion is no turn", {"prompt": [USER], "completion": ["B"]},
            "completion[0]: expected a turn"),
    bad_row("prompt: completion of a user", {"prompt": [USER], "completion": [USER]}, NOTHING),
    bad_row("prompt: an answer that is not wanted",
            {"prompt": "Why?", "completion": "B", "label": False}, "marked as undesirable"),
    bad_row("preference: no chosen", {"prompt": "Why?", "rejected": "B"}, "chosen"),
    bad_row("preference: chosen is null", {"prompt": "Why?", "chosen": None, "rejected": "C"},
            "chosen"),
    bad_row("preference: chosen is empty", {"prompt": "Why?", "chosen": "", "rejected": "C"},
            "chosen: is empty"),
    bad_row("preference: no question", {"chosen": "B", "rejected": "C"}, "prompt"),
    bad_row("preference: another question in the answer",
            {"prompt": "When?", "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
            "in which the prompt of the row does not stand"),
    bad_row("preference: chosen is a question", {"chosen": [USER], "rejected": [USER]}, NOTHING),
)  # fmt: skip

QA = (
    bad_row("qa: no answer", QUESTION, "no such field"),
    bad_row("qa: answer is null", QUESTION | {"answer": None}, "answer: expected text, found null"),
    bad_row("qa: answer is empty", QUESTION | {"answer": ""}, "answer: is empty"),
    bad_row("qa: answer is blank", QUESTION | {"answer": " \n\t "}, "answer: is empty"),
    bad_row("qa: answer is a no-break space", QUESTION | {"answer": "\xa0"}, "answer: is empty"),
    bad_row("qa: answer is a number", QUESTION | {"answer": 42}, "found a number (42)"),
    bad_row("qa: answer is a list", QUESTION | {"answer": ["B"]}, "found a list"),
    bad_row("qa: answer is an object", QUESTION | {"answer": {"text": "B"}}, "found an object"),
    bad_row("qa: question is false", {"question": False, "answer": "B"}, "question: expected text"),
    bad_line("qa: question of a million decimals",
             b'{"question": 0.' + b"9" * 1_000_000 + b', "answer": "B"}',
             "question: expected text, found a number (1.0)"),
    bad_line("qa: half of a character in the answer",
             b'{"question": "Why?", "answer": "a \\udc00 b"}',
             "answer holds half of a character (\\udc00 without its other half)"),
    bad_row("qa: question and answer are null", {"question": None, "answer": None}, "answer"),
    bad_row("qa: other names", {"frage": "Warum?", "antwort": "Darum."},
            "dataset.columns: {question: frage, answer: antwort}"),
    bad_row("qa: rows of numbers", {"x": 1, "y": 2.5}, "no known format has these fields: x, y"),
    bad_row("qa: a name with an escape sequence", {"\x1b[2J": "x"}, "no known format"),
    bad_row("choice: choices are a text", QUESTION | {"choices": "a or b", "answer": "a"},
            "choices: expected a list of texts"),
    bad_row("choice: no choices", QUESTION | {"choices": [], "answer": "a"}, "an empty list"),
    bad_row("choice: a choice is null", QUESTION | {"choices": ["a", None], "answer": "a"},
            "choices[1]"),
    bad_row("context: question is missing", {"context": "It rains.", "answer": "B"}, "question"),
    bad_row("segments: a text", {"segments": "x"}, "segments: expected a list"),
    bad_row("segments: none", {"segments": []}, "nothing to learn"),
    bad_row("segments: none is trained", {"segments": [{"label": False, "text": "x"}]},
            "nothing to learn"),
    bad_row("segments: label is a number", {"segments": [{"label": 1, "text": "x"}]},
            "segments[0].label: expected true or false"),
    bad_row("segments: text is null", {"segments": [{"label": True, "text": None}]},
            "segments[0].text"),
    bad_row("text: null", {"text": None}, "text: expected text, found null"),
    bad_row("text: empty", {"text": ""}, "text: is empty"),
    bad_row("text: a list", {"text": ["a"]}, "text: expected text, found a list"),
    bad_row("text: a number", {"text": 5}, "found a number (5)"),
)  # fmt: skip

ASKED = (
    Case("columns: absent in a row", jsonl(b'{"q": "Why?", "a": "B"}', b'{"q": "Why?"}'), rows=(1,),
         bad={2: "no column 'a'"}, changes={"columns": {"question": "q", "answer": "a"}}),
    Case("columns: null in a row", jsonl(row(1), b'{"question": "Why?", "a": null}'),
         bad={1: "no column 'a'", 2: "found null"}, changes={"columns": {"answer": "a"}}),
    Case("columns: the named one wins", jsonl(b'{"q": "Why?", "question": 5, "answer": "B"}'),
         rows=(1,), changes={"columns": {"question": "q"}}),
    Case("format: named, and the rows have another", jsonl(row(1)),
         bad={1: "text: expected text, found no such field"}, changes={"data_format": "text"}),
    Case("format: named, and every row lacks its turns", jsonl(row(1), row(2)),
         bad=dict.fromkeys((1, 2), "messages"), changes={"data_format": "messages"}),
    Case("labels: a row without the field",
         jsonl(b'{"question": "Q", "answer": "A", "g": 1}', row(2)), rows=(1,),
         bad={2: "the row has no g"}, changes={"group_by": "g"}),
    Case("labels: null", jsonl(b'{"question": "Q", "answer": "A", "g": null}'),
         bad={1: "the row has no g"}, changes={"stratify_by": "g"}),
)  # fmt: skip

GOOD = (
    good_row("tools: an answer to a call in words",
             {"messages": [USER, ASSISTANT, {"role": "tool", "content": "4"}, ASSISTANT]}),
    good_row("preference: no rejected", {"prompt": "Why?", "chosen": "B"}),
    good_row("text: NUL as an escape", {"text": "a\0b c d e"}, findings=("control_character",)),
    good_row("messages: a system prompt that is blank",
             {"messages": [{"role": "system", "content": " "}, USER, ASSISTANT]}),
    good_row("messages: roles in capitals",
             {"messages": [USER | {"role": " User "}, ASSISTANT | {"role": "ASSISTANT"}]}),
    good_row("messages: content of two parts",
             {"messages": [USER, {"role": "assistant", "content": [
                 {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}),
    good_row("messages: a single turn that answers", {"messages": ASSISTANT}),
    good_row("tools: a call without content",
             {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
              "tools": [TOOL]}),
    good_row("tools: described by an empty text", {"messages": [USER, ASSISTANT], "tools": ""}),
    good_row("qa: numbers as texts", {"question": "6 * 7?", "answer": "42"}),
    good_row("alpaca: input and system are null",
             {"instruction": "Count.", "input": None, "output": "1", "system": None}),
    good_row("qa: fields that nobody asked for",
             QUESTION | {"answer": "B", "id": 10**30, "x": None}),
)  # fmt: skip

CASES = (
    *TURNS,
    *ORDER,
    *TRAINED,
    *TOOLS,
    *SHAREGPT,
    *ALPACA,
    *PAIRS,
    *QA,
    *ASKED,
    *GOOD,
)
