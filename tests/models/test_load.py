from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from llamafarm.errors import HardwareError, ModelError, RunError
from llamafarm.models.load import (
    base_of_adapter,
    find_model_directory,
    load_base_model,
    load_finished_model,
)
from llamafarm.models.record import RECORD_FILE, ModelRecord
from llamafarm.models.resolve import resolve_model
from llamafarm.models.source import ModelSource
from llamafarm.models.weights import supported_attention
from llamafarm.planning.plan import QuantizationPlan
from llamafarm.strategy.model import BaseModelSpec
from tests.models.test_config import change_config

pytestmark = pytest.mark.usefixtures("cache_dir")
IDS = torch.tensor([[4, 5, 6, 7, 8]])


def _source(directory: Path) -> ModelSource:
    return resolve_model(BaseModelSpec(id=str(directory)), working_directory=directory)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture
def run_dir(small_model_dir: Path, tmp_path: Path) -> Path:
    """A run directory as training leaves it: a LoRA adapter as final_model, two checkpoints."""
    from peft import LoraConfig, get_peft_model

    source = _source(small_model_dir)
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(load_base_model(source, dtype="float32", device="cpu"), config)
    final = tmp_path / "run/final_model"
    model.save_pretrained(final)
    change_adapter(final, base_model_name_or_path=source.name)
    record = ModelRecord(base_requested=source.requested, base_fingerprint=source.fingerprint)
    (final / RECORD_FILE).write_bytes(record.to_bytes())
    for file in (*small_model_dir.glob("tokenizer*"), small_model_dir / "chat_template.jinja"):
        shutil.copy(file, final)
    for step in (9, 10):
        shutil.copytree(final, tmp_path / f"run/checkpoints/checkpoint-{step}")
    return tmp_path / "run"


def change_adapter(directory: Path, **changes: Any) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_base_model_is_loaded_in_the_type_that_was_asked_for(small_model_dir: Path) -> None:
    model = load_base_model(_source(small_model_dir), dtype="bfloat16", device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert model.config.use_cache is True


def test_the_cache_can_be_left_out_for_training(small_model_dir: Path) -> None:
    source = _source(small_model_dir)
    model = load_base_model(
        source, dtype="float32", device="cpu", use_cache=False, attn_implementation="eager"
    )
    assert model.config.use_cache is False
    assert model.config._attn_implementation == "eager"
    assert model(IDS).past_key_values is None


def test_architectures_without_fused_attention_get_the_plain_one() -> None:
    from transformers import AutoConfig

    assert supported_attention(AutoConfig.for_model("llama"), "sdpa") == "sdpa"
    assert supported_attention(AutoConfig.for_model("gpt_oss"), "sdpa") == "eager"


def test_a_missing_weight_is_an_error_not_a_random_number(small_model_dir: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = small_model_dir / "model.safetensors"
    state = load_file(file)
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"1 weight missing \(model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_base_model(_source(small_model_dir), dtype="float32", device="cpu")


def test_weights_of_another_shape_are_an_error(small_model_dir: Path) -> None:
    change_config(small_model_dir, intermediate_size=48)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base_model(_source(small_model_dir), dtype="float32", device="cpu")


def test_a_damaged_weight_file_is_named(small_model_dir: Path) -> None:
    file = small_model_dir / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as fault:
        load_base_model(_source(small_model_dir), dtype="float32", device="cpu")
    assert "download it again" in fault.value.hint


def test_too_little_memory_is_a_failed_run_not_a_damaged_file(
    small_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(RunError, match="does not fit into the memory of cpu"):
        load_base_model(_source(small_model_dir), dtype="float32", device="cpu")


def test_loading_prints_nothing(small_model_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = _source(small_model_dir)
    capfd.readouterr()
    load_base_model(source, dtype="float32", device="cpu")
    assert capfd.readouterr() == ("", "")


def test_progress_bars_are_as_before_afterwards(small_model_dir: Path) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    load_base_model(_source(small_model_dir), dtype="float32", device="cpu")
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize(
    "name",
    [".", "final_model", "checkpoints/checkpoint-9", "checkpoints/checkpoint-10"],
)
def test_an_adapter_is_found_in_everything_that_a_run_leaves(run_dir: Path, name: str) -> None:
    model, tokenizer = load_finished_model(run_dir / name)
    assert "lora" in {name.split("_")[0] for _, m in model.named_modules() for name in m._modules}
    assert not model.training
    assert tokenizer("dog")["input_ids"] == [8]


def test_an_adapter_changes_what_its_base_says(run_dir: Path, small_model_dir: Path) -> None:
    tuned, _ = load_finished_model(run_dir)
    base, _ = load_finished_model(small_model_dir)
    assert not torch.allclose(_logits(tuned), _logits(base))
    with tuned.disable_adapter():
        assert torch.equal(_logits(tuned), _logits(base))


def test_an_adapter_equals_what_stock_peft_makes_of_it(
    run_dir: Path, small_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    stock = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(small_model_dir), run_dir / "final_model"
    )
    assert torch.equal(_logits(load_finished_model(run_dir)[0]), _logits(stock))


def test_an_adapter_is_not_put_on_other_weights(run_dir: Path, small_model_dir: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = small_model_dir / "model.safetensors"
    state = {name: tensor + 1e-6 for name, tensor in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was trained on other weights") as fault:
        load_finished_model(run_dir)
    assert str(small_model_dir) in fault.value.summary
    assert fault.value.exit_code == 2


def test_an_adapter_of_another_tool_is_put_on_the_base_it_names(
    run_dir: Path, small_model_dir: Path
) -> None:
    (run_dir / "final_model" / RECORD_FILE).unlink()
    assert base_of_adapter(run_dir / "final_model").directory == small_model_dir.resolve()


def test_a_relative_base_starts_beside_the_adapter(run_dir: Path, small_model_dir: Path) -> None:
    change_adapter(run_dir / "final_model", base_model_name_or_path="../../small")
    assert base_of_adapter(run_dir / "final_model").directory == small_model_dir.resolve()


def test_nothing_stands_in_for_the_base_of_another_tools_adapter(
    run_dir: Path, small_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm.models import resolve

    hub_name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    monkeypatch.setattr(resolve, "packaged_model_directory", lambda: small_model_dir)
    change_adapter(run_dir / "final_model", base_model_name_or_path=hub_name)
    (run_dir / "final_model" / RECORD_FILE).unlink()
    with pytest.raises(ModelError, match="was trained on other weights"):
        load_finished_model(run_dir)


def test_a_base_that_is_gone_is_named(run_dir: Path, small_model_dir: Path) -> None:
    shutil.rmtree(small_model_dir)
    with pytest.raises(ModelError, match="does not exist"):
        load_finished_model(run_dir)


def test_an_adapter_without_a_base_is_named(run_dir: Path) -> None:
    change_adapter(run_dir / "final_model", base_model_name_or_path=None)
    with pytest.raises(ModelError, match="does not say which base model"):
        load_finished_model(run_dir)


def test_a_pickled_adapter_is_refused(run_dir: Path) -> None:
    file = run_dir / "final_model/adapter_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        load_finished_model(run_dir)


def test_a_damaged_adapter_is_named(run_dir: Path) -> None:
    (run_dir / "final_model/adapter_model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="does not fit its base model"):
        load_finished_model(run_dir)


def test_an_adapter_without_tokenizer_uses_that_of_its_base(run_dir: Path) -> None:
    for file in (run_dir / "final_model").glob("tokenizer*"):
        file.unlink()
    assert load_finished_model(run_dir)[1]("dog")["input_ids"] == [8]


def test_learned_prompts_are_refused(small_model_dir: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    base = load_base_model(_source(small_model_dir), dtype="float32", device="cpu")
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(base, config).save_pretrained(tmp_path / "prompt")
    change_adapter(tmp_path / "prompt", base_model_name_or_path=str(small_model_dir))
    with pytest.raises(ModelError, match=r"learned prompts \(PROMPT_TUNING\)"):
        load_finished_model(tmp_path / "prompt")


def test_a_full_model_is_loaded_as_it_is(small_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(small_model_dir, tmp_path / "full/final_model")
    model, tokenizer = load_finished_model(str(tmp_path / "full"))
    base = load_base_model(_source(small_model_dir), dtype="float32", device="cpu")
    assert torch.equal(_logits(model), _logits(base))
    assert tokenizer.chat_template


def test_a_relative_name_starts_in_the_working_directory(run_dir: Path) -> None:
    found = find_model_directory("run", working_directory=run_dir.parent)
    assert found == run_dir / "final_model"


def test_a_base_models_name_is_a_source_too(
    small_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm.models import resolve

    monkeypatch.setattr(resolve, "packaged_model_directory", lambda: small_model_dir)
    assert find_model_directory("smollm2-135m-instruct") == small_model_dir


def test_a_run_without_a_final_model_points_at_its_newest_checkpoint(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "final_model")
    for place in (run_dir, run_dir / "checkpoints"):
        with pytest.raises(ModelError, match="has no final_model yet") as fault:
            find_model_directory(str(place))
        assert fault.value.hint.endswith("checkpoints/checkpoint-10")


def test_a_directory_without_a_model_says_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model") as fault:
        find_model_directory(str(tmp_path))
    assert "run directory" in fault.value.hint


@pytest.mark.parametrize(("bits", "name"), [(4, "Linear4bit"), (8, "Linear8bitLt")])
def test_a_quantised_base_holds_its_linear_layers_in_few_bits(
    small_model_dir: Path, bits: Literal[4, 8], name: str
) -> None:
    pytest.importorskip("bitsandbytes")
    plan = QuantizationPlan(bits=bits, quant_type="fp4", double_quant=True, compute_dtype="float32")
    model = load_base_model(
        _source(small_model_dir), dtype="float32", device="cpu", quantization=plan
    )
    layers = model.model.layers
    assert type(layers[0].self_attn.q_proj).__name__ == name
    assert type(model.lm_head).__name__ == "Linear"
    assert torch.isfinite(_logits(model)).all()
    if bits == 4:
        assert layers[0].self_attn.q_proj.weight.quant_type == "fp4"
        assert layers[0].self_attn.q_proj.weight.compress_statistics


def test_an_evaluation_leaves_a_four_bit_base_as_it_is(
    small_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    # Where this is true bitsandbytes repacks a layer at its first evaluation.
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    plan = QuantizationPlan(bits=4, quant_type="nf4", double_quant=True, compute_dtype="float32")
    model = load_base_model(
        _source(small_model_dir), dtype="float32", device="cpu", quantization=plan
    )
    weight = model.model.layers[0].self_attn.q_proj.weight
    packed, scales = weight.data.clone(), weight.quant_state.absmax.clone()
    assert torch.isfinite(_logits(model)).all()
    assert torch.equal(weight.data, packed)
    assert torch.equal(weight.quant_state.absmax, scales)


def test_quantisation_without_bitsandbytes_says_how_to_get_it(
    small_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name)
    )
    plan = QuantizationPlan(bits=4, quant_type="nf4", double_quant=True, compute_dtype="float32")
    with pytest.raises(HardwareError, match="need bitsandbytes") as fault:
        load_base_model(_source(small_model_dir), dtype="float32", device="cpu", quantization=plan)
    assert "llamafarm[qlora]" in fault.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "evil"},
        {"auto_mapping": {"base_model_class": "C", "parent_library": "evil"}},
        {"runtime_config": {"a": "evil"}},
    ],
    ids=["core", "mapping", "runtime"],
)
def test_code_that_an_adapter_names_is_not_imported(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    change_adapter(run_dir / "final_model", **changes)
    model, _ = load_finished_model(run_dir)
    kept = model.peft_config["default"].to_dict()
    assert not [name for name, value in changes.items() if kept.get(name) == value]
    assert not (tmp_path / "ran").exists()


def test_the_base_of_an_adapter_is_not_downloaded(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def seen(*_: object, **__: object) -> None:
        raise AssertionError("the network was opened")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", seen)
    change_adapter(run_dir / "final_model", base_model_name_or_path="somebody/base")
    with pytest.raises(ModelError, match="nothing is downloaded now") as refused:
        load_finished_model(run_dir)
    assert "hf download somebody/base" in refused.value.render()


def test_no_kernels_are_fetched_while_a_model_is_loaded(
    small_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations import hub_kernels

    monkeypatch.setattr(hub_kernels, "_kernels_enabled", True)
    load_base_model(_source(small_model_dir), dtype="float32", device="cpu")
    assert not hub_kernels._kernels_enabled
