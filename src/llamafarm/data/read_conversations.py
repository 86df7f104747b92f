"""Conversations of a file, for those that make tokens of them in another way than training."""

from __future__ import annotations

from llamafarm.data.readers import open_source
from llamafarm.data.request import DataRequest
from llamafarm.data.rows import Conversation
from llamafarm.data.scan import Pipeline, conversations, scan, with_system


def read_conversations(request: DataRequest) -> tuple[Conversation, ...]:
    """The rows of the training file as `prepare` would tokenise them, in the file's order.

    What the request says of tokens is not looked at. Raises DataError with all faults of the file.
    """
    source = open_source(request.train_location)
    pipeline = Pipeline.of(request)
    found = scan(source, pipeline, request, request.max_samples)
    rows = conversations(found, pipeline, dict.fromkeys(found.positions, "train"))
    return tuple(with_system(row, request.system_prompt) for _, row in rows)
