"""What the trained model itself says, in transformers: the half of the certificate that is given.

It is the model as it was trained: base and adapter, not merged, in float32.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.token_row import Limits, RowTokenizer
from llamafarm.data.turns import is_learnt
from llamafarm.errors import ModelError
from llamafarm.export.contents import Floats

LIKELIEST = 64
# So that one long answer does not stand for all.
_POSITIONS_OF_A_ROW = 32


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest tokens at one position, likeliest first. log_probabilities: natural logarithms
    under the whole vocabulary.
    """

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]

    @property
    def margin(self) -> float:
        """How far the first token is ahead of the second."""
        return self.log_probabilities[0] - self.log_probabilities[1]


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """One question with its answer. messages: up to the answer, as the template takes them;
    predictions: one for each token of answer_ids, made from prompt_ids and the tokens before it.
    """

    source: str
    messages: tuple[Mapping[str, str], ...]
    prompt_text: str
    prompt_ids: tuple[int, ...]
    answer: str
    answer_ids: tuple[int, ...]
    predictions: tuple[Prediction, ...]


def reference_rows(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    max_positions: int,
    max_length: int,
) -> Iterator[ReferenceRow]:
    """Rows of the trained model until max_positions answer tokens are predicted.

    conversations: each is asked up to its last answer; one that is longer than max_length tokens,
    or is a plain text, is passed over.
    """
    render = _Renderer(tokenizer, max_length)
    left = max_positions
    for conversation in conversations:
        if left <= 0:
            return
        asked = render.row(conversation)
        if asked is None:
            continue
        answer_ids = asked.answer_ids[: min(left, _POSITIONS_OF_A_ROW)]
        left -= len(answer_ids)
        yield ReferenceRow(
            str(conversation.source),
            asked.messages,
            asked.prompt_text,
            asked.prompt_ids,
            conversation.messages[-1].content,
            answer_ids,
            _predictions(model, asked.prompt_ids, answer_ids),
        )


def own_answers(
    questions: Sequence[str], answer: Callable[[str], str], system_prompt: str | None
) -> list[Conversation]:
    """Conversations where there are no rows of the user's: general questions, and what the trained
    model answers.
    """
    system = (Message("system", system_prompt),) if system_prompt else ()
    return [
        Conversation(
            RowRef("a question of llamafarm", number),
            (*system, Message("user", question), Message("assistant", answer(question))),
        )
        for number, question in enumerate(questions, start=1)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    messages: tuple[Mapping[str, str], ...]
    prompt_text: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


class _Renderer:
    """Conversations as training rendered them, but for the date: an engine writes today's."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if not tokenizer.chat_template:
            raise ModelError("this model has no chat template", hint="take a trained model instead")
        text = tokenizer.get_chat_template()
        date = datetime.datetime.now() if "strftime_now" in text else TRAINING_DATE
        self._template = ChatTemplate.for_tokenizer(text, tokenizer, date=date)
        self._rows = RowTokenizer(tokenizer, self._template, Limits(max_length))

    def row(self, conversation: Conversation) -> _Asked | None:
        """None where the row has no answer to a question, or none within the length."""
        messages = conversation.messages
        if not messages or conversation.has_tools or not is_learnt(messages[-1]):
            return None
        result = self._rows.encode([conversation])
        if not result.rows or result.rows[0][1].truncated is not None:
            return None
        _, row = result.rows[0]
        starts = np.flatnonzero(np.diff(row.trained.astype(np.int8)) == 1) + 1
        trained = np.flatnonzero(row.trained)
        start, stop = int(starts[-1]), int(trained[-1]) + 1
        turns = self._template.turns(messages[:-1])
        return _Asked(
            tuple({"role": m.role, "content": m.content} for m in turns),
            self._template.render(turns, add_generation_prompt=True),
            tuple(int(i) for i in row.input_ids[:start]),
            tuple(int(i) for i in row.input_ids[start:stop]),
        )


def _predictions(
    model: Any, prompt_ids: Sequence[int], answer_ids: Sequence[int]
) -> tuple[Prediction, ...]:
    """The distributions at the positions that predict the answer, in float32."""
    import torch

    ids = torch.tensor([[*prompt_ids, *answer_ids]], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
        likeliest = torch.log_softmax(logits.float(), dim=-1).topk(min(LIKELIEST, logits.shape[-1]))
    return tuple(
        Prediction(tuple(tokens), tuple(values))
        for tokens, values in zip(
            likeliest.indices.tolist(), likeliest.values.tolist(), strict=True
        )
    )


def trained_weights(model: Any) -> Mapping[str, Floats]:
    """The merged weights by PEFT's own merge, which knows nothing of ours; the model is changed."""
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    return {name: t.detach().float().numpy() for name, t in merged.state_dict().items()}
