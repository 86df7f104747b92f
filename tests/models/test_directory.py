from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.directory import check_model_directory, is_complete


def test_a_whole_model_passes(small_model_dir: Path) -> None:
    check_model_directory(small_model_dir)
    assert is_complete(small_model_dir)


def test_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as fault:
        check_model_directory(tmp_path)
    assert [problem.message for problem in fault.value.problems] == [
        "config.json is missing",
        "the weights are missing (model.safetensors)",
        "the tokenizer is missing (tokenizer.json)",
    ]
    assert "hf download" in fault.value.hint
    assert fault.value.exit_code == 2


def test_pickled_weights_are_refused_with_the_way_to_convert_them(small_model_dir: Path) -> None:
    (small_model_dir / "model.safetensors").rename(small_model_dir / "pytorch_model.bin")
    with pytest.raises(ModelError) as fault:
        check_model_directory(small_model_dir)
    (problem,) = fault.value.problems
    assert "pickle files (pytorch_model.bin)" in problem.message
    assert f"from_pretrained('{small_model_dir}')" in problem.hint
    assert "base_model: ./small-safetensors" in problem.hint


def test_the_conversion_that_is_shown_works(
    small_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    state = load_file(small_model_dir / "model.safetensors")
    torch.save(state, small_model_dir / "pytorch_model.bin")
    (small_model_dir / "model.safetensors").unlink()
    with pytest.raises(ModelError) as fault:
        check_model_directory(small_model_dir)
    code = fault.value.problems[0].hint.split('python -c "')[1].split('"')[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    check_model_directory(tmp_path / "small-safetensors")


def test_weights_in_a_gguf_file_are_pointed_at(small_model_dir: Path) -> None:
    (small_model_dir / "model.safetensors").rename(small_model_dir / "m.gguf")
    with pytest.raises(ModelError) as fault:
        check_model_directory(small_model_dir)
    assert fault.value.problems[0].hint.endswith(f"base_model: {small_model_dir / 'm.gguf'}")


def test_a_missing_shard_is_one_of_the_problems(small_model_dir: Path) -> None:
    (small_model_dir / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (small_model_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as fault:
        check_model_directory(small_model_dir)
    assert "model-00001-of-00001.safetensors" in fault.value.problems[0].message


def test_an_adapter_says_which_base_it_belongs_to(tmp_path: Path) -> None:
    settings = {"base_model_name_or_path": "meta-llama/Llama-3.2-1B"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="is a LoRA adapter") as fault:
        check_model_directory(tmp_path)
    assert fault.value.hint == "train from its base: base_model: meta-llama/Llama-3.2-1B"


def test_a_run_directory_points_at_its_final_model(tmp_path: Path) -> None:
    (tmp_path / "final_model").mkdir()
    with pytest.raises(ModelError) as fault:
        check_model_directory(tmp_path)
    assert str(tmp_path / "final_model") in fault.value.hint


@pytest.mark.parametrize("shard", ["../w.safetensors", "/etc/passwd", "..", "", 5, ["x"], "a/b"])
def test_an_index_that_names_files_elsewhere_is_refused(
    small_model_dir: Path, shard: object
) -> None:
    (small_model_dir / "model.safetensors").rename(small_model_dir.parent / "w.safetensors")
    index = small_model_dir / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    with pytest.raises(ModelError) as refused:
        check_model_directory(small_model_dir)
    assert "which is no file beside it" in refused.value.render()
