from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.errors import StrategyError, UserError
from llamafarm.export.modelfile import Modelfile, new_modelfile, parse_modelfile
from llamafarm.export.ollama_parameters import ParameterValue

GOLDEN = Path(__file__).parents[1] / "golden" / "export"

PLAIN = Modelfile("fever-Q8_0.gguf", ("<|im_end|>",))
FULL = new_modelfile(
    "fever-Q4_K_M.gguf",
    stop_words=("<|im_end|>", "<|endoftext|>"),
    system='You are "Fever", a careful assistant.\n\nAnswer in one sentence.',
    asked={
        "temperature": 0.2,
        "top_k": 40,
        "use_mmap": True,
        "num_ctx": "4096",
        "stop": ("\n\nUser:", "<|im_end|>"),
    },
)
BY_HAND = """\ufeff# Written by hand.
from llama3.2
  PARAMETER temperature 1
PARAMETER temperature 0.5
parameter stop <|eot|>
PARAMETER stop "two words"\r
PARAMETER stop "\\n"
PARAMETER mirostat 1
TEMPLATE \"\"\"{{ .System }}
# no comment here
{{ .Prompt }}\"\"\"
SYSTEM You are terse. # this too is said to the model
SYSTEM ""
LICENSE \"\"\"MIT
\"\"\"
MESSAGE user "Is 39 a fever?
Tell me."
ADAPTER ./lora.gguf"""


@pytest.mark.parametrize(("name", "modelfile"), [("plain", PLAIN), ("full", FULL)])
def test_a_modelfile_looks_as_agreed_and_reads_back(name: str, modelfile: Modelfile) -> None:
    expected = (GOLDEN / f"Modelfile.{name}").read_text(encoding="utf-8")
    assert modelfile.render() == expected
    assert parse_modelfile(expected) == modelfile


def test_only_what_was_asked_for_is_set() -> None:
    text = new_modelfile("m.gguf", stop_words=(), asked={}).render()
    said = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert said == ["FROM ./m.gguf", "REQUIRES 0.30.0"]


def test_what_others_write_is_read_as_ollama_reads_it() -> None:
    assert parse_modelfile(BY_HAND) == Modelfile(
        gguf="llama3.2",
        stop_words=("<|eot|>", "two words", "\\n"),
        system="",
        parameters={"temperature": 0.5},
        template="{{ .System }}\n# no comment here\n{{ .Prompt }}",
        requires="",
        others=(
            ("PARAMETER mirostat", "1"),
            ("LICENSE", "MIT\n"),
            ("MESSAGE user", "Is 39 a fever?\nTell me."),
            ("ADAPTER", "./lora.gguf"),
        ),
    )


def test_what_others_write_survives_being_written_again() -> None:
    modelfile = parse_modelfile(BY_HAND)
    assert modelfile.render().startswith("FROM llama3.2\n")
    assert parse_modelfile(modelfile.render()) == modelfile


def test_a_bare_value_ends_with_its_line() -> None:
    text = "FROM ./m.gguf\nSYSTEM You are terse. # really\nPARAMETER stop a b \n"
    modelfile = parse_modelfile(text)
    assert modelfile.system == "You are terse. # really"
    assert modelfile.stop_words == ("a b",)


@pytest.mark.parametrize(
    "system",
    [
        'It ends in a quote"',
        'It ends in two""',
        '"It is quoted"',
        'The word """ inside a line',
        " white space around \n",
        "\nlines\r\nof two kinds\n\n",
        "\ttabs\t",
        "# no comment",
        "FROM ./other.gguf\nPARAMETER stop x",
        'one"""\n"',
    ],
)
def test_a_text_reads_back_or_is_refused(system: str) -> None:
    modelfile = Modelfile("m.gguf", system=system)
    if system == 'one"""\n"':
        with pytest.raises(UserError, match='takes `"""` at the end of a line'):
            modelfile.render()
    else:
        assert parse_modelfile(modelfile.render()) == modelfile


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a family: \U0001f468\u200d\U0001f469", r"U\+200D \(zero width joiner\)"),
        ("a\u00a0b", r"U\+00A0 \(no-break space\)"),
        ("a\x00b", r"U\+0000 \(a control character\)"),
        ('a"""\nb" """\nc', "at the end of a line"),
    ],
)
def test_a_text_that_ollama_would_change_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(UserError, match=f"the system prompt cannot stand .*{why}") as raised:
        Modelfile("m.gguf", system=text).render()
    assert "leave it out" in raised.value.hint
    with pytest.raises(UserError, match="the stop word cannot stand"):
        Modelfile("m.gguf", stop_words=(text,)).render()


def test_an_empty_stop_word_is_refused() -> None:
    with pytest.raises(UserError, match="the stop word cannot stand in a Modelfile: it is empty"):
        Modelfile("m.gguf", stop_words=("",)).render()


texts = st.text(st.sampled_from('a "\n\r\t#\\é·🤒\u200b\x07.'), max_size=12)


@given(system=texts, words=st.lists(texts, max_size=3), template=texts)
def test_whatever_is_written_reads_back(system: str, words: list[str], template: str) -> None:
    stops = tuple(dict.fromkeys(words))
    modelfile = Modelfile("m.gguf", stops, system, {"seed": 3, "top_p": 0.9}, template)
    try:
        text = modelfile.render()
    except UserError:  # what cannot be written is refused: the tests above
        return
    assert parse_modelfile(text) == modelfile


def test_every_unknown_parameter_is_named_with_the_nearest_that_there_is() -> None:
    asked: dict[str, ParameterValue] = {
        "temprature": 0.5,
        "max_new_tokens": 64,
        "mirostat": 1,
        "typical_p": 0.9,
        "wings": 2,
    }
    with pytest.raises(StrategyError) as raised:
        new_modelfile("m.gguf", stop_words=(), asked=asked)
    problems = {problem.path.split(".")[-1]: problem for problem in raised.value.problems}
    assert list(problems) == list(asked)
    assert problems["temprature"].hint == "did you mean `temperature`?"
    assert problems["max_new_tokens"].hint == "did you mean `num_predict`?"
    assert problems["mirostat"].message == "Ollama no longer has this parameter"
    assert problems["typical_p"].message == "Ollama no longer has this parameter"
    assert problems["wings"].hint.startswith("there are: temperature, top_p")


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("temperature", 1, 1.0),
        ("temperature", "0.5", 0.5),
        ("top_k", "40", 40),
        ("num_predict", -1, -1),
        ("use_mmap", "False", False),
        ("use_mmap", True, True),
    ],
)
def test_a_value_has_the_kind_that_ollama_wants(
    name: str, value: ParameterValue, kept: object
) -> None:
    parameters = new_modelfile("m.gguf", stop_words=(), asked={name: value}).parameters
    assert parameters == {name: kept}
    assert type(parameters[name]) is type(kept)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("temperature", "hot", "a number"),
        ("temperature", True, "a number"),
        ("temperature", float("nan"), "a number"),
        ("temperature", ("1",), "a number"),
        ("top_k", 1.5, "a whole number"),
        ("top_k", "4_0", "a whole number"),
        ("use_mmap", 3, "true or false"),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: ParameterValue, kind: str) -> None:
    with pytest.raises(StrategyError) as raised:
        new_modelfile("m.gguf", stop_words=(), asked={name: value})
    (problem,) = raised.value.problems
    assert problem.message == f"it is {kind} (got {value!r})"
    assert problem.hint == f"{name}: {kind}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the Modelfile has no FROM line"),
        ("SYSTEM x\n", "the Modelfile has no FROM line"),
        ("# a\n\nFORM ./m.gguf\n", "Modelfile:3: `FORM` is not an instruction"),
        ("FROM ./m.gguf\r\nSYSTEM\n", "Modelfile:2: `SYSTEM` is not an instruction"),
        ('FROM ./m.gguf\nSYSTEM """a\nb\n', "Modelfile:2: the quotes of SYSTEM are not closed"),
        ("FROM ./m.gguf\nPARAMETER stop", "Modelfile:2: PARAMETER without a value"),
        (
            "FROM m\nPARAMETER stp x\n",
            "Modelfile:2: PARAMETER stp: Ollama does not have this parameter",
        ),
        ("FROM m\nPARAMETER top_k 4.0\n", "PARAMETER top_k: it is a whole number (got '4.0')"),
        (
            "FROM m\nPARAMETER  top_k 4\n",
            "Modelfile:2: PARAMETER : Ollama does not have this parameter",
        ),
    ],
)
def test_what_ollama_cannot_read_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_modelfile(text)
    assert message in raised.value.summary
    assert raised.value.hint
