from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llamafarm.data.rows import Message
from llamafarm.errors import DataError, UserError
from llamafarm.evaluation.generation import Generator
from llamafarm.models.load import load_finished_model

QUESTION = (Message("user", "What is a dog?"),)


@pytest.fixture
def model_and_tokenizer(tiny_model_dir: Path) -> tuple[Any, Any]:
    return load_finished_model(tiny_model_dir)


def _prompt(tokenizer: Any, messages: Sequence[Message]) -> torch.Tensor:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]


def _greedy(model: Any, ids: torch.Tensor, count: int) -> list[int]:
    """Without a cache, one whole forward pass a token."""
    for _ in range(count):
        with torch.no_grad():
            best = model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, best[None, None]], dim=1)
    return ids[0, -count:].tolist()


def _always(model: Any, token: int) -> None:
    """Make the model say one token, whatever it is asked."""
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
        head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
        head.weight.zero_()
        head.bias.zero_()
        head.bias[token] = 10.0
    model.set_output_embeddings(head)


def test_greedy_answers_are_the_likeliest_tokens_after_the_models_own_template(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    model, tokenizer = model_and_tokenizer
    expected = _greedy(model, _prompt(tokenizer, QUESTION), 12)
    answer = Generator(model, tokenizer).generate(QUESTION, max_new_tokens=12)
    assert answer == tokenizer.decode(expected)
    assert answer == Generator(model, tokenizer, seed=5).generate(QUESTION, max_new_tokens=12)


def test_pieces_add_up_to_the_answer(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    pieces: list[str] = []
    answer = Generator(model, tokenizer).generate(
        QUESTION, max_new_tokens=20, on_text=pieces.append
    )
    assert len(pieces) > 5
    assert answer.startswith("".join(pieces))
    assert answer.removeprefix("".join(pieces)).strip("\ufffd") == ""


def test_a_character_of_several_tokens_comes_in_one_piece(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    from llamafarm.evaluation.generation import _TextStreamer

    _, tokenizer = model_and_tokenizer
    pieces: list[str] = []
    streamer = _TextStreamer(tokenizer, pieces.append)
    ids = tokenizer("a 漢字 👍 b<|im_end|>")["input_ids"]
    streamer.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == "a 漢字 👍 b"
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("stop", ["<|im_end|>", "<|endoftext|>"])
def test_an_answer_ends_at_its_end_of_turn(model_and_tokenizer: tuple[Any, Any], stop: str) -> None:
    model, tokenizer = model_and_tokenizer
    _always(model, tokenizer.convert_tokens_to_ids(stop))
    pieces: list[str] = []
    steps: list[int] = []
    model.register_forward_hook(lambda *unused: steps.append(1))
    answer = Generator(model, tokenizer).generate(QUESTION, on_text=pieces.append)
    assert answer == ""
    assert pieces == []
    assert len(steps) == 1


def test_an_answer_that_does_not_end_stops_at_the_limit(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    model, tokenizer = model_and_tokenizer
    token = tokenizer.convert_tokens_to_ids("Ġdog")
    _always(model, token)
    assert Generator(model, tokenizer).generate(QUESTION, max_new_tokens=3) == " dog dog dog"


def test_an_answer_ends_with_the_models_context(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    _always(model, tokenizer.convert_tokens_to_ids("Ġdog"))
    model.config.max_position_embeddings = _prompt(tokenizer, QUESTION).shape[1] + 2
    assert Generator(model, tokenizer).generate(QUESTION, max_new_tokens=50) == " dog dog"


def test_a_prompt_that_fills_the_context_is_refused(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    with pytest.raises(UserError, match="context ends at 512"):
        Generator(model, tokenizer).generate([Message("user", "dog " * 600)])


def test_the_seed_decides_the_draws_and_the_global_random_state_stays(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    model, tokenizer = model_and_tokenizer
    state = torch.get_rng_state()

    def draws(seed: int) -> list[str]:
        generator = Generator(model, tokenizer, seed=seed)
        return [generator.generate(QUESTION, max_new_tokens=8, temperature=1.0) for _ in range(2)]

    first = draws(1)
    assert first == draws(1)
    assert first != draws(2)
    assert first[0] != first[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_follow_the_softmax_of_the_scaled_logits() -> None:
    from llamafarm.evaluation.generation import _GumbelNoise

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    noise = _GumbelNoise(0.7, torch.Generator().manual_seed(0))
    many = logits.expand(40_000, -1)
    counts = torch.bincount(noise(many, many).argmax(-1), minlength=4)
    expected = torch.softmax(logits[0] / 0.7, -1)
    assert torch.allclose(counts / counts.sum(), expected, atol=0.01)


def test_a_high_temperature_changes_the_answer(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    generator = Generator(model, tokenizer)
    greedy = generator.generate(QUESTION, max_new_tokens=8)
    assert generator.generate(QUESTION, max_new_tokens=8, temperature=5.0) != greedy


def test_sampling_defaults_of_the_model_do_not_apply(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    plain = Generator(model, tokenizer).generate(QUESTION, max_new_tokens=12)
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0, top_k=3)
    assert Generator(model, tokenizer).generate(QUESTION, max_new_tokens=12) == plain


def test_a_model_in_training_is_left_as_it_was_found(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    from llamafarm.models.packed import PACKED_ATTENTION, use_packed_attention

    model, tokenizer = model_and_tokenizer
    plain = Generator(model, tokenizer).generate(QUESTION, max_new_tokens=12)
    use_packed_attention(model)
    model.config.use_cache = False
    model.train()
    settings = model.generation_config
    assert Generator(model, tokenizer).generate(QUESTION, max_new_tokens=12) == plain
    assert model.training
    assert model.config.use_cache is False
    assert model.config._attn_implementation == PACKED_ATTENTION
    assert model.generation_config is settings


def test_the_adapter_speaks_in_a_peft_model(model_and_tokenizer: tuple[Any, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer = model_and_tokenizer
    base = Generator(model, tokenizer).generate(QUESTION, max_new_tokens=12)
    torch.manual_seed(0)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=8,
        lora_alpha=512,
        lora_dropout=0.5,
        target_modules=["v_proj"],
        init_lora_weights=False,
    )
    tuned = get_peft_model(model, config)
    tuned.train()
    settings = model.generation_config
    answer = Generator(tuned, tokenizer).generate(QUESTION, max_new_tokens=12)
    assert tuned.training
    assert model.generation_config is settings
    tuned.eval()
    assert answer == tokenizer.decode(_greedy(tuned, _prompt(tokenizer, QUESTION), 12))
    assert answer != base
    with tuned.disable_adapter():
        assert Generator(tuned, tokenizer).generate(QUESTION, max_new_tokens=12) == base


def test_a_model_without_a_template_continues_the_text(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(tiny_model_dir, tmp_path / "plain"))
    (directory / "chat_template.jinja").unlink()
    model, tokenizer = load_finished_model(directory)
    expected = _greedy(model, tokenizer("Once upon", return_tensors="pt")["input_ids"], 6)
    answer = Generator(model, tokenizer).generate([Message("user", "Once upon")], max_new_tokens=6)
    assert answer == tokenizer.decode(expected)


def test_special_tokens_are_written_by_the_template_alone(
    model_and_tokenizer: tuple[Any, Any],
) -> None:
    from tokenizers.processors import TemplateProcessing

    model, tokenizer = model_and_tokenizer
    expected = _prompt(tokenizer, QUESTION)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    assert tokenizer("x")["input_ids"][0] == 1
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    Generator(model, tokenizer).generate(QUESTION, max_new_tokens=1)
    assert torch.equal(seen[0], expected)


def test_a_template_that_fails_is_named(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="roles must alternate"):
        Generator(model, tokenizer).generate(QUESTION)


def test_tokens_can_be_continued_without_a_template(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    ids = _prompt(tokenizer, QUESTION)[0].tolist()
    generator = Generator(model, tokenizer)
    expected = generator.generate(QUESTION, max_new_tokens=5)
    assert generator.continue_tokens(ids, max_new_tokens=5) == expected


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}]
)
def test_settings_that_mean_nothing_are_refused(
    model_and_tokenizer: tuple[Any, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        Generator(*model_and_tokenizer).generate(QUESTION, **options)


def test_nothing_to_answer_is_refused(model_and_tokenizer: tuple[Any, Any]) -> None:
    with pytest.raises(UserError, match="prompt is empty"):
        Generator(*model_and_tokenizer).continue_tokens([])
