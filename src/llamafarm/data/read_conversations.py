"""Conversations of a file, for those that make tokens of them in another way than training."""

from __future__ import annotations

from llamafarm.data.readers import open_source
from llamafarm.data.records import BadRow, FaultList
from llamafarm.data.request import DataRequest, Mixture
from llamafarm.data.rows import Conversation
from llamafarm.data.scan import GoodRow, Pipeline
from llamafarm.errors import DataError


def read_conversations(request: DataRequest) -> tuple[Conversation, ...]:
    """The rows of the training file as `prepare` would tokenise them, in the file's order.

    What the request says of tokens is not looked at. Raises DataError with all faults of the file.
    """
    if isinstance(request.train_location, Mixture):
        raise TypeError("one file is read, not a mixture")
    source = open_source(request.train_location)
    pipeline = Pipeline.of(request)
    faults = FaultList(source.name)
    found: list[Conversation] = []
    for item in source.items():
        row = pipeline.read(item)
        if isinstance(row, BadRow) and not request.skip_bad_rows:
            faults.add(row)
        elif isinstance(row, GoodRow):
            found.append(pipeline.finished(row.conversation))
    faults.raise_if_any()
    if not found:
        raise DataError(f"{source.name} has no rows that can be used")
    return tuple(found)
