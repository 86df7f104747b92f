from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from transformers.utils.chat_template_utils import _compile_jinja_template

from llamafarm.data.rows import Message
from llamafarm.export.chat_template import embedded_template, without_generation_tags
from llamafarm.models.llama_cpp import LlamaCpp
from tests.data.chat_families import CHATML, FAMILIES, MULTI, SINGLE, Family
from tests.models.gguf_files import write_llama_gguf

# `ollama create` takes a template of its own for one that is fewer edits away.
OLLAMA_LIMIT = 100

MARKED = """{% for message in messages %}
{%- if message.role == 'assistant' -%}
    {{ '<|im_start|>assistant\\n' }}
    {%- generation -%}
    {{ message.content + '<|im_end|>' }}
    {%- endgeneration %}

{% else %}
  {% generation %}
{{ message.role }}: {{ message.content }}
  {%endgeneration%}
{% endif %}
{% endfor %}
"""
# Names in words, texts and comments are no tags.
LOOKALIKES = (
    "{# {% generation %} marks answers #}\n{{ 'a' }}",
    "{{ '{% generation %}' + \"{% endgeneration %}\" }}",
    "{% raw %}\n {% generation %} {% endraw %}{{ messages[0].role }}",
    "{% set generation = 'x' %} {{ generation }}",
    "{{ 'it\\'s {% generation %}' }}",
)
STARTS = ("", "\n", "\n\n", " ", "  \n", "\t", "x ", "x\n", "{# note #}\n", "\r\n")
ENDS = ("", "\n", "\n\n", "  ", " \n", "x", "x\n", "{# note #}\n")
BODY = "{% for m in messages %}{{ m.content }}{% endfor %}"


def in_transformers(template: str, messages: Sequence[Message] = SINGLE) -> str:
    return str(
        _compile_jinja_template(template).render(
            messages=as_mappings(messages),
            add_generation_prompt=True,
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
        )
    )


def as_mappings(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def roles_of(family: Family) -> Sequence[Message]:
    return SINGLE[:1] if family.name == "gemma" else (MULTI[0], MULTI[1])


@pytest.fixture
def in_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the real engine makes of a template in a GGUF."""
    written = gguf.GGUFWriter.add_chat_template

    def render(template: str, messages: Sequence[Message] = SINGLE[:1]) -> str:
        monkeypatch.setattr(
            gguf.GGUFWriter, "add_chat_template", lambda writer, _: written(writer, template)
        )
        write_llama_gguf(tmp_path / "m.gguf", pre="smollm")
        with LlamaCpp(tmp_path / "m.gguf", context_tokens=128, threads=1) as engine:
            return engine.render(as_mappings(messages))

    return render


@pytest.fixture
def smollm2_template(smollm2_tokenizer_dir: Path) -> str:
    return (smollm2_tokenizer_dir / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_transformers_renders_the_embedded_template_as_the_model_s_own(family: Family) -> None:
    for messages in (SINGLE, SINGLE[:1], roles_of(family)):
        own = in_transformers(family.template, messages)
        assert in_transformers(embedded_template(family.template), messages) == own


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_llama_cpp_renders_it_as_transformers_does(
    family: Family, in_llama_cpp: Callable[..., str]
) -> None:
    messages = roles_of(family)
    expected = in_transformers(family.template, messages)
    # The engine puts the start token in front when it tokenises, not here.
    rendered = in_llama_cpp(embedded_template(family.template), messages)
    assert expected.removeprefix("<|im_start|>") == rendered.removeprefix("<|im_start|>")


def test_the_packaged_model_s_template_keeps_its_system_prompt(
    smollm2_template: str, in_llama_cpp: Callable[..., str]
) -> None:
    embedded = embedded_template(smollm2_template)
    expected = in_transformers(smollm2_template, SINGLE[:1])
    assert "You are a helpful AI assistant named SmolLM" in expected
    assert in_transformers(embedded, SINGLE[:1]) == in_llama_cpp(embedded) == expected


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("end", ENDS)
def test_what_a_template_starts_and_ends_with_is_kept(start: str, end: str) -> None:
    template = start + BODY + end
    assert in_transformers(embedded_template(template)) == in_transformers(template)


@pytest.mark.parametrize("start", STARTS)
def test_llama_cpp_keeps_what_a_template_starts_with(
    start: str, in_llama_cpp: Callable[..., str]
) -> None:
    """Even where it drops it without the comment: `x ` before a statement at the very start."""
    template = start + BODY + "."
    assert in_llama_cpp(embedded_template(template)) == in_transformers(template, SINGLE[:1])


def test_generation_tags_go_and_what_is_rendered_stays(in_llama_cpp: Callable[..., str]) -> None:
    embedded = embedded_template(MARKED)
    assert "{% generation" not in embedded and "{%- generation" not in embedded
    assert in_transformers(embedded, MULTI) == in_transformers(MARKED, MULTI)
    assert in_llama_cpp(embedded, MULTI[:2]) == in_transformers(MARKED, MULTI[:2])


@pytest.mark.parametrize("left", ["", "-"])
@pytest.mark.parametrize("right", ["", "-"])
def test_llama_cpp_trims_around_the_comments_as_around_the_tags(
    left: str, right: str, in_llama_cpp: Callable[..., str]
) -> None:
    opened, closed = f"{{%{left} generation {right}%}}", f"{{%{left} endgeneration {right}%}}"
    template = f"a\n  {opened}\n  b {{{{ messages[0].role }}}} c\n  {closed}\n d"
    assert in_llama_cpp(embedded_template(template)) == in_transformers(template)


@pytest.mark.parametrize("template", LOOKALIKES)
def test_what_only_looks_like_a_generation_tag_stays(template: str) -> None:
    assert without_generation_tags(template) == template
    assert in_transformers(embedded_template(template)) == in_transformers(template)


PIECES = (
    *("\n", "\n\n", " ", "  ", "\t", "text", "\r\n"),
    *("{# note #}", "{#- note -#}", "{{ bos_token }}", "{{- 'a' -}}"),
)
SIGNS = st.sampled_from(("", "-", "+"))


@st.composite
def marked_templates(draw: st.DrawFn) -> str:
    """White space, texts, balanced ifs and generation blocks, with every white-space control."""

    def tag(name: str) -> str:
        return f"{{%{draw(SIGNS)} {name} {draw(SIGNS)}%}}"

    def some(depth: int) -> str:
        parts = []
        for _ in range(draw(st.integers(0, 4))):
            if depth and draw(st.booleans()):
                name, end = draw(
                    st.sampled_from((("generation", "endgeneration"), ("if true", "endif")))
                )
                parts += [tag(name), some(depth - 1), tag(end)]
            else:
                parts.append(draw(st.sampled_from(PIECES)))
        return "".join(parts)

    return some(3)


@settings(max_examples=300, deadline=None)
@given(marked_templates())
def test_no_template_renders_otherwise_once_embedded(template: str) -> None:
    embedded = embedded_template(template)
    assert in_transformers(embedded) == in_transformers(template)
    assert without_generation_tags(embedded) == embedded


@pytest.mark.parametrize("template", [*(family.template for family in FAMILIES), MARKED, ""])
def test_embedding_twice_changes_nothing_more(template: str) -> None:
    once = embedded_template(template)
    assert embedded_template(once) == once


def test_without_the_comment_a_short_template_is_taken_for_another() -> None:
    """The fault that the comment is for."""
    alpaca = CHATML.replace("<|im_start|>", "### ").replace("<|im_end|>", "")
    assert Levenshtein.distance(alpaca, CHATML) < OLLAMA_LIMIT
    assert Levenshtein.distance(embedded_template(alpaca), CHATML) >= OLLAMA_LIMIT


def test_no_near_template_comes_within_reach(smollm2_template: str) -> None:
    """Not even the same template, one without its white space, or one with dots of its own."""
    for template in (smollm2_template, *(family.template for family in FAMILIES)):
        embedded = embedded_template(template)
        near = (template, "".join(template.split()), template[:-40], "·" * 28 + template, "")
        distances = [Levenshtein.distance(embedded, other) for other in near]
        assert min(distances) >= OLLAMA_LIMIT
        assert distances[0] >= 128


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_the_distance_is_at_least_the_difference_in_dots(template: str, other: str) -> None:
    embedded = embedded_template(template)
    bound = embedded.count("·") - other.count("·")
    assert bound >= OLLAMA_LIMIT or other.count("·") > 28
    assert Levenshtein.distance(embedded, other) >= bound


def test_the_comment_promises_ollama_no_abilities() -> None:
    """Ollama looks for such words to tell what a model can do."""
    comment = embedded_template("")
    for word in ("tools", "tool_call", "think", "ipython", "<|"):
        assert word not in comment
