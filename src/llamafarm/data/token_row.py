"""Conversations to token ids with a mask, a batch at a time."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from llamafarm.data.mask import AnswerSpan, answer_mask, answer_spans
from llamafarm.data.records import BadRow
from llamafarm.data.report import DroppedRow, TruncatedRow
from llamafarm.data.rows import Conversation, Message, RowRef, Segment
from llamafarm.data.templates import ChatTemplate
from llamafarm.data.text_tokens import TextTokenizer, TextTokens
from llamafarm.data.turns import asked_before, is_learnt, last_answer
from llamafarm.errors import DataError, Problem

Mask = npt.NDArray[np.bool_]

# Characters of what was cut off that are shown.
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """In tokens. max_length cuts a row; the others drop rows with a longer prompt or answer."""

    max_length: int
    max_input_length: int | None = None
    max_output_length: int | None = None


@dataclass(slots=True)
class TokenCounts:
    """What happened while rows became tokens; counts of rows, answers or tokens as named."""

    rows: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    answers: int = 0
    answers_end_trained: int = 0
    answers_inexact: int = 0
    answers_other_prompt: int = 0
    rows_end_appended: int = 0
    rows_without_end: int = 0
    rows_with_control_tokens: int = 0
    rows_system_moved: int = 0

    def add(self, other: TokenCounts) -> None:
        """Sum, field by field."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row ready to be written.

    prompt, answer: last question and answer, for samples and messages.
    """

    source: RowRef
    input_ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    prompt: str
    answer: str
    truncated: TruncatedRow | None = None


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A conversation as text, with its trained answers; none for a text that no template wrote."""

    conversation: Conversation
    text: str
    spans: tuple[AnswerSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class _Masked:
    """Tokens of a row. ends: where answers are trained to their end, the last token of each;
    start_added: the tokenizer's start token stands before what was rendered.
    """

    ids: Sequence[int]
    trained: Mask
    ends: Sequence[int] = ()
    start_added: bool = False


@dataclass(slots=True)
class BatchResult:
    """Rows in the order they were given; a row that cannot be used is named in dropped or bad
    instead.
    """

    rows: list[tuple[int, TokenRow]] = field(default_factory=list)
    dropped: list[DroppedRow] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    counts: TokenCounts = field(default_factory=TokenCounts)


class RowTokenizer:
    """A chat template, a fast tokenizer and limits, put together.

    Holds no state between batches.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, limits: Limits) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise DataError(
                "the tokenizer of this model has no fast version, which tells each token's place",
                hint="use a model directory that holds tokenizer.json",
            )
        self._tokenizer = tokenizer
        self._texts = TextTokenizer(tokenizer)
        self._template = template
        self._limits = limits
        self._eos: int | None = tokenizer.eos_token_id
        self._bos: int | None = tokenizer.bos_token_id if adds_bos(tokenizer) else None
        self._special = frozenset(special_ids(tokenizer))
        self._unknown: int | None = tokenizer.unk_token_id
        self._splitting = _splitting_ids(tokenizer)
        self._control_texts = _control_texts(tokenizer)

    def encode(self, conversations: Sequence[Conversation]) -> BatchResult:
        """Tokens and masks of a batch."""
        result = BatchResult()
        rendered: list[tuple[int, _Rendered]] = []
        for i, conversation in enumerate(conversations):
            try:
                rendered.append((i, self._render(conversation)))
            except DataError as fault:
                result.bad.append(_bad_row(conversation.source, fault))
        tokens = self._texts.encode([item.text for _, item in rendered])
        self._compare_prompts([item for _, item in rendered], tokens, result.counts)
        for (i, item), found in zip(rendered, tokens, strict=True):
            counts = result.counts
            answers = counts.answers
            masked = self._masked(item, found, counts)
            limited = self._limit(self._row(item, found, masked), item, found, masked)
            if isinstance(limited, DroppedRow):
                counts.answers = answers
                result.dropped.append(limited)
            else:
                counts.answers_end_trained += sum(e < len(limited.trained) for e in masked.ends)
                result.rows.append((i, limited))
        return result

    def _render(self, conversation: Conversation) -> _Rendered:
        if conversation.messages:
            render = self._template.renderer(conversation.tools)
            return _Rendered(conversation, *answer_spans(render, conversation.messages))
        if conversation.segments:
            text = "".join(segment.text for segment in conversation.segments)
            return _Rendered(conversation, text)
        return _Rendered(conversation, conversation.text)

    def _compare_prompts(
        self, items: Sequence[_Rendered], tokens: Sequence[TextTokens], counts: TokenCounts
    ) -> None:
        """Count rows whose last prompt, tokenised alone as it is when the model is asked, is not
        how the row begins: the tokenizer reads on over the end of the prompt.
        """
        pairs = zip(items, tokens, strict=True)
        asked = [(found.ids, *self._prompt_end(item, found)) for item, found in pairs if item.spans]
        texts = list(dict.fromkeys(text for _, _, text in asked))
        alone = dict(zip(texts, self._texts.ids(texts), strict=True))
        for ids, first, text in asked:
            counts.answers_other_prompt += ids[first : first + len(alone[text])] != alone[text]

    def _prompt_end(self, item: _Rendered, tokens: TextTokens) -> tuple[int, str]:
        """The row's last special token before its last answer, and the prompt from there on.

        A tokenizer splits a text at its special tokens before anything else: what stands before one
        has no part in how the rest is read. So it is enough to compare what follows, and that is
        the same in most rows.
        """
        end = item.spans[-1].start
        first = bisect_right(tokens.ends, end) - 1
        while first > 0 and tokens.ids[first] not in self._splitting:
            first -= 1
        if first <= 0:
            return 0, item.text[:end]
        return first, item.text[tokens.ends[first - 1] : end]

    def _masked(self, item: _Rendered, tokens: TextTokens, counts: TokenCounts) -> _Masked:
        conversation = item.conversation
        counts.rows += 1
        counts.rows_with_control_tokens += self._holds_control_text(conversation)
        counts.rows_system_moved += self._moves_system(conversation)
        if self._unknown is not None and self._unknown != self._eos:
            counts.unknown_tokens += tokens.ids.count(self._unknown)
        if conversation.messages:
            masked = self._mask_answers(item, tokens, counts)
        elif conversation.segments:
            masked = self._mask_segments(conversation.segments, tokens, counts)
        else:
            masked = self._mask_text(tokens.ids, counts)
        counts.tokens += len(masked.ids)
        return masked

    def _row(self, item: _Rendered, tokens: TextTokens, masked: _Masked) -> TokenRow:
        conversation = item.conversation
        prompt, answer = self._last_exchange(conversation, masked.ids, masked.trained)
        same = len(masked.ids) == len(tokens.array)
        input_ids = tokens.array if same else np.array(masked.ids, dtype=np.int32)
        return TokenRow(conversation.source, input_ids, masked.trained, prompt, answer)

    def _mask_answers(self, item: _Rendered, tokens: TextTokens, counts: TokenCounts) -> _Masked:
        ids = tokens.ids
        mask = answer_mask(tokens.ends, lambda t: ids[t] in self._special, item.spans, item.text)
        counts.answers += len(item.spans)
        counts.answers_inexact += sum(not span.exact for span in item.spans)
        as_rendered = _Masked(ids, mask.trained, mask.ends)
        if len(mask.ends) == len(item.spans) or not self._lacks_end(item, ids, mask.trained):
            return as_rendered
        if self._eos is None:
            counts.rows_without_end += 1
            return as_rendered
        counts.rows_end_appended += 1
        return _Masked([*ids, self._eos], np.append(mask.trained, True), (*mask.ends, len(ids)))

    def _lacks_end(self, item: _Rendered, ids: Sequence[int], trained: Mask) -> bool:
        """Whether a row ends with a trained answer after which the template writes nothing that
        ends generation.
        """
        if not is_learnt(item.conversation.messages[-1]):
            return False
        answered = np.flatnonzero(trained)
        return len(answered) > 0 and ids[answered[-1]] not in self._special

    def _mask_segments(
        self, segments: Sequence[Segment], tokens: TextTokens, counts: TokenCounts
    ) -> _Masked:
        """The pieces as they are, read as one text; a start token where the tokenizer has one.

        Nothing is appended: a piece that is to end with an end token has to say so. The last
        trained token counts as the end of an answer.
        """
        piece_ends = list(accumulate(len(segment.text) for segment in segments))
        trained = np.zeros(len(tokens.ids), dtype=np.bool_)
        for segment, begin, end in zip(segments, [0, *piece_ends], piece_ends, strict=False):
            if segment.trained:
                trained[bisect_right(tokens.ends, begin) : bisect_right(tokens.ends, end)] = True
        ids = self._with_start(tokens.ids)
        trained = np.concatenate([np.zeros(len(ids) - len(trained), np.bool_), trained])
        trained[:1] = False
        last = [int(token) for token in np.flatnonzero(trained)[-1:]]
        counts.answers += len(last)
        ends = [token for token in last if ids[token] in self._special]
        return _Masked(ids, trained, ends, start_added=len(ids) > len(tokens.ids))

    def _mask_text(self, rendered: list[int], counts: TokenCounts) -> _Masked:
        """A plain text as the model met it in pretraining: start token where it has one, text, end
        token.
        """
        ids = self._with_start(rendered)
        start_added = len(ids) > len(rendered)
        if self._eos is None:
            counts.rows_without_end += 1
        elif ids[-1:] != [self._eos]:
            ids = [*ids, self._eos]
        trained = np.ones(len(ids), dtype=np.bool_)
        trained[:1] = False
        return _Masked(ids, trained, start_added=start_added)

    def _with_start(self, ids: list[int]) -> list[int]:
        if self._bos is None or ids[:1] == [self._bos]:
            return ids
        return [self._bos, *ids]

    def _limit(
        self, row: TokenRow, item: _Rendered, found: TextTokens, masked: _Masked
    ) -> TokenRow | DroppedRow:
        limits, tokens = self._limits, len(row.trained)
        trained_tokens = int(np.count_nonzero(row.trained))
        is_text = not (item.conversation.messages or item.conversation.segments)
        prompt_tokens = 0 if is_text else tokens - trained_tokens
        if limits.max_input_length is not None and prompt_tokens > limits.max_input_length:
            over = f"prompt of {prompt_tokens:,} tokens, max_input_length is"
            return DroppedRow(row.source, f"{over} {limits.max_input_length:,}", "prompt too long")
        if limits.max_output_length is not None and trained_tokens > limits.max_output_length:
            over = f"answer of {trained_tokens:,} tokens, max_output_length is"
            return DroppedRow(row.source, f"{over} {limits.max_output_length:,}", "answer too long")
        kept = row.trained[: limits.max_length]
        if not kept.any():
            reason = f"no answer among the first {limits.max_length:,} of {tokens:,} tokens"
            reason = reason if trained_tokens else "no token to train on"
            return DroppedRow(row.source, reason, "nothing trained")
        if len(kept) == tokens:
            return row
        lost = trained_tokens - int(np.count_nonzero(kept))
        of_text = min(limits.max_length - masked.start_added, len(found.ends))
        cut_off = item.text[found.ends[of_text - 1] :]
        cut = TruncatedRow(row.source, tokens, lost, " ".join(cut_off.split())[:_SHOWN])
        ids = row.input_ids[: limits.max_length]
        starts = np.flatnonzero(np.diff(row.trained.astype(np.int8)) == 1)
        # Of a last answer that is not there any more, nobody can ask for.
        is_asked = len(starts) > 0 and int(starts[-1]) + 1 < limits.max_length
        return TokenRow(row.source, ids, kept, row.prompt if is_asked else "", row.answer, cut)

    def _moves_system(self, conversation: Conversation) -> bool:
        if self._template.takes_system:
            return False
        return any(message.role == "system" for message in conversation.messages)

    def _holds_control_text(self, conversation: Conversation) -> bool:
        """In what was said; pieces of text are meant to hold some."""
        return any(
            control in text
            for message in conversation.messages
            for text in _said(message)
            # All of them begin so: with most texts there is nothing more to do.
            if "<" in text
            for control in self._control_texts
        )

    def _last_exchange(
        self, conversation: Conversation, ids: Sequence[int], trained: Mask
    ) -> tuple[str, str]:
        """The last trained answer, and what was asked before it."""
        if messages := conversation.messages:
            last = last_answer(messages)
            asked = asked_before(messages, last)
            if last is None:
                return asked, ""
            calls = bool(messages[last].tool_calls)
            return asked, self._last_run(ids, trained) if calls else messages[last].content
        if conversation.segments:
            return _last_pieces(conversation.segments)
        return "", conversation.text

    def _last_run(self, ids: Sequence[int], trained: Mask) -> str:
        """The tokens of the last answer as text: calls have no other."""
        stop = int(np.flatnonzero(trained)[-1]) + 1 if trained.any() else 0
        untrained = np.flatnonzero(~trained[:stop])
        run = ids[int(untrained[-1]) + 1 : stop] if len(untrained) else ids[:stop]
        return str(self._tokenizer.decode(run, skip_special_tokens=True)).strip()


def _said(message: Message) -> Sequence[str]:
    calls = [json.dumps(call.arguments, ensure_ascii=False) for call in message.tool_calls]
    return (message.content, *calls)


def _last_pieces(segments: Sequence[Segment]) -> tuple[str, str]:
    """The last run of trained pieces, and the run before it."""
    runs = [
        (on, "".join(s.text for s in run)) for on, run in groupby(segments, lambda s: s.trained)
    ]
    trained = [i for i, (on, _) in enumerate(runs) if on]
    if not trained:
        return "".join(text for _, text in runs), ""
    last = trained[-1]
    return runs[last - 1][1] if last else "", runs[last][1]


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins a plain text with its start token."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that can end a turn: special tokens, whether they have a role or were only added as
    special.
    """
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _splitting_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the special tokens at which the tokenizer splits a text, whatever stands beside them.

    The unknown token is left out: words become it too.
    """
    added = tokenizer.added_tokens_decoder.items()
    found = {i for i, token in added if token.special and not token.single_word}
    return frozenset(found - {tokenizer.unk_token_id})


def _control_texts(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens as text, as far as nobody would write them by accident."""
    texts = tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer)))
    return tuple(text for text in texts if text.startswith("<|") or text in ("<s>", "</s>"))


def _bad_row(source: RowRef, fault: DataError) -> BadRow:
    return BadRow(source, (Problem(fault.summary, where=str(source), hint=fault.hint),))
