"""The row formats of the field, recognised by their keys, brought into one: a Conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import takewhile

from llamafarm.data.json_reader import describe
from llamafarm.data.records import BadRow, Record
from llamafarm.data.request import Answers
from llamafarm.data.row_reader import TURN_FIELDS, RowReader, join_blank_line
from llamafarm.data.rows import Conversation, Message, Segment
from llamafarm.data.turn_reader import TURN_ROLES, read_turns
from llamafarm.errors import DataError, Problem
from llamafarm.strategy.model import DataFormat

REJECTED_NOTICE = "preference rows: the chosen answers are trained, the rejected ones are not used"
_ANSWERS = ("output", "response", "answer", "completion")
_QUESTIONS = ("question", "query", "prompt", "q", "problem", "input", "message_1")
_QA_ANSWERS = (
    "answer",
    "response",
    "a",
    "completion",
    "solution",
    "reply",
    "output",
    "generation",
    "message_2",
)
_CHOSEN = ("chosen", "chosen_response")
_REJECTED = ("rejected", "rejected_response")
_ARTICLES = ("article", "context")
_TURN_LISTS = ("messages", "conversations", "conversation")
_SYSTEM = ("system", "system_prompt")
# Fields of a turn, and what a row of turns may hold beside them.
_OF_TURNS = (*TURN_FIELDS, "tools", "label", *_SYSTEM)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """keys: a row has this format when it has one name of each group; example: a correct row.

    by_name: only where the strategy names it, because its keys say too little; not_with: a row that
    has one of these fields has another format.
    """

    name: DataFormat
    keys: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    example: str
    parse: Callable[[RowReader], Conversation]
    by_name: bool = False
    not_with: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Every name that a column may be given for."""
        return (*(name for group in self.keys for name in group), *self.optional)

    def fits(self, keys: frozenset[str]) -> bool:
        """Whether a row with these fields has this format."""
        return self._may_fit(keys) and all(any(n in keys for n in group) for group in self.keys)

    def found(self, keys: frozenset[str]) -> int:
        """How many of its groups a row with these fields has; 0 where it has another format."""
        if not self._may_fit(keys):
            return 0
        return sum(any(name in keys for name in group) for group in self.keys)

    def _may_fit(self, keys: frozenset[str]) -> bool:
        return not self.by_name and not any(name in keys for name in self.not_with)


def _alpaca(row: RowReader) -> Conversation:
    asked = _instructed(row)
    return row.conversation((*asked, Message("assistant", row.text(*_ANSWERS))))


def _instructed(row: RowReader) -> tuple[Message, ...]:
    """System prompt, earlier turns and the question of an alpaca row."""
    instruction = row.optional_text("instruction")
    given = row.optional_text("input", "context")
    if not instruction.strip() and not given.strip():
        row.text("instruction")
    asked = Message(
        "user", join_blank_line([instruction, given]), instruction=instruction, input=given
    )
    return (*_system(row), *_history(row), asked)


def _system(row: RowReader) -> tuple[Message, ...]:
    system = row.optional_text(*_SYSTEM)
    return (Message("system", system),) if system.strip() else ()


def _history(row: RowReader) -> tuple[Message, ...]:
    value = row.value("history")
    if value is None:
        return ()
    if not isinstance(value, list):
        row.fault("history", f"expected a list of [question, answer], found {describe(value)}")
        return ()
    turns: list[Message] = []
    for i, pair in enumerate(value):
        match pair:
            case [str() as question, str() as answer] if question.strip() and answer.strip():
                turns += [Message("user", question), Message("assistant", answer)]
            case _:
                row.fault(
                    f"history[{i}]", "expected [question, answer], two texts that are not empty"
                )
    return tuple(turns)


def _messages(row: RowReader) -> Conversation:
    return _turn_list(row, _TURN_LISTS)


def _sharegpt(row: RowReader) -> Conversation:
    return _turn_list(row, ("conversations", "conversation", "messages"))


def _turn_list(row: RowReader, names: Sequence[str]) -> Conversation:
    """names: of the field, the format's own first."""
    name = row.filled(*names) or names[0]
    return _with_answer(row, name, _with_system(row, read_turns(row, name)))


def _with_system(row: RowReader, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The row's system prompt first, unless a turn is one."""
    has_system = any(turn.role == "system" for turn in turns)
    return turns if has_system else (*_system(row), *turns)


def _with_answer(row: RowReader, path: str, turns: tuple[Message, ...]) -> Conversation:
    answers = [turn for turn in turns if turn.role == "assistant"]
    if turns and row.bad_row() is None and not any(turn.trained for turn in answers):
        none = "no turn of the assistant is trained" if answers else "no turn of the assistant"
        row.fault(path, f"{none}: nothing to learn", empty=not answers)
    return row.conversation(turns)


def _prompt_completion(row: RowReader) -> Conversation:
    """Answers that stand in the prompt are not learnt: the completion alone is."""
    prompt = _untrained(_side(row, "prompt", "user"))
    completion = _side(row, "completion", "assistant")
    return _with_answer(row, "completion", _with_system(row, (*prompt, *completion)))


def _side(row: RowReader, name: str, role: str) -> tuple[Message, ...]:
    if isinstance(row.value(name), list | Mapping):
        return read_turns(row, name)
    text = row.text(name)
    return (Message("user" if role == "user" else "assistant", text),)


def _untrained(turns: Sequence[Message]) -> tuple[Message, ...]:
    answer = "assistant"
    return tuple(replace(turn, trained=turn.trained and turn.role != answer) for turn in turns)


def _of_pair(row: RowReader, row_format: RowFormat, answers: Answers) -> Conversation:
    """One side of a row that has two; both are looked at, so that a fault of either drops both."""
    if row_format.name != "preference":
        row.fault(
            _CHOSEN[0],
            f"expected a row with two answers, found one of format {row_format.name} (stage: dpo "
            "learns from the difference)",
        )
        return Conversation(row.source)
    chosen, rejected = _preference(row), _preference(row, _REJECTED)
    return rejected if answers == "rejected" else chosen


def _preference(row: RowReader, names: tuple[str, ...] = _CHOSEN) -> Conversation:
    """The prompt with one of the answers, which may be a whole conversation. Answers that stand in
    the prompt are not learnt.
    """
    name = row.filled(*names) or names[0]
    chosen = _side(row, name, "assistant")
    if not any(turn.role == "user" for turn in chosen):
        return _with_answer(row, name, _with_system(row, (*_untrained(_compared(row)), *chosen)))
    asked = _compared(row) if row.filled(*_PROMPTS) else ()
    said = {turn.content.strip() for turn in chosen}
    if any(turn.content.strip() not in said for turn in asked if turn.role == "user"):
        row.fault(name, "is a whole conversation, in which the prompt of the row does not stand")
    return _with_answer(row, name, _with_system(row, _untrained_again(chosen, asked)))


def _untrained_again(chosen: Sequence[Message], asked: Sequence[Message]) -> tuple[Message, ...]:
    """The chosen conversation; answers that it repeats of the prompt are not learnt, but for the
    last one, which is what was chosen. System prompts often stand in one of the two only.
    """
    spoken = [i for i, turn in enumerate(chosen) if turn.role != "system"]
    before = [_words(turn) for turn in asked if turn.role != "system"]
    pairs = zip(spoken, before, strict=False)
    same = takewhile(lambda pair: _words(chosen[pair[0]]) == pair[1], pairs)
    again = max((i + 1 for i, _ in same), default=0)
    last = max((i for i in spoken if chosen[i].role == "assistant"), default=0)
    again = min(again, last)
    return (*_untrained(chosen[:again]), *chosen[again:])


def _words(turn: Message) -> tuple[object, ...]:
    """What two copies of a turn have in common."""
    calls = [(call.name, call.arguments) for call in turn.tool_calls]
    return turn.role, turn.content.strip(), calls


# A list of turns beside a prompt may hold the chosen answer too.
_ASKED = ("prompt", *_TURN_LISTS, "instruction", "question", "query")
# An input may stand beside an instruction: alone it is what was asked.
_PROMPTS = (*_ASKED, "input")


def _compared(row: RowReader) -> tuple[Message, ...]:
    """What was asked, in a row of two answers."""
    name = row.filled(*_ASKED) or row.filled("input") or "prompt"
    if name in _TURN_LISTS:
        return read_turns(row, name)
    if name == "instruction":
        return _instructed(row)
    return _side(row, name, "user")


def _reflection(row: RowReader) -> Conversation:
    """A first answer, what is wrong with it, and the answer after that."""
    turns = (
        *_instructed(row),
        Message("assistant", row.text("output")),
        Message("user", row.text("reflection")),
        Message("assistant", row.text("corrected")),
    )
    return row.conversation(turns)


def _multiple_choice(row: RowReader) -> Conversation:
    question = row.text("question")
    choices = "\n".join(f"- {choice}" for choice in _choices(row))
    asked = Message(
        "user", join_blank_line([question, choices]), instruction=question, input=choices
    )
    answer = Message("assistant", row.text("solution", "answer", "explanation"))
    return row.conversation((*_system(row), asked, answer))


def _choices(row: RowReader) -> Iterator[str]:
    value = row.value("choices")
    if not isinstance(value, list) or not value:
        found = "an empty list" if isinstance(value, list) else describe(value)
        row.fault("choices", f"expected a list of texts, found {found}")
        return
    for i, choice in enumerate(value):
        yield row.checked_text(choice, f"choices[{i}]", required=True)


def _context_qa(row: RowReader) -> Conversation:
    article = row.optional_text(*_ARTICLES)
    question = row.text(*_QUESTIONS)
    asked = Message(
        "user", join_blank_line([article, question]), instruction=question, input=article
    )
    return row.conversation((*_system(row), asked, Message("assistant", row.text(*_QA_ANSWERS))))


_SUMMARISE = "Summarize this article (TL;DR)."


def _summary(row: RowReader) -> Conversation:
    """The rows hold no question: it is always this one."""
    article = row.text("article")
    asked = Message(
        "user", join_blank_line([_SUMMARISE, article]), instruction=_SUMMARISE, input=article
    )
    return row.conversation((*_system(row), asked, Message("assistant", row.text("summary"))))


def _jeopardy(row: RowReader) -> Conversation:
    """The clue and its category; the answer is a question, as the game asks for it."""
    clue, category = row.text("question"), row.optional_text("category")
    asked = Message("user", join_blank_line([clue, category]), instruction=clue, input=category)
    return row.conversation((asked, Message("assistant", f"what is {row.text('answer')}")))


def _qa(row: RowReader) -> Conversation:
    question = Message("user", row.text(*_QUESTIONS))
    answer = Message("assistant", row.text(*_QA_ANSWERS))
    return row.conversation((*_system(row), question, answer))


def _input_output(row: RowReader) -> Conversation:
    """axolotl's template-free rows: pieces of text, those with label true trained."""
    value = row.value("segments")
    if not isinstance(value, list):
        row.fault("segments", f"expected a list of pieces of text, found {describe(value)}")
        return Conversation(row.source)
    pieces = [_segment(row, piece, f"segments[{i}]") for i, piece in enumerate(value)]
    segments = tuple(piece for piece in pieces if piece)
    if row.bad_row() is None and not any(s.trained and s.text.strip() for s in segments):
        row.fault("segments", "no piece of text has label true: nothing to learn", empty=True)
    return Conversation(row.source, segments=segments)


def _segment(row: RowReader, piece: object, path: str) -> Segment | None:
    if not isinstance(piece, Mapping):
        row.fault(path, f"expected an object with label and text, found {describe(piece)}")
        return None
    label = piece.get("label")
    if not isinstance(label, bool):
        row.fault(f"{path}.label", f"expected true or false, found {describe(label)}")
    text = row.checked_text(piece.get("text"), f"{path}.text")
    return Segment(text, label is True)


def _text(row: RowReader) -> Conversation:
    return Conversation(row.source, text=row.text("text"))


FORMATS: Mapping[str, RowFormat] = {
    entry.name: entry
    for entry in (
        RowFormat(
            "preference",
            (_CHOSEN, _REJECTED),
            (*_PROMPTS, "history", *_OF_TURNS),
            '{"prompt": "…", "chosen": "…", "rejected": "…"}',
            _preference,
        ),
        RowFormat(
            "messages",
            (("messages",),),
            _OF_TURNS,
            '{"messages": [{"role": "user", "content": "…"}, '
            '{"role": "assistant", "content": "…"}]}',
            _messages,
        ),
        RowFormat(
            "sharegpt",
            (("conversations", "conversation"),),
            _OF_TURNS,
            '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
            _sharegpt,
        ),
        RowFormat(
            "reflection",
            (("instruction",), ("output",), ("reflection",), ("corrected",)),
            ("input", "context", *_SYSTEM),
            '{"instruction": "…", "output": "…", "reflection": "…", "corrected": "…"}',
            _reflection,
        ),
        RowFormat(
            "alpaca",
            (("instruction",), _ANSWERS),
            ("input", "context", "history", "tools", "label", *_SYSTEM),
            '{"instruction": "…", "input": "", "output": "…"}',
            _alpaca,
        ),
        RowFormat(
            "prompt_completion",
            (("prompt",), ("completion",)),
            _OF_TURNS,
            '{"prompt": "…", "completion": "…"}',
            _prompt_completion,
        ),
        RowFormat(
            "multiple_choice",
            (("question",), ("choices",), ("solution", "answer", "explanation")),
            _SYSTEM,
            '{"question": "…", "choices": ["…", "…"], "solution": "…"}',
            _multiple_choice,
        ),
        RowFormat(
            "context_qa",
            (_ARTICLES, _QUESTIONS, _QA_ANSWERS),
            _SYSTEM,
            '{"article": "…", "question": "…", "answer": "…"}',
            _context_qa,
        ),
        RowFormat(
            "qa",
            (_QUESTIONS, _QA_ANSWERS),
            _SYSTEM,
            '{"question": "…", "answer": "…"}',
            _qa,
        ),
        RowFormat(
            "jeopardy",
            (("question",), ("answer",)),
            ("category",),
            '{"question": "…", "category": "…", "answer": "…"}',
            _jeopardy,
            by_name=True,
        ),
        RowFormat(
            "summary",
            (("article",), ("summary",)),
            _SYSTEM,
            '{"article": "…", "summary": "…"}',
            _summary,
        ),
        RowFormat(
            "input_output",
            (("segments",),),
            (),
            '{"segments": [{"label": false, "text": "…"}, {"label": true, "text": "…"}]}',
            _input_output,
            not_with=("text",),
        ),
        RowFormat("text", (("text",),), (), '{"text": "…"}', _text),
    )
}


@dataclass(frozen=True, slots=True)
class RowSpec:
    """How rows are to be read.

    columns: our name for a field, of the row or of its turns, → the file's name; roles: our name
    for who speaks → the file's; answers: which one of two. Raises DataError with all names that are
    not known.
    """

    data_format: DataFormat = "auto"
    columns: Mapping[str, str] | None = None
    roles: Mapping[str, str] | None = None
    answers: Answers = "chosen"

    def __post_init__(self) -> None:
        names = self.known_names()
        problems = [
            _unknown("field", f"dataset.columns.{name}", name, names)
            for name in self.columns or ()
            if name not in names
        ]
        problems += self._role_problems(names)
        if problems:
            raise DataError("dataset.columns or dataset.roles cannot be used", problems)

    def known_names(self) -> tuple[str, ...]:
        """Fields that a column may be given for."""
        wanted = [FORMATS[self.data_format]] if self.data_format != "auto" else FORMATS.values()
        return tuple(sorted({name for row_format in wanted for name in row_format.fields}))

    def _role_problems(self, names: tuple[str, ...]) -> list[Problem]:
        roles = self.roles or {}
        if roles and "role" not in names:
            message = f"has no effect: a row of format {self.data_format} has no turns"
            return [Problem(message, path="dataset.roles", hint="leave it out")]
        problems = [
            _unknown("role", f"dataset.roles.{role}", role, TURN_ROLES)
            for role in roles
            if role not in TURN_ROLES
        ]
        spoken = [name.strip().lower() for name in roles.values()]
        for name in sorted({name for name in spoken if spoken.count(name) > 1}):
            both = " and ".join(r for r, n in roles.items() if n.strip().lower() == name)
            problems.append(Problem(f'"{name}" is the name of {both}', path="dataset.roles"))
        return problems


def _unknown(what: str, path: str, name: str, names: tuple[str, ...]) -> Problem:
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(names)}"
    return Problem(f"unknown {what}", path=path, hint=hint)


def recognise(record: Record, spec: RowSpec) -> RowFormat | None:
    """The format of a row by its keys; the first of FORMATS that fits.

    Fields that are null count where the row has no format without them, so that a fault can name
    them. A forced format always fits.
    """
    if spec.data_format != "auto":
        return FORMATS[spec.data_format]
    filled = [name for name, value in record.fields.items() if value is not None]
    return _recognised(_keys(filled, spec)) or _recognised(_keys(record.fields, spec))


@lru_cache(maxsize=1024)
def _recognised(keys: frozenset[str]) -> RowFormat | None:
    return next((row_format for row_format in FORMATS.values() if row_format.fits(keys)), None)


def _keys(fields: Iterable[str], spec: RowSpec) -> frozenset[str]:
    return frozenset({str(key).strip().lower() for key in fields}.union(spec.columns or ()))


def to_conversation(record: Record, spec: RowSpec) -> tuple[Conversation, str] | BadRow:
    """A record as a conversation with the name of its format, or every fault that it has."""
    row_format = recognise(record, spec) or _nearest(record, spec)
    if row_format is None:
        return _unrecognised(record)
    row = RowReader(record, spec.columns or {}, row_format.example, spec.roles)
    if spec.answers == "chosen":
        conversation = row_format.parse(row)
    else:
        conversation = _of_pair(row, row_format, spec.answers)
    return row.bad_row() or (conversation, row_format.name)


def _nearest(record: Record, spec: RowSpec) -> RowFormat | None:
    """The format that lacks the fewest fields, so that the message can name them."""
    keys = _keys(record.fields, spec)
    found = {name: row_format.found(keys) for name, row_format in FORMATS.items()}
    near = [row_format for name, row_format in FORMATS.items() if found[name]]
    return max(near, key=lambda f: (found[f.name] - len(f.keys), found[f.name]), default=None)


def _unrecognised(record: Record) -> BadRow:
    keys = ", ".join(str(key) for key in record.fields)[:80] or "no fields"
    names = [str(key) for key in record.fields][:2]
    mapping = ", ".join(f"{o}: {t}" for o, t in zip(("question", "answer"), names, strict=False))
    hint = f"name them, e.g. {FORMATS['qa'].example}; or map them: dataset.columns: {{{mapping}}}"
    message = f"no known format has these fields: {keys}"
    return BadRow(record.source, (Problem(message, where=str(record.source), hint=hint),))
