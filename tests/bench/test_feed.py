"""What a trainer's batches hold, padded or end to end."""

from __future__ import annotations

import pytest
import torch
from bench.feed import Fed, check_fed, fed_batches, packed_length, rows_in
from bench.spec import Row

FIRST = Row((5, 6, 7), (-100, 6, 7))
SECOND = Row((8, 2), (-100, 2))
PADDED = {
    "input_ids": torch.tensor([[5, 6, 7], [8, 2, 2]]),
    "labels": torch.tensor([[-100, 6, 7], [-100, 2, -100]]),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
}
FLAT = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 2]]),
    "labels": torch.tensor([[-100, 6, 7, -100, 2]]),
    "position_ids": torch.tensor([[0, 1, 2, 0, 1]]),
}


def test_rows_are_found_again_in_padded_and_in_flat_batches() -> None:
    assert list(rows_in(PADDED)) == [FIRST, SECOND]
    assert list(rows_in(FLAT)) == [FIRST, SECOND]


def test_padding_counts_as_positions_and_not_as_tokens() -> None:
    padded, flat = fed_batches([PADDED, FLAT], max_steps=0)
    assert (padded.slots, padded.tokens, padded.trained_tokens) == (6, 5, 3)
    assert (flat.slots, flat.tokens, flat.trained_tokens) == (5, 5, 3)


def test_only_the_batches_that_are_trained_on_are_read() -> None:
    assert len(fed_batches([PADDED, FLAT, FLAT], max_steps=2)) == 2


def test_rows_in_another_order_are_refused_unless_they_may_be_regrouped() -> None:
    fed = [Fed((SECOND,), 2), Fed((FIRST,), 3)]
    check_fed([FIRST, SECOND], fed, same_order=False)
    with pytest.raises(ValueError, match="not the 2 given"):
        check_fed([FIRST, SECOND], fed, same_order=True)


def test_a_lost_label_is_noticed() -> None:
    unlabelled = Row(SECOND.input_ids, (-100, -100))
    with pytest.raises(ValueError, match="not the 1 given"):
        check_fed([SECOND], [Fed((unlabelled,), 2)], same_order=False)


def test_packed_rows_hold_a_steps_tokens_and_never_cut_a_conversation() -> None:
    rows = [Row((1,) * length, (1,) * length) for length in (10, 10, 10, 10)]
    assert packed_length(rows, steps=2) == 20
    assert packed_length([*rows, Row((1,) * 99, (1,) * 99)], steps=5) == 99
