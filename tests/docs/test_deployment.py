"""docs/DEPLOYMENT.md says what the code does: layers, types, architectures, errors, the API."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import llamafarm
from llamafarm.export.architectures import supported_architectures
from llamafarm.export.file_types import FILE_TYPES
from llamafarm.export.modelfile import REQUIRES
from llamafarm.export.request import DEFAULT_QUANTIZATION, ConvertRequest
from tests.docs.pages import ROOT, blocks, prose, tables, ticked

PAGE = ROOT / "docs" / "DEPLOYMENT.md"


def rows_of(first_column: str) -> tuple[tuple[str, ...], ...]:
    return next(t.rows for t in tables(prose(PAGE)) if t.header[0] == first_column)


def string_templates(tree: ast.AST) -> Iterator[str]:
    """Every text in a module but its docstrings; a value that is put in is an ellipsis."""
    documents = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in documents:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def texts() -> tuple[str, ...]:
    files = (ROOT / "src" / "llamafarm").rglob("*.py")
    return tuple(t for file in files for t in string_templates(ast.parse(file.read_text("utf-8"))))


def certificate_layers() -> list[str]:
    """Of the certificate that the page shows."""
    shown = next(b.text for b in blocks(PAGE) if "passed (" in b.text)
    return re.findall(r"^  (\S.*?) +ok +[\d,]+$", shown, re.MULTILINE)


def test_every_layer_of_the_certificate_is_explained_in_its_order() -> None:
    layers = certificate_layers()
    assert [row[0] for row in rows_of("Layer")] == layers
    assert len(layers) == 7


def test_the_layers_have_the_names_of_the_code(texts: tuple[str, ...]) -> None:
    assert set(certificate_layers()) <= set(texts)


def test_every_type_is_listed_and_the_default_is_named() -> None:
    rows = rows_of("`--quantization`")
    listed = [name for row in rows for name in ticked(row[0])]
    assert sorted(name.upper() for name in listed) == sorted(FILE_TYPES)
    assert next(row[0] for row in rows if "nothing is said" in row[0]).startswith(
        f"`{DEFAULT_QUANTIZATION}`"
    )


def test_types_that_need_an_engine_are_named_as_such() -> None:
    sentence = re.search(r"The K types \((.+?)\)", prose(PAGE))
    assert sentence is not None
    needy = [name for name, file_type in FILE_TYPES.items() if file_type.needs_engine]
    assert sorted(name.upper() for name in ticked(sentence[1])) == sorted(needy)


@pytest.mark.parametrize("name", supported_architectures())
def test_every_architecture_that_is_written_here_is_named(name: str) -> None:
    paragraph = re.search(r"^Written by llamafarm: .+?\n\n", prose(PAGE), re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    family = re.sub("For.+", "", name)
    assert family in re.sub(r"[ \n-]", "", paragraph[0])


@pytest.mark.parametrize("message", [ticked(row[0])[0] for row in rows_of("Message")])
def test_every_message_is_one_that_the_program_prints(message: str, texts: tuple[str, ...]) -> None:
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split("…")))
    assert any(pattern.search(text) for text in texts)


def test_the_least_version_of_ollama_is_the_modelfile_s() -> None:
    assert f"Ollama {REQUIRES.removesuffix('.0')} or later" in prose(PAGE)


def test_the_example_in_python_asks_for_what_the_api_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ConvertRequest] = []

    def convert(request: ConvertRequest) -> SimpleNamespace:
        asked.append(request)
        return SimpleNamespace(certificate=SimpleNamespace(passed=True), file=Path("m.gguf"))

    monkeypatch.setattr(llamafarm, "convert", convert, raising=False)
    (example,) = blocks(PAGE, "python")
    exec(compile(example.text, str(example), "exec"), {})
    (request,) = asked
    assert isinstance(request.target, Path)
    assert request.format == "ollama"
    assert capsys.readouterr().out == "True m.gguf\n"
