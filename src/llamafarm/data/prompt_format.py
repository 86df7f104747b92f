"""A chat template from a text with {instruction}, {input}, {output}: for base models that have
none.
"""

from __future__ import annotations

import json
import re

from llamafarm.errors import Problem, StrategyError

DEFAULT_PROMPT_FORMAT = (
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n{output}"
)
_FIELD = re.compile(r"\{(system|instruction|input|output)\}")
_VALUES = {
    "system": "ns.system",
    "instruction": "(message['instruction'] or message['content'])",
    "input": "(message['input'] or '')",
}
_GUARDS = {"input": "message['input']", "system": "ns.system"}


def is_jinja(text: str) -> bool:
    """Whether a `prompt_template.format` is a chat template already."""
    return "{%" in text or "{{" in text


def chat_template_from_format(text: str, *, write_bos: bool) -> str:
    """The Jinja chat template that a prompt format stands for.

    A paragraph about {input} or {system} alone is left out of turns that have none. The end-of-text
    token follows {output}. Tools have no place in it. write_bos: begin with the start token, for
    tokenizers that add one to plain text. Raises StrategyError when {instruction} or {output} is
    missing, or {output} is not the last of them.
    """
    _check(text)
    asked, _, tail = text.partition("{output}")
    paragraphs = asked.split("\n\n")
    has_system = "{system}" in asked
    user = "".join(
        _paragraph(paragraph, last=i == len(paragraphs) - 1)
        for i, paragraph in enumerate(paragraphs)
    )
    system = "" if has_system else "{% if ns.system %}{{ ns.system + '\\n\\n' }}{% endif %}"
    end = _literal(tail.rstrip())
    return (
        ("{{ bos_token }}" if write_bos else "")
        + "{% set ns = namespace(system='') %}{% for message in messages %}"
        + "{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}"
        + "{% elif message['role'] == 'user' %}"
        + f"{system}{user}{{% set ns.system = '' %}}"
        + "{% elif message['role'] == 'assistant' %}{{ message['content'] + "
        + end
        + " + eos_token }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}{% endfor %}"
    )


def _check(text: str) -> None:
    fields = _FIELD.findall(text)
    path = "prompt_template.format"
    hint = "e.g. " + json.dumps(DEFAULT_PROMPT_FORMAT)
    missing = [name for name in ("instruction", "output") if name not in fields]
    problems = [Problem(f"{{{name}}} is missing", path=path, hint=hint) for name in missing]
    if not missing and (fields[-1] != "output" or fields.count("output") > 1):
        problems.append(
            Problem("{output} must stand once, after the other fields", path=path, hint=hint)
        )
    if problems:
        raise StrategyError("the prompt format cannot be used", problems)


def _paragraph(text: str, *, last: bool) -> str:
    pieces = _FIELD.split(text if last else text + "\n\n")
    values = [_VALUES[piece] if i % 2 else _literal(piece) for i, piece in enumerate(pieces)]
    written = "{{ " + " + ".join(values) + " }}"
    fields = dict.fromkeys(pieces[1::2])
    guards = [_GUARDS[name] for name in fields if name in _GUARDS]
    if last or "instruction" in fields or not guards:
        return written
    return f"{{% if {' or '.join(guards)} %}}{written}{{% endif %}}"


def _literal(text: str) -> str:
    """A Jinja string constant; Jinja reads Python's escapes."""
    return json.dumps(text, ensure_ascii=False)
