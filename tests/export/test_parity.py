"""The certificate's judgement, with a made-up engine in the place of llama.cpp."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from llamafarm.export.parity import (
    Certificate,
    Ending,
    Layer,
    certify,
    first_difference,
    kl_divergence,
)
from llamafarm.export.parity_report import certificate_json, certificate_line, render_certificate
from llamafarm.export.reference import Prediction, ReferenceRow
from llamafarm.export.tolerances import Tolerance
from llamafarm.models.llama_cpp import NextToken

TOLERANCE = Tolerance(mean_kl=0.01, margin=0.5, differing_codes=0.01)
END = 9
START = "<s>"
LIKELY: Mapping[int, float] = {3: math.log(0.7), 4: math.log(0.2), 5: math.log(0.05)}


def prediction(values: Mapping[int, float] = LIKELY) -> Prediction:
    return Prediction(tuple(values), tuple(values.values()))


def row(number: int = 1, answer_ids: Sequence[int] = (3, 3, END)) -> ReferenceRow:
    messages = ({"role": "user", "content": f"question {number}"},)
    return ReferenceRow(
        source=f"rows.jsonl:{number}",
        messages=messages,
        prompt_text=f"{START}question {number}:",
        prompt_ids=(1, 100 + number),
        answer=f"The answer is {number}. Fine",
        answer_ids=tuple(answer_ids),
        predictions=(prediction(),) * len(answer_ids),
    )


ROWS = tuple(row(number) for number in range(1, 7))


@dataclass
class MadeUpEngine:
    """One that serves the trained model exactly, but for what is changed.

    renders, tokens: what it makes of a row, by its number; says: its prediction by position of the
    row; asked: the prompts it was given.
    """

    renders: Mapping[int, str] = field(default_factory=dict)
    tokens: Mapping[int, Sequence[int]] = field(default_factory=dict)
    says: Mapping[tuple[int, int], Mapping[int, float]] = field(default_factory=dict)
    goes_on_after: Sequence[int] = ()
    asked: list[tuple[tuple[int, ...], int | None]] = field(default_factory=list)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        number = int(messages[-1]["content"].split()[-1])
        return self.renders.get(number, f"{START}question {number}:")

    def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        assert add_special
        number = int(text.rstrip(":").split()[-1])
        return tuple(self.tokens.get(number, (1, 100 + number)))

    def next_token(
        self, token_ids: Sequence[int], *, likeliest: int, forced: int | None = None
    ) -> NextToken:
        self.asked.append((tuple(token_ids), forced))
        number, position = token_ids[1] - 100, len(token_ids) - 2
        says = self.says.get((number, position), LIKELY)
        return NextToken(says, forced == END and number not in self.goes_on_after)


def certificate(
    engine: MadeUpEngine | None = None,
    *,
    rows: Sequence[ReferenceRow] = ROWS,
    ending: Ending | None = None,
    **changed: Any,
) -> Certificate:
    given: dict[str, Any] = {
        "file_type": "Q8_0",
        "tolerance": TOLERANCE,
        "bos_text": START,
        "ending": ending or Ending(END, (END,)),
        "others": (),
        "prompts": "made up",
    }
    return certify(rows, engine or MadeUpEngine(), **{**given, **changed})


def layer(found: Certificate, name: str) -> Layer:
    return next(layer for layer in found.layers if layer.name == name)


def failed(found: Certificate) -> list[str]:
    return [layer.name for layer in found.layers if not layer.passed]


def test_an_engine_that_serves_the_trained_model_passes() -> None:
    found = certificate()
    assert found.passed
    assert [(part.name, part.checked) for part in found.layers] == [
        ("rendered text", 6),
        ("token ids", 6),
        ("predictions", 18),
        ("end of an answer", 4),
    ]
    assert found.figures.mean_kl == pytest.approx(0, abs=1e-12)
    assert found.figures.decided == found.figures.agreed == found.figures.agreed_anywhere == 18


def test_predictions_are_asked_for_on_the_tokens_of_the_reference() -> None:
    engine = MadeUpEngine(tokens={1: (7, 7, 7)})
    certificate(engine, rows=ROWS[:1])
    asked = [ids for ids, forced in engine.asked if forced is None]
    assert asked == [(1, 101), (1, 101, 3), (1, 101, 3, 3)]


def test_every_position_is_told() -> None:
    told: list[int] = []
    certificate(on_position=told.append)
    assert told == list(range(1, 19))


def test_another_rendered_text_fails_on_its_own() -> None:
    found = certificate(MadeUpEngine(renders={2: f"{START}Question 2:"}))
    assert failed(found) == ["rendered text"]
    assert layer(found, "rendered text") == Layer(
        "rendered text",
        6,
        1,
        "rows.jsonl:2: from character 0 on, trained with 'question 2:', served with 'Question 2:'",
    )


def test_a_start_token_may_move_from_the_text_to_the_ids() -> None:
    assert certificate(MadeUpEngine(renders={1: "question 1:"})).passed
    assert failed(certificate(MadeUpEngine(renders={1: "question 1:"}), bos_text="")) == [
        "rendered text"
    ]


@pytest.mark.parametrize(
    ("ids", "finding"),
    [
        ((102,), "token 0 is 1 in training and 102 when it is served"),
        ((1, 1, 102), "token 1 is 102 in training and 1 when it is served"),
        ((1,), "token 1 is 102 in training and nothing when it is served"),
        ((1, 102, 5), "token 2 is nothing in training and 5 when it is served"),
    ],
)
def test_other_token_ids_are_named_at_the_first(ids: Sequence[int], finding: str) -> None:
    found = certificate(MadeUpEngine(tokens={2: ids}))
    assert failed(found) == ["token ids"]
    assert layer(found, "token ids").finding == f"rows.jsonl:2: {finding}"


def test_another_token_fails_where_the_trained_model_is_sure() -> None:
    other = {4: math.log(0.5), 3: math.log(0.4)}
    found = certificate(MadeUpEngine(says={(2, 1): other}), tolerance=replace(TOLERANCE, mean_kl=9))
    assert failed(found) == ["predictions"]
    assert layer(found, "predictions").finding == (
        "rows.jsonl:2, answer token 2: the trained model says token 3 by a margin of 1.25, "
        "the file says 4"
    )
    assert found.figures.agreed == found.figures.agreed_anywhere == 17


def test_another_token_is_no_fault_where_the_trained_model_is_not_sure() -> None:
    other = {4: math.log(0.5), 3: math.log(0.4)}
    lax = replace(TOLERANCE, mean_kl=9, margin=2.0)
    found = certificate(MadeUpEngine(says={(2, 1): other}), tolerance=lax)
    assert found.passed
    assert (found.figures.decided, found.figures.agreed_anywhere) == (0, 17)


def everywhere(values: Mapping[int, float]) -> MadeUpEngine:
    return MadeUpEngine(says={(n, i): values for n in range(1, 7) for i in range(3)})


def test_predictions_that_are_off_everywhere_fail_though_the_first_token_agrees() -> None:
    found = certificate(everywhere({3: math.log(0.5), 4: math.log(0.4), 5: math.log(0.05)}))
    assert failed(found) == ["predictions"]
    assert layer(found, "predictions").finding.startswith("mean KL divergence 0.097, allowed 0.01")
    assert found.figures.agreed_anywhere == 18
    assert found.figures.max_difference == pytest.approx(math.log(2))


def test_a_file_that_predicts_no_numbers_fails() -> None:
    found = certificate(everywhere({3: math.nan, 4: math.nan}))
    assert failed(found) == ["predictions"]


def test_an_end_that_the_file_does_not_name_fails() -> None:
    found = certificate(ending=Ending(END, (2, 5)))
    assert failed(found) == ["end of an answer"]
    assert layer(found, "end of an answer").finding == (
        "token 9 ends an answer in training; the file names 2 and 5"
    )
    assert "names none" in layer(certificate(ending=Ending(END, ())), "end of an answer").finding


def test_an_end_that_does_not_stop_the_engine_fails() -> None:
    found = certificate(MadeUpEngine(goes_on_after=[2, 3]))
    assert failed(found) == ["end of an answer"]
    assert layer(found, "end of an answer").failed == 2
    assert layer(found, "end of an answer").finding == (
        "rows.jsonl:2: token 9 ends an answer in training, and generation goes on after it"
    )


def test_the_end_is_asked_for_once_after_the_answer() -> None:
    engine = MadeUpEngine()
    certificate(engine, rows=[row(1), row(2, answer_ids=(3, 4))])
    forced = [ids for ids, forced in engine.asked if forced == END]
    assert forced == [(1, 101, 3, 3), (1, 102, 3, 4)]


def test_a_model_that_was_not_taught_to_end_fails() -> None:
    found = certificate(ending=Ending(None, (END,)))
    assert failed(found) == ["end of an answer"]


@pytest.mark.parametrize(
    ("served", "expected", "finding"),
    [
        (("</s>", "X"), ("</s>",), "'X' ends no answer in training"),
        ((), ("</s>",), "'</s>' ends answers, and is missing"),
        (("</s>", "answer"), ("</s>", "answer"), "'answer' stands in the middle of the answer of "),
    ],
)
def test_wrong_stop_words_are_named(
    served: tuple[str, ...], expected: tuple[str, ...], finding: str
) -> None:
    found = certificate(ending=Ending(END, (END,), served, expected))
    assert failed(found) == ["stop words"]
    part = layer(found, "stop words")
    assert part.finding.startswith(finding)
    assert 0 < part.failed <= part.checked


def test_stop_words_that_are_those_of_training_pass_in_any_order() -> None:
    found = certificate(ending=Ending(END, (END,), ("a b", "</s>"), ("</s>", "a b")))
    assert found.passed
    assert layer(found, "stop words").checked == 2


def test_layers_that_were_compared_before_count() -> None:
    found = certificate(others=[Layer("weights", 20, 1, "blk.0: other"), Layer("Modelfile", 6, 0)])
    assert failed(found) == ["weights"]
    assert not found.passed


def test_equal_predictions_have_no_divergence() -> None:
    assert kl_divergence(prediction(), LIKELY) == pytest.approx(0, abs=1e-12)


def test_the_divergence_is_that_of_the_formula_where_all_tokens_are_known() -> None:
    p, q = (0.5, 0.3, 0.2), (0.2, 0.5, 0.3)
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    logs_p, logs_q = ({i: math.log(x) for i, x in enumerate(values)} for values in (p, q))
    assert kl_divergence(prediction(logs_p), logs_q) == pytest.approx(expected, rel=1e-6)


def test_what_neither_lists_counts_as_one_token() -> None:
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert kl_divergence(
        Prediction((1, 2), (math.log(0.5), -200.0)), {1: math.log(0.25), 2: -200.0}
    ) == pytest.approx(expected)


def test_a_token_that_the_engine_does_not_list_is_as_likely_as_its_last() -> None:
    listed = {**LIKELY, 6: math.log(0.01)}
    without = {token: value for token, value in listed.items() if token != 5}
    as_last = {**without, 5: math.log(0.01)}
    assert kl_divergence(prediction(), without) == kl_divergence(prediction(), as_last)


@pytest.mark.parametrize("seed", range(20))
def test_the_divergence_never_exceeds_that_over_the_whole_vocabulary(seed: int) -> None:
    random = np.random.default_rng(seed)
    p, q = (random.dirichlet(np.full(300, 0.3)) + 1e-12 for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    order = np.argsort(-p)[:64]
    expected = Prediction(tuple(order.tolist()), tuple(np.log(p[order]).tolist()))
    found = kl_divergence(expected, dict(enumerate(np.log(q).tolist())))
    assert 0 < found <= float((p * np.log(p / q)).sum()) + 1e-9


def test_texts_part_at_the_first_character_that_differs() -> None:
    text = first_difference("abcX" + "y" * 50, "abcZ")
    assert text == f"from character 3 on, trained with {'X' + 'y' * 39!r}, served with 'Z'"
    assert first_difference("ab", "abc").endswith("trained with '', served with 'c'")


def test_the_report_for_a_program_says_first_whether_it_passed() -> None:
    found = certificate(others=[Layer("weights", 20, 1, "blk.0: other")])
    values = certificate_json(
        found, file="m.gguf", sha256="abc", versions={"torch": "1"}, created="now"
    )
    assert next(iter(values.items())) == ("passed", False)
    assert values["layers"][-1] == {
        "passed": False,
        "name": "weights",
        "checked": 20,
        "failed": 1,
        "finding": "blk.0: other",
    }
    assert values["positions"] == 18
    assert values["tolerance"] == dataclasses.asdict(TOLERANCE)
    assert json.loads(json.dumps(values)) == values


def test_the_report_for_a_person_shows_each_layer_with_its_first_difference() -> None:
    found = certificate(
        MadeUpEngine(renders={2: f"{START}Question 2:"}), others=[Layer("weights", 1234, 0)]
    )
    assert render_certificate(found).splitlines() == [
        "parity certificate, Q8_0: REFUSED (6 prompts: made up)",
        "  rendered text     FAILS  1 of 6",
        (
            "      rows.jsonl:2: from character 0 on, trained with 'question 2:', "
            "served with 'Question 2:'"
        ),
        "  token ids         ok     6",
        "  predictions       ok     18",
        "  end of an answer  ok     4",
        "  weights           ok     1,234",
        (
            "  over 18 answer positions: mean KL 0 (allowed 0.01), largest difference of a "
            "log-probability 0"
        ),
        (
            "  same next token: 18 of 18 where the trained model is sure by more than 0.5, "
            "18 of 18 in all"
        ),
    ]


def test_the_line_for_a_readme_is_the_same_result() -> None:
    assert certificate_line(certificate(rows=ROWS[:1])) == (
        "passed: the file in llama.cpp against what it was made from, over 3 answer positions: "
        "mean KL divergence 0, the same next token in 3 of 3"
    )
    assert certificate_line(certificate(ending=Ending(None, ()))).startswith("refused: ")
