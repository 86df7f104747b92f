from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from llamafarm.export.readme import ReadmeFacts, readme

GOLDEN = Path(__file__).parents[1] / "golden" / "export"

FACTS = ReadmeFacts(
    name="fever",
    gguf="fever-Q8_0.gguf",
    file_type="Q8_0",
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="apache-2.0",
    certificate="Parity certificate: passed on 24 prompts (parity.json).",
    ollama="Ollama 0.34.1 made the model, uses the template in it, and ended its answer itself.",
    system="Be brief; it's urgent.",
)
UNKNOWN = ReadmeFacts("fever", "fever-F16.gguf", "F16", "/home/me/base", modelfile=False)


@pytest.mark.parametrize(("name", "facts"), [("checked", FACTS), ("unknown", UNKNOWN)])
def test_the_readme_looks_as_agreed(name: str, facts: ReadmeFacts) -> None:
    assert readme(facts) == (GOLDEN / f"README.{name}.md").read_text(encoding="utf-8")


def front_matter(facts: ReadmeFacts) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load(readme(facts).split("---\n")[1])
    return loaded


def test_the_front_matter_is_that_of_a_model_card() -> None:
    assert front_matter(FACTS) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "apache-2.0",
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "llamafarm"],
    }


@pytest.mark.parametrize("base", ["/home/me/base", "./base", "../base", "C:\\base", ""])
def test_a_path_is_no_link_on_the_hub(base: str) -> None:
    assert "base_model" not in front_matter(replace(FACTS, base_model=base))


def test_a_name_that_yaml_reads_as_something_else_stays_a_text() -> None:
    assert front_matter(replace(FACTS, base_model="1e5", licence="no"))["license"] == "no"
    assert front_matter(replace(FACTS, base_model="null"))["base_model"] == "null"


@pytest.mark.parametrize(
    ("facts", "not_checked"),
    [
        (FACTS, False),
        (replace(FACTS, ollama=""), True),
        (replace(FACTS, ollama="", modelfile=False), False),
    ],
)
def test_it_says_that_ollama_was_not_run_where_it_was_not(
    facts: ReadmeFacts, not_checked: bool
) -> None:
    assert ("Ollama itself was not run" in readme(facts)) is not_checked
