from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.hub import HubUnknownError, HubUnreachableError, hub_model_directory
from tests.models.fake_hub import COMMIT, FakeHub

MODEL = "someone/small"


@pytest.fixture
def hub(
    small_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    """The small model on a Hub of our own, and an empty cache."""
    from huggingface_hub import constants

    files = {file.name: file.read_bytes() for file in small_model_dir.iterdir()}
    with FakeHub({MODEL: files}) as fake:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield fake


def _get(name: str = MODEL, *, revision: str | None = None, allow_download: bool = True) -> Path:
    return hub_model_directory(
        name, revision=revision, cache_dir=None, allow_download=allow_download
    )


def test_a_model_is_downloaded_whole_and_then_taken_from_the_cache(
    hub: FakeHub, small_model_dir: Path
) -> None:
    directory = _get()
    content = (small_model_dir / "model.safetensors").read_bytes()
    assert (directory / "model.safetensors").read_bytes() == content
    assert (directory / "chat_template.jinja").is_file()
    asked = len(hub.requests)
    assert _get() == directory
    assert _get(allow_download=False) == directory
    assert len(hub.requests) == asked


def test_neither_pickle_nor_code_nor_other_formats_are_downloaded(hub: FakeHub) -> None:
    hub.repositories[MODEL] |= {
        "pytorch_model.bin": b"pickle",
        "modeling_small.py": b"code",
        "consolidated.safetensors": b"the same weights again",
        "onnx/config.json": b"{1}",
        "original/params.json": b"{2}",
        "README.md": b"#",
    }
    _get()
    assert hub.downloaded() == {
        "config.json",
        "chat_template.jinja",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_a_cache_that_holds_only_a_part_is_completed(hub: FakeHub) -> None:
    directory = _get()
    (directory / "model.safetensors").unlink()
    assert _get() == directory
    assert (directory / "model.safetensors").is_file()


def test_a_commit_can_be_asked_for(hub: FakeHub) -> None:
    assert _get(revision=COMMIT).name == COMMIT


def test_a_directory_of_the_users_own_can_be_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    directory = hub_model_directory(
        MODEL, revision=None, cache_dir=tmp_path / "mine", allow_download=True
    )
    assert directory.is_relative_to(tmp_path / "mine")


def test_an_unknown_model_is_named(hub: FakeHub) -> None:
    with pytest.raises(HubUnknownError, match="no model someone/other on the Hub"):
        _get("someone/other")


def test_an_unknown_revision_is_named(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match="someone/small has no revision v9"):
        _get(revision="v9")


def test_a_gated_model_says_how_to_get_access(hub: FakeHub) -> None:
    hub.gated.add(MODEL)
    with pytest.raises(ModelError, match="is gated") as fault:
        _get()
    assert f"https://huggingface.co/{MODEL}" in fault.value.hint
    assert "hf auth login" in fault.value.hint
    assert "HF_TOKEN" in fault.value.hint
    assert fault.value.exit_code == 2


def test_nothing_is_asked_or_downloaded_where_that_is_not_allowed(hub: FakeHub) -> None:
    with pytest.raises(HubUnreachableError, match="is not on this machine yet") as fault:
        _get(allow_download=False)
    assert f"hf download {MODEL}" in fault.value.hint
    assert hub.requests == []


def test_without_a_network_it_says_how_to_bring_the_model_here(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachableError, match="Hub cannot be reached") as fault:
        _get()
    assert f"hf download {MODEL} --local-dir ./small" in fault.value.hint
    assert "base_model: ./small" in fault.value.hint


def test_in_offline_mode_the_reason_is_the_variable(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE is set"):
        _get()
    assert hub.requests == []


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        (["config.json", "pytorch_model.bin"], "no safetensors weights", "from_pretrained"),
        (["small.Q4_K_M.gguf"], "holds GGUF files only", "base_model: ./small.Q4_K_M.gguf"),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter", "base"),
        (["config.json"], "holds no model weights", "/tree/main"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_is_downloaded(
    hub: FakeHub, files: list[str], message: str, hint: str
) -> None:
    hub.repositories[MODEL] = dict.fromkeys(files, b"x")
    with pytest.raises(ModelError, match=message) as fault:
        _get()
    assert hint in fault.value.render()
    assert hub.downloaded() == set()


def test_a_name_that_no_model_can_have_is_refused(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match="nor a possible Hub id"):
        _get("one/two/three")
