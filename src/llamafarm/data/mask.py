"""Which tokens of a conversation are trained: those of the answers, each with its end-of-turn
token. A call of a tool is an answer; what the tool says is not.

The mask is the prefix difference of the rendered text. For the assistant's turn i, what the
template writes for the turns before it plus the generation prompt is what the model will see; what
it writes beyond that, up to the end of the turn, is what the model must say. No markers in the
template are needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import numpy.typing as npt

from llamafarm.data.rows import Message

Render = Callable[[Sequence[Message], bool], str]
# Where letters are taken from that do not stand in a text.
_FIRST_PROBE_LETTER = 0x2460


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
    answers = [i for i, m in enumerate(messages) if m.role == "assistant" and m.trained]
    return text, tuple(_answer_span(render, messages, i, text) for i in answers)


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
    """trained: bool [tokens]. end_trained: answers whose last trained token ends generation."""

    trained: npt.NDArray[np.bool_]
    end_trained: int


def token_mask(
    offsets: npt.NDArray[np.int64],
    special: npt.NDArray[np.bool_],
    spans: Sequence[AnswerSpan],
    text: str,
) -> TokenMask:
    """The same as `answer_mask` for what tokenizers give.

    offsets: int [tokens, 2], characters of each token (its start may be trimmed of a space, and the
    bytes of one character may be several tokens); special: bool [tokens], special tokens.
    """
    ends = np.maximum.accumulate(offsets[:, 1])
    return answer_mask(ends, lambda token: bool(special[token]), spans, text)


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
    end_trained = 0
    for span in spans:
        begin, stop = bisect_right(ends, span.start), bisect_right(ends, span.end)
        end = _end_token(begin, stop, ends, is_special, text)
        if end is not None:
            others = (token for token in range(end, stop) if not is_special(token))
            stop = next(others, stop)
            end_trained += 1
        trained[begin:stop] = True
    trained[:1] = False
    return TokenMask(trained, end_trained)


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
