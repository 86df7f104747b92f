"""What a trainer's batches really hold, compared with the rows it was given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bench.spec import Row


@dataclass(frozen=True)
class Fed:
    """What one batch held. rows: in order; slots: positions that are computed."""

    rows: tuple[Row, ...]
    slots: int

    @property
    def tokens(self) -> int:
        """Of the conversations."""
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def trained_tokens(self) -> int:
        """Scored predictions."""
        return sum(row.num_trained for row in self.rows)


def packed_length(rows: Sequence[Row], steps: int) -> int:
    """So many tokens a row that the packed rows are about as many as the others' steps."""
    tokens = [len(row.input_ids) for row in rows]
    return max(*tokens, math.ceil(sum(tokens) / steps))


def fed_batches(batches: Iterable[Mapping[str, Any]], max_steps: int) -> list[Fed]:
    """What the model will be given, batch by batch. max_steps 0 or less: all of them."""
    some = islice(batches, max_steps) if max_steps > 0 else batches
    return [Fed(tuple(rows_in(batch)), batch["input_ids"].numel()) for batch in some]


def rows_in(batch: Mapping[str, Any]) -> Iterable[Row]:
    """The conversations of a batch: between padding, or between restarting positions."""
    if "attention_mask" in batch:
        for ids, labels, mask in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"].bool(), strict=True
        ):
            yield Row(tuple(ids[mask].tolist()), tuple(labels[mask].tolist()))
        return
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        yield Row(tuple(ids[start:end]), tuple(labels[start:end]))


def check_fed(rows: Sequence[Row], fed: Sequence[Fed], *, same_order: bool) -> None:
    """Raises ValueError unless the batches hold the given rows, every token and label of them."""
    seen = [row for batch in fed for row in batch.rows]
    given = list(rows)
    if not same_order:
        seen, given = (
            sorted(x, key=lambda row: (row.input_ids, row.labels)) for x in (seen, given)
        )
    if seen != given:
        raise ValueError(f"the trainer feeds {len(seen)} rows that are not the {len(given)} given")
