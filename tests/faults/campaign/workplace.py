"""Where the campaign trains: a model of a few thousand weights, 60 rows, and strategies that differ
in what a resume has to bring back. A whole run takes about a second, and saves many times.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 24
SAVE_STEPS = 3
EVAL_STEPS = 4
_ROWS = 60
_HIDDEN = 16
_INTERMEDIATE = 32
_SPECIAL = ("<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LORA = {"type": "lora", "r": 4, "alpha": 8, "dropout": 0.1}
_FULL = {"type": "full_finetune"}
_TRAINING_ARGS: Mapping[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 3e-2,
    "eval_steps": EVAL_STEPS,
    "save_steps": SAVE_STEPS,
    "save_total_limit": 2,
    "logging_steps": 1,
    "early_stopping_patience": 0,
    "report_to": "none",
    "mixed_precision": "no",
}
# Every one of them brings something else back: the adapter, all weights, the schedule, the counter
# of early stopping, batches that are prepared ahead.
_STRATEGIES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "lora": (_LORA, {"lr_scheduler_type": "cosine"}),
    "full": (_FULL, {"lr_scheduler_type": "linear"}),
    "early": (
        _FULL,
        {"lr_scheduler_type": "constant", "learning_rate": 0.3, "early_stopping_patience": 1},
    ),
    "workers": (_LORA, {"lr_scheduler_type": "linear", "dataloader_num_workers": 2}),
    "whole_epochs": (_LORA, {"lr_scheduler_type": "constant", "max_steps": 30}),
    # As few steps as hold two saves, a rotation and an evaluation that is not the best.
    "short": (_LORA, {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "save_total_limit": 1}),
    # Three saves: the disk refuses the second, after a good one, and the run can still end.
    "disk": (_LORA, {"max_steps": 6, "eval_steps": 2, "save_steps": 2}),
    "soak": (
        {"type": "lora", "r": 2, "alpha": 4, "dropout": 0.0},
        {
            "max_steps": 2000,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "eval_steps": 500,
            # What is logged is kept for the curves, so that it would be seen to grow.
            "logging_steps": 1000,
        },
    ),
}


@dataclass(frozen=True)
class Workplace:
    """A directory with a model, data and strategies.yaml; runs go into `runs`."""

    root: Path

    @property
    def env(self) -> dict[str, str]:
        """What a run needs to know of it: prepared data is made once, and what is kept of a defect
        is kept here.
        """
        return {
            "LLAMAFARM_CACHE": str(self.root / "cache"),
            "LLAMAFARM_STATE": str(self.root / "state"),
        }

    def out(self, name: str) -> Path:
        """The run directory of that name."""
        return self.root / "runs" / name

    def train(self, strategy: str, name: str, *more: str) -> tuple[str, ...]:
        """The command line of a run."""
        return ("train", "--strategy", strategy, "--output", str(self.out(name)), *more)


def make_workplace(root: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Workplace:
    """Write everything into an empty or absent directory. changes: training_args by strategy."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "runs").mkdir()
    _write_model(root / "model")
    rows = _rows(_ROWS, random.Random(7))
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "strategies.yaml").write_text(json.dumps(_strategies(root / "model", changes or {})))
    return Workplace(root)


def _strategies(model: Path, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """JSON is YAML."""
    made: dict[str, Any] = {"version": "2.0"}
    for name, (method, arguments) in _STRATEGIES.items():
        config = {
            "base_model": str(model),
            "method": dict(method),
            "training_args": {**_TRAINING_ARGS, **arguments, **changes.get(name, {})},
        }
        made[name] = {
            "name": name,
            "components": {"fine_tuner": {"type": "pytorch", "config": config}},
            "dataset": {"train_file": "data.jsonl"},
        }
    return made


def _rows(count: int, chance: random.Random) -> list[dict[str, str]]:
    """Short questions, each with an answer that can be learned from it."""
    words = ["red", "green", "blue", "one", "two", "six", "up", "down", "left", "cat", "dog", "owl"]
    rows = []
    for number in range(count):
        picked = chance.sample(words, chance.randint(2, 5))
        rows.append({"question": f"{number} {' '.join(picked)}", "answer": " ".join(picked[::-1])})
    return rows


def _write_model(directory: Path) -> None:
    """A Llama as transformers saves it, made without torch: importing that takes seconds."""
    import numpy as np
    from safetensors.numpy import save_file

    directory.mkdir()
    vocabulary = _write_tokenizer(directory)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": _HIDDEN // 2,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
        "dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config))
    chance = np.random.default_rng(3)
    shapes = {
        "model.embed_tokens.weight": (vocabulary, _HIDDEN),
        "model.layers.0.self_attn.q_proj.weight": (_HIDDEN, _HIDDEN),
        "model.layers.0.self_attn.k_proj.weight": (_HIDDEN // 2, _HIDDEN),
        "model.layers.0.self_attn.v_proj.weight": (_HIDDEN // 2, _HIDDEN),
        "model.layers.0.self_attn.o_proj.weight": (_HIDDEN, _HIDDEN),
        "model.layers.0.mlp.gate_proj.weight": (_INTERMEDIATE, _HIDDEN),
        "model.layers.0.mlp.up_proj.weight": (_INTERMEDIATE, _HIDDEN),
        "model.layers.0.mlp.down_proj.weight": (_HIDDEN, _INTERMEDIATE),
    }
    norms = ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm")
    tensors = {n: chance.normal(0, 0.05, s).astype(np.float32) for n, s in shapes.items()}
    tensors |= {f"model.{name}.weight": np.ones(_HIDDEN, np.float32) for name in norms}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(directory: Path) -> int:
    """Bytes, as GPT-2 writes them, and two special tokens; how many there are."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _SPECIAL[1],
        "pad_token": _SPECIAL[1],
        "chat_template": _TEMPLATE,
        "model_max_length": 256,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary) + len(_SPECIAL)


def strategy_names() -> Sequence[str]:
    """Those whose runs are as long as a test's: what the kills are spread over."""
    return ("lora", "full", "early", "workers", "whole_epochs")
