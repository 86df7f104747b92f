"""Chat templates in the style of the families in use, each with its special tokens.

end: what is trained after each answer; thinking: whether earlier reasoning is taken out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.data.prompt_format import DEFAULT_PROMPT_FORMAT, chat_template_from_format
from llamafarm.data.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Family:
    """A chat template with the special tokens that it writes."""

    name: str
    template: str
    bos: str
    eos: str
    special: tuple[str, ...]
    end: str
    thinking: bool = False


@functools.cache
def family_tokenizer(family: Family, tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    """The real byte-pair vocabulary with this family's special tokens. Shared: do not change it."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    tokens.add_special_tokens([*family.special, family.bos, family.eos])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token=family.bos, eos_token=family.eos
    )


CHATML = """
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""

LLAMA3 = """
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}
{{- message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

GEMMA = """
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must take turns') }}
{%- endif %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
"""

# The system prompt shows in the last turn of a prompt only: finished conversations lose it.
MISTRAL = """
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}
{%- else %}
{%- set system = '' %}{% set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
{%- if message.role == 'user' %}
{{- '[INST] ' + (system if loop.last else '') + message.content + '[/INST]' }}
{%- else %}
{{- ' ' + message.content | trim + eos_token }}
{%- endif %}
{%- endfor %}
"""

LLAMA2 = """
{%- set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- set ns.system = '<<SYS>>\n' + message.content + '\n<</SYS>>\n\n' %}
{%- elif message.role == 'user' %}
{{- bos_token + '[INST] ' + ns.system + message.content | trim + ' [/INST]' }}
{%- set ns.system = '' %}
{%- else %}
{{- ' ' + message.content | trim + ' ' + eos_token }}
{%- endif %}
{%- endfor %}
"""

ZEPHYR = """
{%- for message in messages %}
{{- '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}
"""

PHI3 = """
{%- for message in messages %}
{{- '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}
"""

# Reasoning stays in the turns after the last question only, where a block for it always stands.
QWEN3 = """
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' %}
{%- set parts = message.content.split('</think>') %}
{%- if loop.index0 > ns.last %}
{%- set thought = parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '' %}
{{- '<think>\n' + thought + '\n</think>\n\n' }}
{%- endif %}
{{- parts[-1].lstrip('\n') }}
{%- else %}
{{- message.content }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

# The generation prompt opens a reasoning block that finished turns do not have.
DEEPSEEK_R1 = """
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content }}
{%- elif message.role == 'user' %}{{ '<|User|>' + message.content }}
{%- else %}{{ '<|Assistant|>' + message.content.split('</think>')[-1] | trim + eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}
"""

BARE = """
{%- for message in messages %}
{{- message.role | capitalize + ': ' + message.content + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""

FAMILIES = (
    Family("chatml", CHATML, "<|im_start|>", "<|im_end|>", (), "<|im_end|>"),
    Family(
        "llama3",
        LLAMA3,
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
    ),
    Family("gemma", GEMMA, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    Family("mistral", MISTRAL, "<s>", "</s>", ("[INST]", "[/INST]"), "</s>"),
    Family("llama2", LLAMA2, "<s>", "</s>", (), "</s>"),
    Family("zephyr", ZEPHYR, "<s>", "</s>", (), "</s>"),
    Family(
        "phi3",
        PHI3,
        "<s>",
        "<|endoftext|>",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        "<|end|>",
    ),
    Family("qwen3", QWEN3, "<|endoftext|>", "<|im_end|>", (), "<|im_end|>", thinking=True),
    Family(
        "deepseek_r1",
        DEEPSEEK_R1,
        "<|begin|>",
        "<|end|>",
        ("<|User|>", "<|Assistant|>"),
        "<|end|>",
        thinking=True,
    ),
    Family("bare", BARE, "<s>", "</s>", (), "</s>"),
    Family(
        "prompt_format",
        chat_template_from_format(DEFAULT_PROMPT_FORMAT, write_bos=True),
        "<s>",
        "</s>",
        (),
        "</s>",
    ),
)

SINGLE = (
    Message("user", "What is a fever?"),
    Message("assistant", "A raised body temperature."),
)
MULTI = (
    Message("system", "Be brief."),
    Message("user", "Is 39 °C a fever?"),
    Message("assistant", "Yes: 39 °C is one 🤒."),
    Message("user", "And 36?"),
    Message("assistant", "No.\n\nThat is normal."),
)
THINKING = (
    Message("user", "Two plus two?"),
    Message("assistant", "<think>\nTwo and two.\n</think>\n\nFour."),
    Message("user", "Sure?"),
    Message("assistant", "<think>\nYes.\n</think>\n\nQuite sure."),
)
CONVERSATIONS = {"single": SINGLE, "multi": MULTI, "thinking": THINKING}
