"""Which tokens of a conversation are trained: those of the answers, each with its end-of-turn
token. A call of a tool is an answer; what the tool says is not.

The mask is the prefix difference of the rendered text. For the assistant's turn i, what the
template writes for the turns before it plus the generation prompt is what the model will see; what
it writes beyond that, up to the end of the turn, is what the model must say. No markers in the
template are needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import numpy.typing as npt

from llamafarm.data.rows import Message
from llamafarm.data.turns import is_learnt

Render = Callable[[Sequence[Message], bool], str]
# Where letters are taken from that do not stand in a text.
_FIRST_PROBE_LETTER = 0x2460
# Answers of a long conversation that are rendered one by one before the others are read off the
# text, and how many of them have to be written in the same way.
_RENDERED_ANSWERS = 8
_AGREEING_ANSWERS = 4


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """Characters start to end of the rendered text: one answer, with what the template writes to
    end the turn.

    exact: when it is asked, the model sees precisely text[:start] and is to say text[start:end].
    Not so where the template leaves its generation prompt out of finished turns, or rewrites
    earlier turns.
    """

    start: int
    end: int
    exact: bool


def answer_spans(render: Render, messages: Sequence[Message]) -> tuple[str, tuple[AnswerSpan, ...]]:
    """The rendered conversation, and where those of its answers are that are trained.

    render(messages, add_generation_prompt) -> text.
    """
    text = render(messages, False)
    answers = [i for i, message in enumerate(messages) if is_learnt(message)]
    if len(answers) > _RENDERED_ANSWERS:
        return text, _many_spans(render, messages, answers, text)
    return text, tuple(_answer_span(render, messages, i, text) for i in answers)


def _many_spans(
    render: Render, messages: Sequence[Message], answers: Sequence[int], text: str
) -> tuple[AnswerSpan, ...]:
    """Answers of a long conversation: rendering the prompt of each takes time that grows with the
    square of their number. So where some are found to be written in the same way, those after them
    that stand in the text in just this way are taken as they stand. The last is always rendered.
    """
    spans: dict[int, AnswerSpan] = {}
    exchange: _Exchange | None = None
    for i, message in enumerate(messages[: answers[-1]]):
        if message.role != "assistant":
            continue
        if len(spans) == _RENDERED_ANSWERS:
            exchange = _common_exchange(text, messages, spans)
        found = exchange and exchange.find(text, messages, i, spans.get(i - 2))
        spans[i] = found or _answer_span(render, messages, i, text)
    spans[answers[-1]] = _answer_span(render, messages, answers[-1], text)
    return tuple(spans[i] for i in answers)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """How a template writes a question and its answer behind another answer: both as they are, but
    for white space around them, and between the same words each time.

    asked: before and after the question; said: before and after the answer, inside its span; exact:
    as of AnswerSpan.
    """

    asked: tuple[str, str]
    said: tuple[str, str]
    exact: bool

    def find(
        self, text: str, messages: Sequence[Message], i: int, last: AnswerSpan | None
    ) -> AnswerSpan | None:
        """Answer i, if it and its question are written so behind the answer before it."""
        if last is None or messages[i - 1].role != "user" or messages[i].tool_calls:
            return None
        if messages[i].content[-1:].isspace():
            return None  # what follows the answer may begin with the same white space
        asked = self.asked[0] + messages[i - 1].content.strip() + self.asked[1]
        said = self.said[0] + messages[i].content.strip() + self.said[1]
        if not text.startswith(asked + said, last.end):
            return None
        start = last.end + len(asked)
        return AnswerSpan(start, start + len(said), self.exact)


def _common_exchange(
    text: str, messages: Sequence[Message], spans: Mapping[int, AnswerSpan]
) -> _Exchange | None:
    """The one way in which the last of these answers are written, if it is one."""
    latest = list(spans)[-_AGREEING_ANSWERS:]
    ways = {_exchange(text, messages, i, spans) for i in latest}
    return ways.pop() if len(ways) == 1 else None


def _exchange(
    text: str, messages: Sequence[Message], i: int, spans: Mapping[int, AnswerSpan]
) -> _Exchange | None:
    last, span = spans.get(i - 2), spans[i]
    if last is None or messages[i - 1].role != "user" or messages[i].tool_calls:
        return None
    asked = _around_words(text[last.end : span.start], messages[i - 1].content)
    said = _around_words(text[span.start : span.end], messages[i].content)
    return _Exchange(asked, said, span.exact) if asked and said else None


def _around_words(text: str, words: str) -> tuple[str, str] | None:
    before, found, after = text.partition(words.strip()) if words.strip() else ("", "", "")
    return (before, after) if found else None


def _answer_span(render: Render, messages: Sequence[Message], i: int, text: str) -> AnswerSpan:
    prompt = render(messages[:i], True)
    upto = text if i == len(messages) - 1 else render(messages[: i + 1], False)
    as_asked = text.startswith(prompt)
    if as_asked and text.startswith(upto):
        return AnswerSpan(len(prompt), max(len(prompt), len(upto)), exact=True)
    said = _said_in(render, messages, i, text)
    if said is None:
        nothing = len(prompt) if as_asked else len(text)
        return AnswerSpan(nothing, nothing, exact=False)
    opening, ending = _around(render, messages[: i + 1], upto)
    before, after = text[: said[0]], text[said[1] :]
    start = len(prompt) if as_asked else said[0] - _common_suffix(opening, before)
    end = len(upto) if text.startswith(upto) else said[1] + _common_prefix(ending, after)
    exact = as_asked and upto.startswith(text[:end])
    return AnswerSpan(start, max(start, end), exact)


def _said_in(
    render: Render, messages: Sequence[Message], i: int, text: str
) -> tuple[int, int] | None:
    """Where the text changes with what turn i says, found by writing something else there; None
    where the template leaves it out.

    Of a call the arguments are looked for: its name may be written again with the tool's answer,
    and words beside it in another place.
    """
    others = [render(_saying(messages, i, probe), False) for probe in _probes(text)]
    if text in others:
        return None
    start = min(_common_prefix(text, other) for other in others)
    end = len(text) - min(_common_suffix(text[start:], other[start:]) for other in others)
    return start, end


def _around(render: Render, messages: Sequence[Message], upto: str) -> tuple[str, str]:
    """What the template writes around what the last of these turns says: what opens a call, which
    is for the model to say too (nothing before words), and all that follows.
    """
    i = len(messages) - 1
    said = _said_in(render, messages, i, upto)
    if said is None:
        return "", ""
    opening = 0
    if messages[i].tool_calls:
        spoken = replace(messages[i], content=_probes(upto)[0], tool_calls=())
        begin = _common_prefix(upto, render([*messages[:i], spoken], False))
        opening = max(0, said[0] - begin)
    return upto[said[0] - opening : said[0]], upto[said[1] :]


def _saying(messages: Sequence[Message], i: int, probe: str) -> list[Message]:
    turn = messages[i]
    calls = tuple(replace(call, arguments={probe: probe}) for call in turn.tool_calls)
    changed = replace(turn, tool_calls=calls) if calls else replace(turn, content=probe)
    return [*messages[:i], changed, *messages[i + 1 :]]


def _probes(text: str) -> tuple[str, str]:
    """Two words of letters that do not stand in the text, nor in each other."""
    letters = (chr(code) for code in count(_FIRST_PROBE_LETTER) if chr(code) not in text)
    a, b, c, d = islice(letters, 4)
    return f"{a}x{b}", f"{c}x{d}"


def _common_prefix(a: str, b: str) -> int:
    """Length of what both begin with."""
    same, most = 0, min(len(a), len(b))
    while same < most:
        middle = (same + most + 1) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _common_suffix(a: str, b: str) -> int:
    return _common_prefix(a[::-1], b[::-1])


@dataclass(frozen=True, slots=True)
class TokenMask:
    """trained: bool [tokens]. ends: the last trained token of each answer in which a token that
    ends generation is trained.
    """

    trained: npt.NDArray[np.bool_]
    ends: tuple[int, ...]


def answer_mask(
    ends: npt.NDArray[np.int64],
    is_special: Callable[[int], bool],
    spans: Sequence[AnswerSpan],
    text: str,
) -> TokenMask:
    """Map answers from characters to tokens.

    ends: int [tokens], characters that each token and those before it cover; is_special: whether
    the token at this position is a special one. A token belongs to the character that it ends
    with. An answer ends with the first special token after which the template writes only special
    tokens and white space, and with those that follow it at once; without one it keeps all its
    tokens.
    """
    trained = np.zeros(len(ends), dtype=np.bool_)
    found: list[int] = []
    for span in spans:
        begin, stop = bisect_right(ends, span.start), bisect_right(ends, span.end)
        end = _end_token(begin, stop, ends, is_special, text)
        if end is not None:
            others = (token for token in range(end, stop) if not is_special(token))
            stop = next(others, stop)
            found.append(stop - 1)
        trained[begin:stop] = True
    trained[:1] = False
    return TokenMask(trained, tuple(found))


def _end_token(
    begin: int,
    stop: int,
    ends: npt.NDArray[np.int64],
    is_special: Callable[[int], bool],
    text: str,
) -> int | None:
    """The first special token of those that close tokens begin to stop."""
    found = None
    for token in range(stop - 1, begin - 1, -1):
        if is_special(token):
            found = token
        elif text[ends[token - 1] if token else 0 : ends[token]].strip():
            break
    return found
