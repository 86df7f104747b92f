"""Conversations to token ids with a mask, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from llamafarm.data.mask import AnswerSpan, answer_spans, token_mask
from llamafarm.data.records import BadRow
from llamafarm.data.report import DroppedRow, TruncatedRow
from llamafarm.data.rows import Conversation, RowRef
from llamafarm.data.templates import ChatTemplate
from llamafarm.errors import DataError, Problem


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
    """A conversation as text, with its answers; for a plain text no spans, and all of it is
    trained.
    """

    conversation: Conversation
    text: str
    spans: tuple[AnswerSpan, ...] = ()


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
        self._template = template
        self._limits = limits
        self._eos: int | None = tokenizer.eos_token_id
        self._bos: int | None = tokenizer.bos_token_id if adds_bos(tokenizer) else None
        self._is_special = np.zeros(len(tokenizer), dtype=np.bool_)
        self._is_special[sorted(special_ids(tokenizer))] = True
        self._unknown: int | None = tokenizer.unk_token_id
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
        if not rendered:
            return result
        texts = [item.text for _, item in rendered]
        encoded = self._tokens_of(texts, return_offsets_mapping=True)
        self._compare_prompts([item for _, item in rendered], encoded["input_ids"], result.counts)
        columns = zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        for (i, item), ids, offsets in columns:
            row = self._row(
                item, np.array(ids, np.int64), np.array(offsets, np.int64), result.counts
            )
            limited = self._limit(row, item)
            if isinstance(limited, DroppedRow):
                result.dropped.append(limited)
            else:
                result.rows.append((i, limited))
        return result

    def _tokens_of(self, texts: Sequence[str], **options: bool) -> Any:
        """The template has written the special tokens: none is added."""
        return self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )

    def _compare_prompts(
        self, items: Sequence[_Rendered], ids: Sequence[list[int]], counts: TokenCounts
    ) -> None:
        """Count rows whose last prompt, tokenised alone as it is when the model is asked, is not
        how the row begins: the tokenizer reads on over the end of the prompt.
        """
        asked = [i for i, item in enumerate(items) if item.spans]
        prompts = [items[i].text[: items[i].spans[-1].start] for i in asked]
        if not prompts:
            return
        for i, prompt in zip(asked, self._tokens_of(prompts)["input_ids"], strict=True):
            counts.answers_other_prompt += ids[i][: len(prompt)] != prompt

    def _render(self, conversation: Conversation) -> _Rendered:
        if not conversation.messages:
            return _Rendered(conversation, conversation.text)
        text, spans = answer_spans(
            lambda messages, prompt: self._template.render(messages, add_generation_prompt=prompt),
            conversation.messages,
        )
        return _Rendered(conversation, text, spans)

    def _row(
        self,
        item: _Rendered,
        ids: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        counts: TokenCounts,
    ) -> TokenRow:
        counts.rows += 1
        counts.unknown_tokens += self._count_unknown(ids)
        counts.rows_with_control_tokens += self._holds_control_text(item.conversation)
        counts.rows_system_moved += self._moves_system(item.conversation)
        if item.conversation.messages:
            ids, trained = self._mask_answers(item, ids, offsets.reshape(-1, 2), counts)
        else:
            ids, trained = self._mask_text(ids, counts)
        counts.tokens += len(ids)
        prompt, answer = _last_exchange(item.conversation)
        return TokenRow(item.conversation.source, ids.astype(np.int32), trained, prompt, answer)

    def _mask_answers(
        self,
        item: _Rendered,
        ids: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        counts: TokenCounts,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        mask = token_mask(offsets, self._is_special[ids], item.spans, item.text)
        counts.answers += len(item.spans)
        counts.answers_end_trained += mask.end_trained
        counts.answers_inexact += sum(not span.exact for span in item.spans)
        if not self._lacks_end(item.conversation, ids[mask.trained]):
            return ids, mask.trained
        if self._eos is None:
            counts.rows_without_end += 1
            return ids, mask.trained
        counts.rows_end_appended += 1
        counts.answers_end_trained += 1
        return np.append(ids, self._eos), np.append(mask.trained, True)

    def _lacks_end(self, conversation: Conversation, trained: npt.NDArray[np.int64]) -> bool:
        """Whether a row ends with an answer after which the template writes nothing that ends
        generation.
        """
        answered = conversation.messages[-1].role == "assistant" and len(trained) > 0
        return answered and not self._is_special[trained[-1]]

    def _mask_text(
        self, ids: npt.NDArray[np.int64], counts: TokenCounts
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """A plain text as the model met it in pretraining: start token where it has one, text, end
        token.
        """
        if self._bos is not None and ids[:1].tolist() != [self._bos]:
            ids = np.insert(ids, 0, self._bos)
        if self._eos is None:
            counts.rows_without_end += 1
        elif ids[-1:].tolist() != [self._eos]:
            ids = np.append(ids, self._eos)
        trained = np.ones(len(ids), dtype=np.bool_)
        trained[:1] = False
        return ids, trained

    def _limit(self, row: TokenRow, item: _Rendered) -> TokenRow | DroppedRow:
        limits, trained_tokens = self._limits, int(row.trained.sum())
        prompt_tokens = len(row.trained) - trained_tokens if item.conversation.messages else 0
        if limits.max_input_length is not None and prompt_tokens > limits.max_input_length:
            over = f"prompt of {prompt_tokens:,} tokens, max_input_length is"
            return DroppedRow(row.source, f"{over} {limits.max_input_length:,}")
        if limits.max_output_length is not None and trained_tokens > limits.max_output_length:
            over = f"answer of {trained_tokens:,} tokens, max_output_length is"
            return DroppedRow(row.source, f"{over} {limits.max_output_length:,}")
        kept = row.trained[: limits.max_length]
        if not kept.any():
            reason = (
                f"no answer among the first {limits.max_length:,} of {len(row.trained):,} tokens"
            )
            return DroppedRow(row.source, reason if trained_tokens else "no token to train on")
        if len(kept) == len(row.trained):
            return row
        lost = trained_tokens - int(kept.sum())
        cut = TruncatedRow(row.source, len(row.trained), lost)
        ids = row.input_ids[: limits.max_length]
        return TokenRow(row.source, ids, kept, row.prompt, row.answer, cut)

    def _count_unknown(self, ids: npt.NDArray[np.int64]) -> int:
        if self._unknown is None or self._unknown == self._eos:
            return 0
        return int(np.count_nonzero(ids == self._unknown))

    def _moves_system(self, conversation: Conversation) -> bool:
        has_system = any(message.role == "system" for message in conversation.messages)
        return has_system and not self._template.takes_system

    def _holds_control_text(self, conversation: Conversation) -> bool:
        texts = [message.content for message in conversation.messages]
        return any(control in text for text in texts for control in self._control_texts)


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


def _control_texts(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens as text, as far as nobody would write them by accident."""
    texts = tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer)))
    return tuple(text for text in texts if text.startswith("<|") or text in ("<s>", "</s>"))


def _last_exchange(conversation: Conversation) -> tuple[str, str]:
    if not conversation.messages:
        return "", conversation.text
    asked = (m.content for m in reversed(conversation.messages) if m.role == "user")
    answered = (m.content for m in reversed(conversation.messages) if m.role == "assistant")
    return next(asked, ""), next(answered, "")


def _bad_row(source: RowRef, fault: DataError) -> BadRow:
    return BadRow(source, (Problem(fault.summary, where=str(source), hint=fault.hint),))
