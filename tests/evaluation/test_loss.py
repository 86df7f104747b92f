"""Loss is per trained token over the whole set."""

from __future__ import annotations

import math

import pytest
import torch

from llamafarm.evaluation.loss import LossResult, evaluate_loss
from llamafarm.models.packed import use_packed_attention
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
    assert result.row_losses == pytest.approx(expected.row_losses, abs=1e-5)
    assert (result.correct, result.trained_tokens) == (expected.correct, expected.trained_tokens)


def test_the_loss_is_weighted_by_tokens_not_by_rows(model: torch.nn.Module) -> None:
    result = reference(model)
    counts = [int(rows(7).trained(i).sum()) for i in range(7)]
    weighted = sum(loss * count for loss, count in zip(result.row_losses, counts, strict=True))
    assert result.loss == pytest.approx(weighted / sum(counts), abs=1e-9)
    assert result.trained_tokens == sum(counts)


def test_perplexity_is_the_exponential_of_the_loss_and_may_be_infinite() -> None:
    assert LossResult(2.0, 0, 1, (2.0,)).perplexity == math.exp(2)
    assert LossResult(1e6, 0, 1, (1e6,)).perplexity == math.inf


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
