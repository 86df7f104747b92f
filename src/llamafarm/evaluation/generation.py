"""Answers of a model, in the chat template it was trained with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from llamafarm.data.rows import Message
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.errors import UserError
from llamafarm.models.quiet import quiet_transformers
from llamafarm.models.tokenizer import end_of_turn_tokens
from llamafarm.models.weights import supported_attention


class Generator:
    """Generates answers with one model; the model is left as it was found.

    seed: of the draws at a temperature above 0, on every device the same; greedy answers do not
    depend on it.
    """

    def __init__(self, model: Any, tokenizer: Any, *, seed: int = 0) -> None:
        # The adapters of a PEFT model sit inside its base model, whose settings are the ones that
        # count.
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._tokenizer = tokenizer
        self._stop_ids = list(end_of_turn_tokens(tokenizer))
        self._random = torch.Generator().manual_seed(seed)

    def generate(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The model's answer to a conversation, without its end-of-turn token.

        temperature 0: the likeliest token every time. on_text gets the answer piece by piece, as it
        comes. A model without a chat template continues the messages as plain text. Raises
        UserError when the conversation leaves no room in the model's context, DataError when its
        template fails.
        """
        prompt_ids = self._prompt_ids(messages)
        return self.continue_tokens(
            prompt_ids, max_new_tokens=max_new_tokens, temperature=temperature, on_text=on_text
        )

    def continue_tokens(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        on_text: Callable[[str], None] | None = None,
        max_seconds: float | None = None,
    ) -> str:
        """What follows these tokens, up to the end of the turn, max_new_tokens, max_seconds, or the
        end of the model's context.
        """
        if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
            raise UserError("max_new_tokens has to be at least 1, and temperature at least 0")
        room = self._room_after(len(prompt_ids))
        streamer = _TextStreamer(self._tokenizer, on_text) if on_text is not None else None
        with _generation_mode(self._model), torch.no_grad():
            ids = torch.tensor([list(prompt_ids)], dtype=torch.int64, device=self._model.device)
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self._settings(min(max_new_tokens, room), max_seconds),
                logits_processor=[_GumbelNoise(temperature, self._random)] if temperature else None,
                streamer=streamer,
            )
        return self._text(output[0, len(prompt_ids) :].tolist())

    def _prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        if not self._tokenizer.chat_template:
            text = "\n\n".join(message.content for message in messages)
            return list(self._tokenizer(text)["input_ids"])
        template = ChatTemplate.for_tokenizer(
            self._tokenizer.get_chat_template(), self._tokenizer, date=TRAINING_DATE
        )
        text = template.render(messages, add_generation_prompt=True)
        # The template has written the special tokens already.
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _room_after(self, prompt_length: int) -> int:
        if prompt_length < 1:
            raise UserError("there is nothing to answer: the prompt is empty")
        config = self._model.config.get_text_config(decoder=True)
        context = getattr(config, "max_position_embeddings", None)
        if context is None:
            return 2**31
        if prompt_length >= context:
            raise UserError(
                f"the prompt has {prompt_length:,} tokens, and the model's context ends at "
                f"{context:,}",
                hint="ask something shorter, or start a new conversation",
            )
        return int(context) - prompt_length

    def _settings(self, max_new_tokens: int, max_seconds: float | None) -> GenerationConfig:
        pad = self._tokenizer.pad_token_id
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            max_time=max_seconds,
            use_cache=True,
            eos_token_id=self._stop_ids or None,
            pad_token_id=pad if pad is not None else next(iter(self._stop_ids), None),
        )

    def _text(self, ids: list[int]) -> str:
        ends = [ids.index(stop) for stop in self._stop_ids if stop in ids]
        answer = ids[: min(ends)] if ends else ids
        return str(self._tokenizer.decode(answer, skip_special_tokens=True))


class _GumbelNoise(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Turns the greedy choice into a draw from softmax(logits / temperature).

    The largest of logits / temperature + Gumbel noise is distributed so (Gumbel 1954). The noise
    comes from a generator of our own on the CPU: the global random state, on which a training run
    depends, is not touched.
    """

    def __init__(self, temperature: float, random: torch.Generator) -> None:
        self._temperature = temperature
        self._random = random

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.empty(scores.shape, dtype=torch.float32).exponential_(generator=self._random)
        return scores.float() / self._temperature - noise.log().to(scores.device)


class _TextStreamer(BaseStreamer):  # type: ignore[misc]  # transformers is untyped here
    """Hands on text as soon as its bytes are whole characters."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._decode = DecodeStream(skip_special_tokens=True)
        self._on_text = on_text
        self._prompt_seen = False

    def put(self, value: Tensor) -> None:
        """Called with the prompt first, then with one token at a time."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in value.flatten().tolist():
            text = self._decode.step(self._backend, token)
            if text:
                self._on_text(text)

    def end(self) -> None:
        """Nothing is held back but bytes that never became a character."""


@contextlib.contextmanager
def _generation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode, attention that knows a key-value cache, none of the model's own sampling
    defaults; then back.
    """
    training, generation = model.training, model.generation_config
    attention = model.config._attn_implementation
    plain = supported_attention(model.config, "sdpa")
    with quiet_transformers():
        try:
            model.eval()
            model.generation_config = GenerationConfig()
            if attention != plain:
                model.set_attn_implementation(plain)
            yield
        finally:
            model.train(training)
            model.generation_config = generation
            if attention != plain:
                model.set_attn_implementation(attention)
