"""Chat templates of the families in use, each with its special tokens: some written here in their
style, and the real ones as far as a package of the development environment carries them.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.data.prompt_format import DEFAULT_PROMPT_FORMAT, chat_template_from_format
from llamafarm.data.rows import Conversation, Message, RowRef, ToolCall
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.token_row import BatchResult, Limits, RowTokenizer
from llamafarm.data.tokenized import ListRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Tools = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Family:
    """A chat template with the tokens that it writes.

    end: what is trained after each answer; thinking: whether earlier reasoning is taken out.
    """

    name: str
    template: str
    bos: str
    eos: str
    special: tuple[str, ...]
    end: str
    thinking: bool = False

    @property
    def tokens(self) -> Tokens:
        """What is added to the vocabulary."""
        return Tokens(self.bos, self.eos, self.special)


@dataclass(frozen=True)
class Tokens:
    """What a vocabulary calls special, and other tokens that it has whole."""

    bos: str
    eos: str
    special: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


def family_tokenizer(family: Family | RealFamily, tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    """The real byte-pair vocabulary with this family's special tokens. Shared: do not change it."""
    return _tokenizer(family.tokens, tokenizer_dir)


@functools.cache
def _tokenizer(added: Tokens, tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    tokens.add_special_tokens([*added.special, added.bos, added.eos])
    tokens.add_tokens(list(added.whole))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token=added.bos, eos_token=added.eos
    )


def encode(
    template: str, tokenizer: Any, messages: Sequence[Message], *, tools: Tools = ()
) -> BatchResult:
    """One conversation through the tokenizer that training uses."""
    chat = ChatTemplate.for_tokenizer(template, tokenizer, date=TRAINING_DATE)
    rows = RowTokenizer(tokenizer, chat, Limits(max_length=4096))
    return rows.encode([Conversation(RowRef("r.jsonl", 1), tuple(messages), tools=tuple(tools))])


def rows_of(result: BatchResult) -> ListRows:
    """The rows of a batch in which nothing went wrong."""
    assert not result.bad and not result.dropped
    return ListRows([(row.input_ids.tolist(), row.trained.tolist()) for _, row in result.rows])


def trained_runs(rows: ListRows) -> list[tuple[int, int]]:
    """First token and end of every run of trained tokens of the first row."""
    runs, start = [], 0
    for on, run in groupby(rows.trained(0).tolist()):
        stop = start + len(list(run))
        if on:
            runs.append((start, stop))
        start = stop
    return runs


def trained_texts(rows: ListRows, tokenizer: Any) -> list[str]:
    """The text of every run of trained tokens of the first row."""
    ids = rows.input_ids(0).tolist()
    return [tokenizer.decode(ids[start:stop]) for start, stop in trained_runs(rows)]


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


@dataclass(frozen=True)
class Marks:
    """What the {% generation %} marks of a template hold of an answer beyond what is trained here.

    before, after: in front of it and behind its end; last: behind the end of the last one.
    thinking, empty: before, in the conversations of these names; call: both, in that of this name.
    rewritten: conversations that the copy of the template with the marks writes differently.
    """

    before: str = ""
    after: str = ""
    last: str | None = None
    thinking: tuple[str, ...] | None = None
    empty: tuple[str, ...] | None = None
    call: tuple[tuple[str, str], ...] = ()
    rewritten: tuple[str, ...] = ()

    def around(self, conversation: str, answers: int) -> list[tuple[str, str]]:
        """Before and after every answer of a conversation."""
        if conversation == "call" and self.call:
            return list(self.call)
        named = {"thinking": self.thinking, "empty": self.empty}
        before = named.get(conversation) or (self.before,) * answers
        after = [self.after] * answers
        after[-1] = self.after if self.last is None else self.last
        return list(zip(before, after, strict=True))


@dataclass(frozen=True)
class RealFamily:
    """A template that the wheel of TRL carries, with the tokens of its models.

    end: what is trained after an answer; earlier_end: after all answers but the last; call_end:
    after a call. marks: None where there is no copy with marks; marked: its name. thinking, calls:
    whether it knows reasoning, and tools.
    """

    name: str
    tokens: Tokens
    end: str
    marks: Marks | None = None
    thinking: bool = False
    calls: bool = False
    earlier_end: str | None = None
    call_end: str | None = None
    marked: str = ""

    def ends(self, messages: Sequence[Message]) -> list[str]:
        """What ends each answer."""
        answers = [m for m in messages if m.role == "assistant"]
        earlier = self.end if self.earlier_end is None else self.earlier_end
        call = earlier if self.call_end is None else self.call_end
        ends = [call if m.tool_calls else earlier for m in answers]
        return [*ends[:-1], self.end]

    @property
    def template(self) -> str:
        """As the models ship it."""
        return _trl_template(self.name)

    @property
    def marked_template(self) -> str:
        """With marks, and on the day that training uses: apply_chat_template takes no date."""
        text = _trl_template(self.marked or f"{self.name}_training")
        if "strftime_now" not in text:
            return text
        return f"{{%- macro strftime_now(_) -%}}{TRAINING_DATE:%Y-%m-%d}{{%- endmacro -%}}{text}"


@functools.cache
def _trl_template(name: str) -> str:
    """A file of the installed package; importing TRL would take seconds."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.submodule_search_locations, "the dev group installs trl"
    root = Path(spec.submodule_search_locations[0])
    return (root / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def _all(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_THINK = ("<think>", "</think>")
_TOOL = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_LLAMA3 = Tokens(
    "<|begin_of_text|>",
    "<|eot_id|>",
    _all("<|start_header_id|> <|end_header_id|> <|eom_id|> <|python_tag|>"),
)
_GEMMA = Tokens("<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"))
_GEMMA4 = Tokens(
    "<bos>",
    "<eos>",
    _all(
        "<|turn> <turn|> <|channel> <channel|> <|think|> <|tool> <tool|> <|tool_call> <tool_call|> "
        "<|tool_response> <tool_response|>"
    ),
)
_PHI3 = Tokens("<s>", "<|endoftext|>", _all("<|user|> <|assistant|> <|system|> <|end|>"))
_CHATML = Tokens("<|endoftext|>", "<|im_end|>", whole=(*_TOOL, *_THINK))
_GLM = Tokens(
    "[gMASK]",
    "<|endoftext|>",
    _all("<sop> <|user|> <|assistant|> <|system|> <|observation|>"),
    (*_TOOL, *_THINK),
)
_GPT_OSS = Tokens(
    "<|startoftext|>",
    "<|return|>",
    _all("<|start|> <|end|> <|message|> <|channel|> <|constrain|> <|call|>"),
)
_DEEPSEEK = Tokens(
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    _all(
        "<｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> "
        "<｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> "
        "<｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
    ),
    _THINK,
)
_COHERE = Tokens(
    "<BOS_TOKEN>",
    "<|END_OF_TURN_TOKEN|>",
    _all(
        "<|START_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> "
        "<|START_RESPONSE|> <|END_RESPONSE|>"
    ),
)
_LFM2 = Tokens(
    "<|startoftext|>",
    "<|im_end|>",
    _all(
        "<|tool_call_start|> <|tool_call_end|> <|tool_list_start|> <|tool_list_end|> "
        "<|tool_response_start|> <|tool_response_end|>"
    ),
)
_MUSE = Tokens("<|begin_of_text|>", "<|eot|>", _all("<|start|> <|message|> <|eom|>"))

_ALL = ("single", "system", "multi", "thinking", "empty")
_REASONED = ("multi", "thinking")
_OPENED = ("<think>\n", "<think>\n")
_LINE = Marks(after="\n")
REAL_FAMILIES = (
    RealFamily("llama3", _LLAMA3, "<|eot_id|>", Marks()),
    RealFamily("llama3_1", _LLAMA3, "<|eot_id|>", calls=True),
    RealFamily("llama3_2", _LLAMA3, "<|eot_id|>", calls=True),
    RealFamily("gemma", _GEMMA, "<end_of_turn>", _LINE),
    RealFamily("gemma3", _GEMMA, "<end_of_turn>", _LINE),
    # A call ends with the token that asks for the tool's answer.
    RealFamily(
        "gemma4_v5", _GEMMA4, "<turn|>", calls=True, call_end="<tool_call|><|tool_response>"
    ),
    RealFamily("diffusion_gemma", _GEMMA4, "<turn|>", _LINE),
    RealFamily("phi3", _PHI3, "<|end|>", Marks("", "\n", "\n<|endoftext|>")),
    RealFamily("phi3_5", _PHI3, "<|end|>", Marks("", "\n", "\n<|endoftext|>")),
    RealFamily("qwen2_5", _CHATML, "<|im_end|>", Marks("\n", "\n"), calls=True),
    RealFamily("qwen3_instruct_2507", _CHATML, "<|im_end|>", _LINE, calls=True),
    # The copies with marks of these keep the reasoning of earlier answers.
    RealFamily(
        "qwen3",
        _CHATML,
        "<|im_end|>",
        Marks("", "\n", rewritten=(*_REASONED, "call")),
        thinking=True,
        calls=True,
    ),
    # Its generation prompt opens the reasoning. Where there is none, the newline that this ends
    # with and the one that is to be said are one token, which is trained.
    RealFamily(
        "qwen3_5_think",
        _CHATML,
        "<|im_end|>",
        Marks("<think>", "\n", thinking=_OPENED, rewritten=_REASONED),
        thinking=True,
        calls=True,
    ),
    RealFamily(
        "qwen3_5_nothink",
        _CHATML,
        "<|im_end|>",
        Marks("<think>\n\n</think>\n\n", "\n", thinking=_OPENED, rewritten=_REASONED),
        thinking=True,
        calls=True,
    ),
    RealFamily(
        "nemotron_3_nano",
        _CHATML,
        "<|im_end|>",
        Marks(
            "<think></think>",
            "\n",
            thinking=("<think></think>", "<think>\n"),
            empty=("<think>",),
        ),
        thinking=True,
        calls=True,
    ),
    # What ends an answer is the start of the next turn, which the copy with marks writes early.
    RealFamily(
        "glm4moe",
        _GLM,
        "<|endoftext|>",
        Marks(rewritten=(*_ALL, "call")),
        thinking=True,
        calls=True,
        earlier_end="",
    ),
    # An answer that is asked for ends with <|return|>: the <|end|> of finished turns is not learnt.
    RealFamily(
        "gptoss",
        _GPT_OSS,
        "<|return|>",
        Marks(
            "<|start|>assistant",
            "<|end|>",
            last="",
            call=(("<|start|>assistant", ""), ("<|start|>assistant", "")),
        ),
        calls=True,
        earlier_end="",
        call_end="<|call|>",
    ),
    # The generation prompt opens the reasoning, which the template takes out of all answers.
    RealFamily(
        "deepseek_r1_distill",
        _DEEPSEEK,
        "<｜end▁of▁sentence｜>",
        Marks(
            "<｜Assistant｜>",
            thinking=("<｜Assistant｜><think>\n",) * 2,
            empty=("<｜Assistant｜><think>",),
            rewritten=("thinking", "empty"),
        ),
        thinking=True,
    ),
    RealFamily(
        "deepseekv3", _DEEPSEEK, "<｜end▁of▁sentence｜>", Marks("<｜Assistant｜>"), thinking=True
    ),
    RealFamily("cohere", _COHERE, "<|END_OF_TURN_TOKEN|>", Marks()),
    RealFamily("cohere2", _COHERE, "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", Marks()),
    RealFamily("lfm2", _LFM2, "<|im_end|>", _LINE),
    RealFamily("lfm2_v2", _LFM2, "<|im_end|>", _LINE, calls=True),
    RealFamily(
        "lfm2_2_5_v2",
        _LFM2,
        "<|im_end|>",
        _LINE,
        thinking=True,
        calls=True,
        marked="lfm2_2_5_v2",
    ),
    RealFamily("muse_glimmer", _MUSE, "<|eot|>", Marks("<|start|>assistant"), calls=True),
)
REAL_CONVERSATIONS = {
    "single": SINGLE,
    "system": (Message("system", "Be brief."), *SINGLE),
    "multi": MULTI,
    "thinking": THINKING,
    "empty": (
        Message("user", "Two plus two?"),
        Message("assistant", "<think>\n\n</think>\n\nFour."),
    ),
    "call": (
        Message("user", "Is it warm in Rome?"),
        Message("assistant", "", tool_calls=(ToolCall("get_weather", {"city": "Rome"}),)),
        Message("tool", '{"degrees": 12}', name="get_weather"),
        Message("assistant", "No: 12 °C."),
    ),
}
TOOLS: Tools = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather now.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name."}},
                "required": ["city"],
            },
        },
    },
)


def conversations_of(family: RealFamily) -> dict[str, tuple[Message, ...]]:
    """Those with reasoning, and with calls, only for families that know them."""
    names = (*(_ALL if family.thinking else _ALL[:3]), *(["call"] if family.calls else []))
    return {name: REAL_CONVERSATIONS[name] for name in names}


def tools_of(messages: Sequence[Message]) -> Tools:
    """The tools that a conversation may call."""
    return TOOLS if any(message.tool_calls for message in messages) else ()
