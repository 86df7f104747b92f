"""Conversations of a file, for those that make tokens of them in another way than training."""

from __future__ import annotations

from llamafarm.data.clean import content_key
from llamafarm.data.readers import open_source
from llamafarm.data.records import BadRow, FaultList
from llamafarm.data.report import DroppedRow
from llamafarm.data.request import DataRequest, Mixture
from llamafarm.data.rows import Conversation
from llamafarm.data.scan import Dropped, Pipeline, no_rows


def read_conversations(request: DataRequest) -> tuple[Conversation, ...]:
    """The rows of the training file as `prepare` would tokenise them, in the file's order.

    What the request says of tokens is not looked at. Raises DataError with all faults of the file,
    and where no row is left with the first reasons.
    """
    if isinstance(request.train_location, Mixture):
        raise TypeError("one file is read, not a mixture")
    source = open_source(request.train_location)
    pipeline = Pipeline.of(request)
    faults = FaultList(source.name)
    dropped = Dropped()
    found: dict[object, Conversation] = {}
    for item in source.items():
        row = pipeline.read(item)
        if isinstance(row, BadRow):
            if request.skip_bad_rows or (request.filter_empty and row.empty):
                dropped.add_bad(row)
            else:
                faults.add(row)
        elif isinstance(row, DroppedRow):
            dropped.add(row)
        else:
            key = content_key(row.conversation) if request.remove_duplicates else len(found)
            found.setdefault(key, row.conversation)
        if request.max_samples is not None and len(found) >= request.max_samples:
            break
    faults.raise_if_any()
    if not found:
        raise no_rows(source.name, dropped)
    return tuple(pipeline.finished(row) for row in found.values())
