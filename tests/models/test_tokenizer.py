from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.tokenizer import end_of_turn_tokens, load_tokenizer, tokenizer_fingerprint
from tests.models.conftest import CHAT_TEMPLATE


def test_a_tokenizer_comes_with_its_template_and_outlives_the_copy_it_was_read_from(
    small_model_dir: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(small_model_dir)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.name_or_path == str(small_model_dir)
    tokenizer.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again("what is this")["input_ids"] == tokenizer("what is this")["input_ids"] == [4, 5, 6]
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_a_template_in_tokenizer_config_is_found_too(small_model_dir: Path) -> None:
    (small_model_dir / "chat_template.jinja").unlink()
    file = small_model_dir / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": "{{ 1 }}"}))
    assert load_tokenizer(small_model_dir).chat_template == "{{ 1 }}"


def test_a_model_without_a_template_has_none(small_model_dir: Path) -> None:
    (small_model_dir / "chat_template.jinja").unlink()
    assert load_tokenizer(small_model_dir).chat_template is None


def test_an_adapter_directory_without_config_json_is_enough(small_model_dir: Path) -> None:
    (small_model_dir / "config.json").unlink()
    (small_model_dir / "model.safetensors").unlink()
    assert load_tokenizer(small_model_dir)("dog")["input_ids"] == [8]


def test_tokenizer_code_in_the_directory_is_never_run(small_model_dir: Path) -> None:
    marker = small_model_dir / "ran"
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass T: pass\n"
    (small_model_dir / "evil.py").write_text(code)
    file = small_model_dir / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "trust_remote_code": True}
    file.write_text(json.dumps(settings))
    assert load_tokenizer(small_model_dir)("dog")["input_ids"] == [8]
    assert not marker.exists()


@pytest.mark.parametrize("text", ["{", "{}", '{"version": "1.0", "model": {"type": "none"}}'])
def test_a_damaged_tokenizer_is_named(small_model_dir: Path, text: str) -> None:
    (small_model_dir / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(small_model_dir)


def test_a_missing_tokenizer_is_named(small_model_dir: Path) -> None:
    for file in small_model_dir.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer") as fault:
        load_tokenizer(small_model_dir)
    assert "tokenizer.json" in fault.value.hint


def test_the_fingerprint_follows_vocabulary_template_and_special_tokens(
    small_model_dir: Path,
) -> None:
    tokenizer = load_tokenizer(small_model_dir)
    prints = [tokenizer_fingerprint(tokenizer)]
    tokenizer.chat_template = "other"
    prints.append(tokenizer_fingerprint(tokenizer))
    tokenizer.eos_token = "<|im_end|>"
    prints.append(tokenizer_fingerprint(tokenizer))
    tokenizer.add_tokens(["bird"])
    prints.append(tokenizer_fingerprint(tokenizer))
    assert len(set(prints)) == 4


def test_using_a_tokenizer_does_not_change_its_fingerprint(small_model_dir: Path) -> None:
    tokenizer = load_tokenizer(small_model_dir)
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["dog", "what is this"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before


def test_an_answer_ends_at_the_end_of_text_and_at_the_end_of_a_turn(small_model_dir: Path) -> None:
    assert end_of_turn_tokens(load_tokenizer(small_model_dir)) == (2, 3)


def test_smollm2_ends_its_turns_with_im_end(smollm2_tokenizer: Any) -> None:
    assert end_of_turn_tokens(smollm2_tokenizer) == (2, 0)
