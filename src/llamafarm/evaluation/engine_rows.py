"""Rows as llama.cpp reads them: rendered by the file's own template, tokenised by the engine.

Which part of a row is an answer is decided as in training (data/mask.py), on the text that the
engine renders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llamafarm.data.mask import AnswerSpan, answer_spans
from llamafarm.data.report import DroppedRow, TruncatedRow
from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.turns import asked_before, last_answer
from llamafarm.errors import ModelError, RunError
from llamafarm.models.gguf_file import GgufFile
from llamafarm.models.llama_cpp import LlamaCpp

_CONTROL_TOKEN = 3


@dataclass(frozen=True, slots=True)
class ScoredTokens:
    """`token_ids[start:]` are scored, each after all tokens before it."""

    token_ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One row. prompt_ids: what the last answer is asked with; empty for a plain text, and where it
    is longer than the limit.

    prompt, reference: the last question and its answer as text. truncated: where the row is longer
    than the limit.
    """

    source: RowRef
    scored: tuple[ScoredTokens, ...]
    prompt_ids: tuple[int, ...] = ()
    prompt: str = ""
    reference: str = ""
    truncated: TruncatedRow | None = None


class EngineRowMaker:
    """Makes rows with one engine. max_length: tokens, as in training: what is beyond is cut."""

    def __init__(self, engine: LlamaCpp, file: GgufFile, max_length: int) -> None:
        self._engine = engine
        self._max_length = max_length
        self._end_id = file.whole_number("tokenizer.ggml.eos_token_id")
        self._control_texts = _control_texts(file)

    def make(self, conversation: Conversation) -> EngineRow | DroppedRow:
        """The row, or why none of its answers can be scored.

        Raises RunError, with the row's place, where the template refuses the conversation.
        """
        if conversation.segments or conversation.has_tools:
            what = "pieces of text" if conversation.segments else "tools"
            return DroppedRow(conversation.source, f"rows with {what} are not asked of the engine")
        try:
            made = self._row(conversation) if conversation.messages else self._text(conversation)
        except RunError as fault:
            raise RunError(f"{conversation.source}: {fault.summary}", hint=fault.hint) from fault
        return self._limited(made)

    def _text(self, conversation: Conversation) -> EngineRow:
        """A plain text, all of which is scored but its first token, which nothing comes before."""
        ids = self._engine.tokenize(conversation.text)
        return EngineRow(conversation.source, (ScoredTokens(self._with_end(ids), 1),))

    def _row(self, conversation: Conversation) -> EngineRow:
        messages = conversation.messages
        text, spans = answer_spans(self._render, messages)
        scored = [self._answer(text, span) for span in spans]
        prompt_ids = scored[-1].token_ids[: scored[-1].start]
        last = messages[-1]
        if last.role == "assistant" and last.trained and not self._ends(text[: spans[-1].end]):
            scored[-1] = ScoredTokens(self._with_end(scored[-1].token_ids), scored[-1].start)
        answer = last_answer(messages)
        reference = messages[answer].content if answer is not None else ""
        prompt = asked_before(messages, answer)
        return EngineRow(conversation.source, tuple(scored), prompt_ids, prompt, reference)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        turns = [{"role": str(turn.role), "content": turn.content} for turn in messages]
        return self._engine.render(turns, add_generation_prompt=add_generation_prompt)

    def _answer(self, text: str, span: AnswerSpan) -> ScoredTokens:
        """The answer begins where its tokens part from those of its prompt alone: a tokenizer may
        join the end of the prompt with what follows.
        """
        before, answer = text[: span.start], self._up_to_end(text[span.start : span.end])
        prompt, ids = self._engine.tokenize(before), self._engine.tokenize(before + answer)
        same = (i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b)
        return ScoredTokens(ids, max(1, next(same, min(len(prompt), len(ids)))))

    def _up_to_end(self, answer: str) -> str:
        """Without what the template writes after the token that ends the answer."""
        closing = self._closing(answer)
        return answer if closing is None else answer[: closing.start()] + closing[1]

    def _ends(self, text: str) -> bool:
        return self._closing(text) is not None

    def _closing(self, text: str) -> re.Match[str] | None:
        """The control tokens and the white space that a text ends with; group 1 is the first of
        these tokens.
        """
        some = "|".join(re.escape(token) for token in self._control_texts if token in text)
        return re.search(rf"({some})(?:\s|{some})*\Z", text) if some else None

    def _with_end(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """As training does where nothing else ends a row."""
        return ids if self._end_id is None or ids[-1:] == (self._end_id,) else (*ids, self._end_id)

    def _limited(self, row: EngineRow) -> EngineRow | DroppedRow:
        limit = self._max_length
        longest = max(len(part.token_ids) for part in row.scored)
        kept = tuple(
            ScoredTokens(part.token_ids[:limit], part.start)
            for part in row.scored
            if part.start < min(len(part.token_ids), limit)
        )
        if not kept:
            return DroppedRow(row.source, f"no answer among the first {limit:,} tokens")
        if longest <= limit:
            return row
        lost = sum(_count(part) for part in row.scored) - sum(_count(part) for part in kept)
        cut = TruncatedRow(row.source, longest, lost)
        prompt_ids = row.prompt_ids if len(row.prompt_ids) < limit else ()
        return EngineRow(row.source, kept, prompt_ids, row.prompt, row.reference, cut)


def _count(part: ScoredTokens) -> int:
    return len(part.token_ids) - part.start


def _control_texts(file: GgufFile) -> tuple[str, ...]:
    """Texts of the tokens that end a turn, or open one."""
    texts = file.metadata.get("tokenizer.ggml.tokens")
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(texts, list) or not isinstance(kinds, list) or len(texts) != len(kinds):
        raise ModelError(
            f"{file.path} has no vocabulary that goes with its kinds of tokens",
            hint="convert the model to GGUF again, with a current llama.cpp",
        )
    named = zip(texts, kinds, strict=True)
    return tuple(str(text) for text, kind in named if kind == _CONTROL_TOKEN and text)
