"""Which tokens of a conversation are trained: those of the answers, each with its end-of-turn
token.

The mask is the prefix difference of the rendered text. For the assistant's turn i, what the
template writes for the turns before it plus the generation prompt is what the model will see; what
it writes beyond that, up to the end of the turn, is what the model must say. No markers in the
template are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from llamafarm.data.rows import Message

Render = Callable[[Sequence[Message], bool], str]
# Two contents that share neither their first nor their last character with each other, nor much
# with real text.
_PROBES = ("\u2460x\u2461", "\u2462x\u2463")


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
    """The rendered conversation, and where its answers are.

    render(messages, add_generation_prompt) -> text.
    """
    text = render(messages, False)
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    return text, tuple(_answer_span(render, messages, i, text) for i in answers)


def _answer_span(render: Render, messages: Sequence[Message], i: int, text: str) -> AnswerSpan:
    prompt = render(messages[:i], True)
    upto = text if i == len(messages) - 1 else render(messages[: i + 1], False)
    as_asked = text.startswith(prompt)
    if as_asked and text.startswith(upto):
        return AnswerSpan(len(prompt), max(len(prompt), len(upto)), exact=True)
    content_start, content_end = _content_in(render, messages, i, text)
    start = len(prompt) if as_asked else content_start
    if text.startswith(upto):
        end = len(upto)
    else:
        ending = _turn_ending(render, messages[: i + 1], upto)
        end = content_end + _common_prefix(ending, text[content_end:])
    exact = as_asked and upto.startswith(text[:end])
    return AnswerSpan(start, max(start, end), exact)


def _content_in(render: Render, messages: Sequence[Message], i: int, text: str) -> tuple[int, int]:
    """Where the text changes with the content of turn i, found by writing something else there."""
    starts, ends = zip(
        *(_changed(text, _with_content(render, messages, i, p)) for p in _PROBES), strict=True
    )
    return min(starts), max(ends)


def _changed(text: str, other: str) -> tuple[int, int]:
    start = _common_prefix(text, other)
    return start, max(start, len(text) - _common_suffix(text, other))


def _turn_ending(render: Render, messages: Sequence[Message], upto: str) -> str:
    """What the template writes after the content of the last of these turns."""
    _, end = _content_in(render, messages, len(messages) - 1, upto)
    return upto[end:]


def _with_content(render: Render, messages: Sequence[Message], i: int, content: str) -> str:
    changed = replace(messages[i], content=content)
    return render([*messages[:i], changed, *messages[i + 1 :]], False)


def _common_prefix(a: str, b: str) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


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
    """Map answers from characters to tokens.

    offsets: int [tokens, 2], characters of each token; special: bool [tokens], special tokens. A
    token belongs to the character that it ends with (its start may be trimmed of a space, and the
    bytes of one character may be several tokens). An answer ends with the first special token
    after which the template writes only special tokens and white space; without one it keeps all
    its tokens.
    """
    trained = np.zeros(len(offsets), dtype=np.bool_)
    last_char = np.maximum.accumulate(offsets[:, 1]) - 1
    end_trained = 0
    for span in spans:
        begin, stop = (int(i) for i in np.searchsorted(last_char, [span.start, span.end]))
        end = _end_token(begin, stop, last_char, special, text)
        if end is not None:
            stop = end + 1
            end_trained += 1
        trained[begin:stop] = True
    trained[:1] = False
    return TokenMask(trained, end_trained)


def _end_token(
    begin: int,
    stop: int,
    last_char: npt.NDArray[np.int64],
    special: npt.NDArray[np.bool_],
    text: str,
) -> int | None:
    """The first special token of those that close tokens begin to stop."""
    found = None
    for token in range(stop - 1, begin - 1, -1):
        if special[token]:
            found = token
        elif text[
            int(last_char[token - 1]) + 1 if token else 0 : int(last_char[token]) + 1
        ].strip():
            break
    return found
