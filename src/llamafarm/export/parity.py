"""The certificate: the trained model and the file that is served, compared layer by layer.

What is compared: the text that a conversation is rendered to; its token ids; the predictions at
every position of the answers; whether the end of an answer ends generation, and nothing else does;
and the weights in the file against the trained ones. Each layer is judged on its own, so that a
fault in one names itself. The engine answers on the reference's tokens, whatever its own would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llamafarm.export.reference import Prediction, ReferenceRow
from llamafarm.export.tolerances import Tolerance
from llamafarm.models.llama_cpp import NextToken

ENGINE_LIKELIEST = 512
# Differences of log-probabilities are reported where the trained model gives a token this much.
_LEAST_PROBABILITY = 1e-3
_EXCERPT = 40
_ENDS_ASKED = 4


class Engine(Protocol):
    """What serves the file (models/llama_cpp.py)."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as text, ready for the answer."""
        ...

    def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Its token ids."""
        ...

    def next_token(
        self, token_ids: Sequence[int], *, likeliest: int, forced: int | None = None
    ) -> NextToken:
        """The prediction after these tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing that was compared. checked: how many; failed: how many of them differ; finding: the
    first difference in words, empty where there is none.
    """

    name: str
    checked: int
    failed: int
    finding: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.failed


@dataclass(frozen=True, slots=True)
class Compared:
    """One position. margin: of the trained model's first token; kl, difference: of the engine's
    prediction, see PredictionFigures; agrees: whether both name the same token; finding: what each
    says, in words.
    """

    margin: float
    kl: float
    difference: float
    agrees: bool
    finding: str


@dataclass(frozen=True, slots=True)
class PredictionFigures:
    """Over all answer positions. mean_kl: of the engine's prediction from the trained model's, in
    nats, over the trained model's likeliest tokens and the rest as one; max_difference: of a
    log-probability; decided: positions whose margin exceeds the tolerance; agreed: those of them
    where both name the same token; agreed_anywhere: among all positions.
    """

    positions: int
    mean_kl: float
    max_difference: float
    decided: int
    agreed: int
    agreed_anywhere: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ends. trained: the token that training taught to end it; in_file: the end
    tokens that the file names; stop_words: what is served with, None where nobody says;
    expected_words: what it has to be.
    """

    trained: int | None
    in_file: tuple[int, ...]
    stop_words: tuple[str, ...] | None = None
    expected_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """The result. prompts: where the rows came from."""

    file_type: str
    layers: tuple[Layer, ...]
    figures: PredictionFigures
    tolerance: Tolerance
    prompts: str
    rows: int

    @property
    def passed(self) -> bool:
        """Whether every layer passed."""
        return all(layer.passed for layer in self.layers)


def certify(
    rows: Sequence[ReferenceRow],
    engine: Engine,
    *,
    file_type: str,
    tolerance: Tolerance,
    bos_text: str,
    ending: Ending,
    others: Sequence[Layer],
    prompts: str,
    on_position: Callable[[int], None] | None = None,
) -> Certificate:
    """Compare. bos_text: a start token as text, which an engine may take out of the text and put
    into the ids; others: layers that were compared without the engine.
    """
    figures, predictions = _predictions(rows, engine, tolerance, on_position)
    layers = (
        _text(rows, engine, bos_text),
        _ids(rows, engine),
        predictions,
        _end(rows, engine, ending),
        *_stop_words(rows, ending),
        *others,
    )
    return Certificate(file_type, layers, figures, tolerance, prompts, len(rows))


def _text(rows: Sequence[ReferenceRow], engine: Engine, bos_text: str) -> Layer:
    findings = []
    for row in rows:
        expected = row.prompt_text.removeprefix(bos_text)
        served = engine.render(row.messages).removeprefix(bos_text)
        if served != expected:
            findings.append(f"{row.source}: {first_difference(expected, served)}")
    return _layer("rendered text", len(rows), findings)


def _ids(rows: Sequence[ReferenceRow], engine: Engine) -> Layer:
    findings = []
    for row in rows:
        served = engine.tokenize(engine.render(row.messages))
        if served != row.prompt_ids:
            findings.append(f"{row.source}: {_first_token(row.prompt_ids, served)}")
    return _layer("token ids", len(rows), findings)


def _predictions(
    rows: Sequence[ReferenceRow],
    engine: Engine,
    tolerance: Tolerance,
    on_position: Callable[[int], None] | None,
) -> tuple[PredictionFigures, Layer]:
    compared: list[Compared] = []
    for position in compared_positions(rows, engine):
        compared.append(position)
        if on_position is not None:
            on_position(len(compared))
    figures = prediction_figures(compared, tolerance)
    findings = [c.finding for c in compared if c.margin > tolerance.margin and not c.agrees]
    # A mean that is no number is no proof.
    if not figures.mean_kl <= tolerance.mean_kl:
        text = f"mean KL divergence {figures.mean_kl:.2g}, allowed {tolerance.mean_kl:.2g}"
        findings = [f"{text}; {findings[0]}" if findings else text, *findings[1:]]
    return figures, _layer("predictions", len(compared), findings)


def compared_positions(rows: Sequence[ReferenceRow], engine: Engine) -> Iterator[Compared]:
    """Every position of every answer; the engine is given the reference's tokens before it."""
    for row in rows:
        for i, expected in enumerate(row.predictions):
            served = engine.next_token(
                [*row.prompt_ids, *row.answer_ids[:i]], likeliest=ENGINE_LIKELIEST
            ).log_probabilities
            yield Compared(
                expected.margin,
                kl_divergence(expected, served),
                _difference(expected, served),
                next(iter(served)) == expected.token_ids[0],
                _other_token(row, i, expected, served),
            )


def prediction_figures(compared: Sequence[Compared], tolerance: Tolerance) -> PredictionFigures:
    """Over these positions; a position is decided where its margin exceeds the tolerance."""
    decided = [c for c in compared if c.margin > tolerance.margin]
    return PredictionFigures(
        positions=len(compared),
        mean_kl=sum(c.kl for c in compared) / max(len(compared), 1),
        max_difference=max((c.difference for c in compared), default=0.0),
        decided=len(decided),
        agreed=sum(c.agrees for c in decided),
        agreed_anywhere=sum(c.agrees for c in compared),
    )


def _end(rows: Sequence[ReferenceRow], engine: Engine, ending: Ending) -> Layer:
    """Whether the file names the trained end token, and saying it ends generation."""
    end = ending.trained
    if end is None:
        return _layer("end of an answer", 1, ["no token is trained to end an answer"])
    asked = rows[:_ENDS_ASKED]
    if end not in ending.in_file:
        named = " and ".join(str(token) for token in ending.in_file) or "none"
        text = f"token {end} ends an answer in training; the file names {named}"
        return _layer("end of an answer", len(asked), [text])
    findings = []
    for row in asked:
        answer = row.answer_ids[:-1] if row.answer_ids[-1:] == (end,) else row.answer_ids
        said = engine.next_token([*row.prompt_ids, *answer], likeliest=1, forced=end)
        if not said.stops:
            text = f"token {end} ends an answer in training, and generation goes on after it"
            findings.append(f"{row.source}: {text}")
    return _layer("end of an answer", len(asked), findings)


def _stop_words(rows: Sequence[ReferenceRow], ending: Ending) -> list[Layer]:
    """Whether the stop words are the trained end and what was asked for, and cut no answer short.

    No layer where nothing says how the file is served.
    """
    if ending.stop_words is None:
        return []
    served, expected = set(ending.stop_words), set(ending.expected_words)
    findings = [f"{word!r} ends no answer in training" for word in sorted(served - expected)]
    findings += [f"{word!r} ends answers, and is missing" for word in sorted(expected - served)]
    for word in ending.stop_words:
        cut = next((row.source for row in rows if word in row.answer), None)
        if cut is not None:
            findings.append(f"{word!r} stands in the middle of the answer of {cut}")
    return [_layer("stop words", len(served | expected), findings)]


def kl_divergence(expected: Prediction, served: Mapping[int, float]) -> float:
    """Sum of p (log p - log q) over the trained model's likeliest tokens and all others as one.

    The two distributions are made coarser in the same way, so the result is at most the divergence
    over the whole vocabulary. A token that the engine does not list is as likely as its last one.
    """
    least = min(served.values())
    logs_p = expected.log_probabilities
    logs_q = [served.get(token, least) for token in expected.token_ids]
    listed = sum(math.exp(p) * (p - q) for p, q in zip(logs_p, logs_q, strict=True))
    rest_p = max(1.0 - sum(math.exp(p) for p in logs_p), 0.0)
    rest_q = max(1.0 - sum(math.exp(q) for q in logs_q), 1e-9)
    rest = rest_p * math.log(rest_p / rest_q) if rest_p > 1e-9 else 0.0
    return max(listed + rest, 0.0)


def _difference(expected: Prediction, served: Mapping[int, float]) -> float:
    least = min(served.values())
    pairs = zip(expected.token_ids, expected.log_probabilities, strict=True)
    return max(
        abs(p - served.get(token, least))
        for i, (token, p) in enumerate(pairs)
        if i == 0 or math.exp(p) >= _LEAST_PROBABILITY
    )


def first_difference(expected: str, served: str) -> str:
    """Where two texts part, with a little of what follows on both sides."""
    pairs = enumerate(zip(expected, served, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(served)))
    trained, got = expected[at : at + _EXCERPT], served[at : at + _EXCERPT]
    return f"from character {at} on, trained with {trained!r}, served with {got!r}"


def _first_token(expected: Sequence[int], served: Sequence[int]) -> str:
    pairs = enumerate(zip(expected, served, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(served)))
    trained = expected[at] if at < len(expected) else "nothing"
    got = served[at] if at < len(served) else "nothing"
    return f"token {at} is {trained} in training and {got} when it is served"


def _other_token(
    row: ReferenceRow, position: int, expected: Prediction, served: Mapping[int, float]
) -> str:
    return (
        f"{row.source}, answer token {position + 1}: the trained model says token "
        f"{expected.token_ids[0]} by a margin of {expected.margin:.2f}, the file says "
        f"{next(iter(served))}"
    )


def _layer(name: str, checked: int, findings: Sequence[str]) -> Layer:
    return Layer(name, checked, len(findings), findings[0] if findings else "")
