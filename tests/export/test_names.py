from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.errors import OutputError
from llamafarm.export.names import gguf_file_name, model_name

# Ollama's rule for the model's part of a name (types/model/name.go).
OLLAMA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", re.ASCII)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("./my-model", "my-model"),
        ("out/My_Model.v2", "My_Model.v2"),
        ("my model", "my-model"),
        ("Médecin à l'hôpital", "Medecin-a-l-hopital"),
        (".hidden", "hidden"),
        ("--flag", "flag"),
        ("a..b...c", "a.b.c"),
        ("name:tag", "name-tag"),
        ("模型", "model"),
        ("模型 v2", "v2"),
        ("/", "model"),
        ("x" * 79 + "-yz", "x" * 79),
    ],
)
def test_the_target_s_last_part_is_made_into_a_name(target: str, name: str) -> None:
    assert model_name(Path(target), None) == name


def test_a_target_of_dots_has_the_name_of_the_directory_that_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fever" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "fever" / "inner")
    assert model_name(Path(), None) == "inner"
    assert model_name(Path(".."), None) == "fever"


@given(st.text(max_size=200))
def test_whatever_the_target_is_called_the_name_is_one_of_ollama_s(text: str) -> None:
    name = model_name(Path("/models") / text.replace("\0", "").replace("/", ""), None)
    assert OLLAMA_NAME.fullmatch(name) and ".." not in name
    assert model_name(Path("elsewhere"), name) == name


@pytest.mark.parametrize("given_name", ["a", "My_Model-7b.v2", "0", "x" * 80, "model."])
def test_a_name_that_was_given_is_kept(given_name: str) -> None:
    assert model_name(Path("target"), given_name) == given_name


@pytest.mark.parametrize(
    ("given_name", "fault", "hint"),
    [
        ("", '"" cannot be the name of a model: it is empty', "--name model"),
        ("my model", 'it holds " "; letters, digits', "--name my-model"),
        ("me/fever:v2", 'it holds "/" ":"', "--name fever; a namespace or a tag"),
        ("registry:5000/me/fever", 'it holds ":" "/"', "--name fever;"),
        ("../up", "it holds `..`", "--name up"),
        ("a..b", "it holds `..`", "--name a.b"),
        (".hidden", "it starts with `.`", "--name hidden"),
        ("-flag", "it starts with `-`", "--name flag"),
        ("_x", "it starts with `_`", "--name x"),
        ("a\n", r'it holds "\n"', "--name a"),
        ("a\x1b[31m", r'it holds "\u001b" "["', "--name a-31m"),
        ("é", 'it holds "é"', "--name e"),
        ("x" * 81, "it has 81 characters; 80 are allowed", f"--name {'x' * 80}"),
    ],
)
def test_what_is_no_name_is_refused_with_one_that_is(
    given_name: str, fault: str, hint: str
) -> None:
    with pytest.raises(OutputError) as raised:
        model_name(Path("target"), given_name)
    assert fault in raised.value.summary
    assert raised.value.hint.startswith(hint)


def test_the_file_is_named_after_the_model_and_its_type() -> None:
    assert gguf_file_name("my-model", "q8_0") == "my-model-Q8_0.gguf"
    assert gguf_file_name("fever.v2", "BF16") == "fever.v2-BF16.gguf"
