"""Which chat template is used; how it renders is the data room's business."""

from __future__ import annotations

from typing import Any

import pytest

from llamafarm.decision import Decision
from llamafarm.errors import StrategyError
from llamafarm.planning.templates import choose_template
from llamafarm.strategy.model import PromptTemplate, Strategy

OWN = "{% for message in messages %}own{% endfor %}"
JINJA = "{% for message in messages %}mine{% endfor %}"
TEXT = "Question: {instruction}\n\nAnswer: {output}"


def choose(own: str | None, *, bos: bool = False, **template: Any) -> tuple[str, list[Decision]]:
    strategy = Strategy(id="s", prompt_template=PromptTemplate(**template))
    return choose_template(strategy, own, tokenizer_adds_bos=bos)


def test_the_models_own_template_is_used() -> None:
    template, (decision,) = choose(OWN)
    assert template == OWN
    assert decision.source == "detected"


def test_a_base_model_without_one_takes_the_strategys() -> None:
    assert choose(None, format=JINJA)[0] == JINJA


def test_a_text_with_fields_becomes_a_chat_template() -> None:
    template, _ = choose(None, format=TEXT)
    assert "messages" in template
    assert "Question: " in template
    assert "eos_token" in template


def test_a_base_model_without_any_takes_the_documented_default_with_a_notice() -> None:
    template, decisions = choose(None)
    assert "### Instruction:" in template
    assert "### Response:" in template
    (notice,) = [d for d in decisions if d.source == "notice"]
    assert "prompt_template.format" in notice.reason


def test_the_start_token_is_written_for_tokenizers_that_add_one() -> None:
    assert "bos_token" in choose(None, bos=True)[0]
    assert "bos_token" not in choose(None)[0]


def test_a_second_template_is_refused_unless_it_is_an_override() -> None:
    with pytest.raises(StrategyError) as caught:
        choose(OWN, format=JINJA)
    assert "`override: true`" in caught.value.problems[0].hint
    template, decisions = choose(OWN, format=JINJA, override=True)
    assert template == JINJA
    assert "is replaced" in next(d.reason for d in decisions if d.source == "warning")


def test_an_override_of_nothing_is_named() -> None:
    _, decisions = choose(OWN, override=True)
    assert "no effect" in next(d.reason for d in decisions if d.source == "warning")


def test_a_text_without_a_place_for_the_answer_is_refused() -> None:
    with pytest.raises(StrategyError) as caught:
        choose(None, format="Question: {instruction}")
    assert caught.value.problems[0].path == "prompt_template.format"
