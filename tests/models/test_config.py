from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.config import (
    FORBIDDEN_KEYS,
    load_config,
    sanitised_copy,
    without_forbidden_keys,
)


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_configuration_comes_back_as_it_was_saved(small_model_dir: Path) -> None:
    config = load_config(small_model_dir)
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("llama", 32, 2)
    assert config.name_or_path == str(small_model_dir)


def test_forbidden_keys_are_taken_out_at_any_depth() -> None:
    value = {"a": 1, "auto_map": {}, "text_config": {"b": [{"auto_map": {}, "c": 2}]}}
    assert without_forbidden_keys(value) == {"a": 1, "text_config": {"b": [{"c": 2}]}}
    assert "auto_map" in value


def test_code_in_the_directory_is_never_run(small_model_dir: Path) -> None:
    marker = small_model_dir / "ran"
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass C: pass\n"
    (small_model_dir / "evil.py").write_text(code)
    change_config(
        small_model_dir,
        auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"},
        trust_remote_code=True,
    )
    config = load_config(small_model_dir)
    assert type(config).__name__ == "LlamaConfig"
    assert not hasattr(config, "auto_map")
    assert not marker.exists()


def test_an_attention_kernel_cannot_be_named_by_the_model(small_model_dir: Path) -> None:
    kernel = "someone/kernel-from-the-hub"
    change_config(
        small_model_dir,
        _attn_implementation_internal=kernel,
        _attn_implementation=kernel,
        attn_implementation=kernel,
        _experts_implementation_internal=kernel,
    )
    config = load_config(small_model_dir)
    assert kernel not in json.dumps(config.to_dict())
    assert config._attn_implementation is None


def test_the_copy_holds_small_files_and_neither_weights_nor_code(small_model_dir: Path) -> None:
    for name in ("extra.py", "pytorch_model.bin", "notes.txt"):
        (small_model_dir / name).write_text("x")
    with sanitised_copy(small_model_dir) as copy:
        names = {file.name for file in copy.iterdir()}
    assert not copy.exists()
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "notes.txt"} <= names
    assert not any(name.endswith((".safetensors", ".bin", ".py")) for name in names)


def test_a_model_that_needs_its_own_code_is_refused(small_model_dir: Path) -> None:
    change_config(small_model_dir, model_type="mystery", auto_map={"AutoConfig": "m.C"})
    with pytest.raises(ModelError, match="mystery model, which needs Python code"):
        load_config(small_model_dir)


def test_an_unknown_architecture_says_which_transformers_was_asked(small_model_dir: Path) -> None:
    import transformers

    change_config(small_model_dir, model_type="mystery")
    with pytest.raises(ModelError, match=transformers.__version__) as fault:
        load_config(small_model_dir)
    assert "pip install --upgrade transformers" in fault.value.hint


@pytest.mark.parametrize(
    ("model_type", "architectures"),
    [
        ("t5", ["T5ForConditionalGeneration"]),
        ("vit", ["ViTModel"]),
        ("llama", ["LlamaForSequenceClassification"]),
        ("bert", ["BertForMaskedLM"]),
    ],
)
def test_a_model_that_does_not_generate_text_is_refused(
    tmp_path: Path, model_type: str, architectures: list[str]
) -> None:
    config = {"model_type": model_type, "architectures": architectures}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is not a causal language model") as fault:
        load_config(tmp_path)
    assert architectures[0] in fault.value.summary


def test_weights_that_are_already_quantised_are_refused(small_model_dir: Path) -> None:
    change_config(small_model_dir, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match="already quantised \\(gptq\\)") as fault:
        load_config(small_model_dir)
    assert "qlora" in fault.value.hint


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\x00", '{"a": ' * 20_000])
def test_a_configuration_that_is_no_json_object_is_named(small_model_dir: Path, text: str) -> None:
    (small_model_dir / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_config(small_model_dir)


def test_infinity_in_a_configuration_is_kept(small_model_dir: Path) -> None:
    change_config(small_model_dir, time_step_limit=[0.0, float("inf")])
    assert load_config(small_model_dir).time_step_limit == [0.0, float("inf")]


def test_a_configuration_without_a_model_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}')
    with pytest.raises(ModelError, match="names no model_type"):
        load_config(tmp_path)


def test_a_configuration_with_a_wrong_value_is_named(small_model_dir: Path) -> None:
    change_config(small_model_dir, hidden_size="many")
    with pytest.raises(ModelError, match="not a usable llama configuration"):
        load_config(small_model_dir)


def test_the_keys_that_lead_to_code_are_all_forbidden() -> None:
    assert {"auto_map", "trust_remote_code", "_attn_implementation_internal"} <= FORBIDDEN_KEYS


def test_a_configuration_that_is_nested_without_end_is_refused(small_model_dir: Path) -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    change_config(small_model_dir, deep=deep)
    with pytest.raises(ModelError, match="nested deeper than 100 levels"):
        load_config(small_model_dir)


@pytest.mark.parametrize("found", [{"quant_method": "gptq"}, ["gptq"], "gptq"])
def test_weights_that_are_quantised_further_down_are_refused(
    small_model_dir: Path, found: object
) -> None:
    change_config(small_model_dir, text_config={"quantization_config": found})
    with pytest.raises(ModelError, match="already quantised"):
        load_config(small_model_dir)


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json"])
def test_a_file_that_is_a_link_to_somewhere_else_is_refused(
    small_model_dir: Path, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (small_model_dir / name).unlink(missing_ok=True)
    (small_model_dir / name).symlink_to(secret)
    with pytest.raises(ModelError, match=f"{name} is a link to .*secret.json, outside"):
        load_config(small_model_dir)


def test_links_inside_a_model_and_in_the_cache_of_the_hub_are_followed(
    small_model_dir: Path, tmp_path: Path
) -> None:
    template = small_model_dir / "chat_template.jinja"
    template.rename(small_model_dir / "other.jinja")
    template.symlink_to("other.jinja")
    assert load_config(small_model_dir).hidden_size == 32
    snapshot = tmp_path / "models--org--m" / "snapshots" / "abc"
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(small_model_dir.iterdir()):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert load_config(snapshot).hidden_size == 32
