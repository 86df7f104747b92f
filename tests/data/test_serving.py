"""How conversations begin and answers end, for templates of many families."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.serving import ServingFacts, serving_facts
from llamafarm.errors import DataError
from tests.data.chat_families import FAMILIES, Family, family_tokenizer


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_end_is_the_one_that_is_trained(family: Family, smollm2_tokenizer_dir: Path) -> None:
    tokenizer = family_tokenizer(family, smollm2_tokenizer_dir)
    facts = serving_facts(tokenizer, family.template)
    assert facts.end_token_id == tokenizer.convert_tokens_to_ids(family.end)
    assert not facts.add_bos, "this tokenizer adds none; where the template writes one, it is text"


@pytest.mark.parametrize(("template_writes_it", "add"), [(True, True), (False, False)])
def test_the_start_token_is_added_only_where_training_saw_it(
    template_writes_it: bool, add: bool, smollm2_tokenizer_dir: Path
) -> None:
    from tokenizers.processors import TemplateProcessing

    family = next(f for f in FAMILIES if f.name == "zephyr")
    tokenizer = copy.deepcopy(family_tokenizer(family, smollm2_tokenizer_dir))
    start = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    template = ("{{ bos_token }}" if template_writes_it else "") + family.template
    assert serving_facts(tokenizer, template).add_bos == add


def test_a_model_without_a_template_begins_and_ends_as_its_tokenizer_does(
    smollm2_tokenizer: Any,
) -> None:
    assert serving_facts(smollm2_tokenizer, None) == ServingFacts(False, 2)


@pytest.mark.parametrize("text", ["{{ messages[0].content }}", "{# nothing #}"])
def test_a_template_that_leaves_out_the_answer_is_refused(
    text: str, smollm2_tokenizer: Any
) -> None:
    with pytest.raises(DataError, match="does not write what the assistant says") as fault:
        serving_facts(smollm2_tokenizer, text)
    assert "chat_template.jinja" in fault.value.hint
