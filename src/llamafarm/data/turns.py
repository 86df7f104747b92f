"""Which turns of a conversation are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llamafarm.data.rows import Conversation, Message


def only_last_answer(conversation: Conversation) -> Conversation:
    """The same conversation with the last trained turn of the assistant as the only trained one.

    A call of a tool is a turn as any other. Texts without turns stay as they are.
    """
    messages = conversation.messages
    answers = [i for i, message in enumerate(messages) if is_learnt(message)]
    earlier = set(answers[:-1])
    if not earlier:
        return conversation
    kept = (replace(m, trained=False) if i in earlier else m for i, m in enumerate(messages))
    return replace(conversation, messages=tuple(kept))


def last_answer(messages: Sequence[Message]) -> int | None:
    """Index of the last trained turn of the assistant."""
    return max((i for i, turn in enumerate(messages) if is_learnt(turn)), default=None)


def asked_before(messages: Sequence[Message], answer: int | None) -> str:
    """What the user said last before that turn; before the end where there is none."""
    return next((m.content for m in reversed(messages[:answer]) if m.role == "user"), "")


def is_learnt(message: Message) -> bool:
    """Whether a turn is an answer that is trained."""
    return message.role == "assistant" and message.trained
