"""Tokenizers: loaded without a repository's code, recognised by what they do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.errors import ModelError
from llamafarm.models.config import sanitised_copy
from llamafarm.models.faults import model_faults

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# End-of-turn tokens of the common chat formats; a token counts only when this tokenizer has it as a
# special one.
_END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_role|>",
    "<|return|>",
    "</s>",
)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a model directory, with its chat template where it has one.

    Raises ModelError when there is none, or only one written in Python.
    """
    from transformers import AutoTokenizer

    summary = f"the tokenizer in {directory} cannot be loaded"
    hint = "there should be tokenizer.json and tokenizer_config.json; download the model again"
    with sanitised_copy(directory) as copy, model_faults(summary, hint=hint):
        tokenizer = AutoTokenizer.from_pretrained(
            copy, trust_remote_code=False, local_files_only=True
        )
    if not getattr(tokenizer, "is_fast", False) or not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(
            f"the tokenizer in {directory} is a slow one ({type(tokenizer).__name__}): it has no "
            "tokenizer.json",
            hint=(
                "take a model that comes with tokenizer.json; a slow one cannot say which tokens "
                "are answers"
            ),
        )
    tokenizer.name_or_path = str(directory)
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of everything that decides which ids a text becomes, and of the chat template."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call asked for, not what the tokenizer is.
    backend |= {"truncation": None, "padding": None}
    parts = {
        "backend": backend,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "chat_template": tokenizer.chat_template,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def end_of_turn_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Ids that end an answer: the end-of-text token first, then the end-of-turn tokens its
    vocabulary has.
    """
    vocabulary = tokenizer.get_added_vocab()
    found = [vocabulary[name] for name in _END_OF_TURN if name in vocabulary]
    if tokenizer.eos_token_id is not None:
        found.insert(0, tokenizer.eos_token_id)
    return tuple(dict.fromkeys(found))
