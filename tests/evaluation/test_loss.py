"""Loss is per trained token over the whole set."""

from __future__ import annotations

import math

import pytest
import torch

from llamafarm.errors import RunError
from llamafarm.evaluation import loss as module
from llamafarm.evaluation.loss import evaluate_loss
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.models.packed import PackedRow, label_logits, use_packed_attention
from tests.models.test_packed import rows, tiny


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    made = tiny("LlamaConfig")
    use_packed_attention(made)
    return made


def reference(model: torch.nn.Module) -> LossResult:
    return evaluate_loss(model, rows(7), batch_size=1, packed=True, device="cpu")


@pytest.mark.parametrize("batch_size", [2, 3, 7, 50])
def test_the_batch_size_does_not_move_the_loss(model: torch.nn.Module, batch_size: int) -> None:
    result = evaluate_loss(model, rows(7), batch_size=batch_size, packed=True, device="cpu")
    expected = reference(model)
    assert result.loss == pytest.approx(expected.loss, abs=1e-6)
    assert result.by_row.losses == pytest.approx(expected.by_row.losses, abs=1e-5)
    assert (result.correct, result.trained_tokens) == (expected.correct, expected.trained_tokens)


def test_the_loss_is_weighted_by_tokens_not_by_rows(model: torch.nn.Module) -> None:
    result = reference(model)
    counts = [int(rows(7).trained(i).sum()) for i in range(7)]
    weighted = sum(loss * count for loss, count in zip(result.by_row.losses, counts, strict=True))
    assert result.loss == pytest.approx(weighted / sum(counts), abs=1e-9)
    assert result.trained_tokens == sum(counts)


def test_perplexity_is_the_exponential_of_the_loss_and_may_be_infinite() -> None:
    assert LossResult(2.0, 0, 1, RowLosses((2.0,), (1,))).perplexity == math.exp(2)
    assert LossResult(1e6, 0, 1, RowLosses((1e6,), (1,))).perplexity == math.inf


def test_the_mode_of_the_model_and_the_random_state_are_left_as_they_were(
    model: torch.nn.Module,
) -> None:
    model.train()
    state = torch.random.get_rng_state()
    reference(model)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()


def test_progress_counts_rows_and_may_end_the_evaluation(model: torch.nn.Module) -> None:
    seen: list[int] = []

    class EnoughError(Exception):
        pass

    def on_batch(done: int) -> None:
        seen.append(done)
        if done >= 4:
            raise EnoughError

    with pytest.raises(EnoughError):
        evaluate_loss(model, rows(7), batch_size=2, packed=True, device="cpu", on_batch=on_batch)
    assert seen == [2, 4]


def small_memory(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int, error: Exception | None = None
) -> list[int]:
    """Give the evaluation room for so many rows; how many it tried each time."""
    tried: list[int] = []

    def refuses(model: torch.nn.Module, row: PackedRow, *, packed: bool) -> torch.Tensor:
        tried.append(len(row.documents))
        if len(row.documents) > rows_at_once:
            raise error or MemoryError("no room")
        return label_logits(model, row, packed=packed)

    monkeypatch.setattr(module, "label_logits", refuses)
    return tried


def test_rows_that_do_not_fit_are_done_again_in_halves_and_none_is_left_out(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate_loss(model, rows(7), batch_size=7, packed=True, device="cpu")
    tried = small_memory(monkeypatch, 2)
    told: list[tuple[int, str]] = []
    done: list[int] = []
    result = evaluate_loss(
        model,
        rows(7),
        batch_size=7,
        packed=True,
        device="cpu",
        on_batch=done.append,
        on_short_memory=lambda rows, said: told.append((rows, said)),
    )
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert told == [(3, "no room"), (1, "no room")]
    assert done == [1, 2, 3, 4, 5, 6, 7]
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)
    assert result.by_row.losses == pytest.approx(expected.by_row.losses, abs=1e-5)
    assert (result.correct, result.trained_tokens) == (expected.correct, expected.trained_tokens)


def test_rows_that_were_done_are_not_done_again(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def refuses_the_third(model: torch.nn.Module, row: PackedRow, *, packed: bool) -> torch.Tensor:
        tried.append(len(row.documents))
        if len(tried) == 3:
            raise MemoryError
        return label_logits(model, row, packed=packed)

    monkeypatch.setattr(module, "label_logits", refuses_the_third)
    result = evaluate_loss(model, rows(7), batch_size=2, packed=True, device="cpu")
    assert tried == [2, 2, 2, 1, 1, 1]
    assert result.rows == 7


@pytest.mark.parametrize("packed", [True, False])
def test_a_row_that_does_not_fit_alone_is_named_with_what_the_allocator_said(
    model: torch.nn.Module, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 0)
    with pytest.raises(RunError) as failed:
        evaluate_loss(model, rows(7), batch_size=4, packed=packed, device="cpu")
    length = len(rows(7).input_ids(0))
    assert f"{rows(7).source(0)} does not fit even alone ({length} tokens)" in str(failed.value)
    assert "no room" in failed.value.summary
    assert "max_seq_length" in failed.value.hint


def test_an_error_that_is_no_refusal_is_not_tried_again(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = small_memory(monkeypatch, 1, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        evaluate_loss(model, rows(7), batch_size=4, packed=True, device="cpu")
    assert tried == [4]


def test_the_mode_is_left_as_it_was_when_memory_ends_the_evaluation(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 0)
    model.train()
    with pytest.raises(RunError):
        evaluate_loss(model, rows(7), batch_size=4, packed=True, device="cpu")
    assert model.training
    model.eval()
