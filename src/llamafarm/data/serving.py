"""What whoever serves a model has to do as training did: how a conversation begins, how an answer
ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.token_row import Limits, RowTokenizer, adds_bos, special_ids
from llamafarm.errors import DataError

_ROW = Conversation(
    RowRef("probe", 1), (Message("user", "Is it so?"), Message("assistant", "It is."))
)
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class ServingFacts:
    """add_bos: the tokenizer puts its start token before a text, and trained rows begin with it; an
    engine that serves has to add it too. (A template may write a start token that no tokenizer
    adds: that one is part of the text.) end_token_id: the token that is trained to end an answer;
    None where nothing ends one.
    """

    add_bos: bool
    end_token_id: int | None


def serving_facts(tokenizer: Any, chat_template: str | None) -> ServingFacts:
    """Read off a row as training makes it; without a template, off the tokenizer.

    Raises DataError when the template cannot render a question with its answer.
    """
    if not chat_template:
        return ServingFacts(adds_bos(tokenizer), tokenizer.eos_token_id)
    template = ChatTemplate.for_tokenizer(chat_template, tokenizer, date=TRAINING_DATE)
    result = RowTokenizer(tokenizer, template, Limits(_LONGEST)).encode([_ROW])
    if result.bad:
        raise DataError("the chat template renders no conversation", result.bad[0].problems)
    if result.dropped:
        raise DataError(
            "the chat template does not write what the assistant says",
            hint="compare it with the chat_template.jinja of the model's instruct version",
        )
    _, row = result.rows[0]
    last = int(row.input_ids[row.trained][-1])
    ends = last in special_ids(tokenizer)
    begins = row.input_ids[0] == tokenizer.bos_token_id
    return ServingFacts(bool(begins) and adds_bos(tokenizer), last if ends else None)
