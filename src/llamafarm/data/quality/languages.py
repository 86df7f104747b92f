"""In which languages the rows are written, and which rows are not in the language of the rest.

The model (py3langid) takes 0.1 ms a row, so it reads a fair sample of each side; scripts, which
cost next to nothing, are counted in every row.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from llamafarm.data.quality.report import Finding
from llamafarm.data.quality.row import QualityRow
from llamafarm.data.quality.tally import Tally
from llamafarm.data.rows import RowRef
from llamafarm.errors import count_of

SAMPLE_ROWS = 5000
IDENTIFIED_CHARACTERS = 300
UNKNOWN = "und"

_KEPT_CHARACTERS = 600
# What is learnt has the say, where it is long enough.
_LONG_ENOUGH = 80
# Bytes of letters in UTF-8, so that eight Chinese letters weigh as much as 24 Latin ones.
_MIN_BYTES, _MIN_OUTLIER_BYTES = 24, 80
_MIN_PROBABILITY, _MIN_OUTLIER_PROBABILITY = 0.5, 0.95
_NEGLIGIBLE = 0.01
_DOMINANT_SHARE = 0.9
_MIN_ROWS = 20
_NO_LANGUAGE = "zxx"
# Varieties that short texts do not tell from the language they stand beside here.
_SAME = {"pcm": "en", "wuu": "zh", "yue": "zh", "nn": "no", "uzs": "uz", "arz": "ar", "ary": "ar"}
_NOT_WORDS = re.compile(
    r"```[^`]*(?:```|$)|`[^`\n]*`|\$[^$\n]*\$|https?://\S+|\S+@\S+|<[^<>\n]{1,200}>|\\[a-zA-Z]+|\d+"
)


@dataclass(frozen=True, slots=True)
class _Sampled:
    number: int
    source: RowRef
    text: str


@dataclass(slots=True)
class _Sample:
    """A uniform sample of the rows of one side, in one pass (Vitter 1985, algorithm R)."""

    rows: int = 0
    kept: list[_Sampled] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def see(self, row: QualityRow, text: str) -> None:
        """One more row, of which text is to be identified."""
        place = self.rows
        self.rows += 1
        if place >= SAMPLE_ROWS:
            place = int(self._random.random() * self.rows)
            if place >= SAMPLE_ROWS:
                return
        sampled = _Sampled(self.rows, row.source, text[:_KEPT_CHARACTERS])
        if place == len(self.kept):
            self.kept.append(sampled)
        else:
            self.kept[place] = sampled

    def in_order(self) -> list[_Sampled]:
        """The rows that were kept, as they were seen."""
        return sorted(self.kept, key=lambda sampled: sampled.number)


@dataclass(frozen=True, slots=True)
class Languages:
    """counts: rows by language, the most frequent first; rows: all that were looked at."""

    counts: tuple[tuple[str, int], ...]
    rows: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


class LanguageCheck:
    """Samples rows for the model, and counts scripts in all."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}
        self._scripts: dict[str, Tally] = {}

    def see(self, row: QualityRow) -> None:
        """One more row."""
        text = row.learnt if len(row.learnt) >= _LONG_ENOUGH else row.text
        if row.side not in self._samples:
            self._samples[row.side] = _Sample()
        self._samples[row.side].see(row, text)
        if script := row.makeup.script:
            if script not in self._scripts:
                self._scripts[script] = Tally()
            self._scripts[script].add(row.source, row.text)

    def scripts(self) -> tuple[tuple[str, int], ...]:
        """Rows by script, the most frequent first."""
        counts = Counter({script: tally.rows for script, tally in self._scripts.items()})
        return tuple(counts.most_common())

    def languages(self) -> Languages:
        """Identify the sample; the first time, loads the model."""
        sampled = [row for sample in self._samples.values() for row in sample.in_order()]
        identified = _identify(sampled)
        counts = Counter(language for language, _ in identified)
        unknown = counts.pop(UNKNOWN, 0)
        most = [*counts.most_common(), *([(UNKNOWN, unknown)] if unknown else [])]
        found = _odd_languages(sampled, identified, counts)
        if not found:
            found = self._odd_scripts()
        return Languages(tuple(most), len(sampled), tuple(found), tuple(self._notes()))

    def _odd_scripts(self) -> list[Finding]:
        dominant = _dominant(Counter(dict(self.scripts())))
        if not dominant:
            return []
        return [
            tally.finding(
                "script",
                f"{count_of(tally.rows, 'row')} in the {script} script; "
                f"{self._scripts[dominant].rows:,} are in {dominant}",
                "look at these rows: delete them if they are not meant to be there",
                "notice",
            )
            for script, tally in sorted(self._scripts.items(), key=lambda item: -item[1].rows)
            if script != dominant
        ]

    def _notes(self) -> list[str]:
        return [
            f"languages: {SAMPLE_ROWS:,} of the {sample.rows:,} {side} rows were identified, "
            f"{IDENTIFIED_CHARACTERS} characters a row; scripts were counted in all rows"
            for side, sample in self._samples.items()
            if sample.rows > SAMPLE_ROWS
        ]


def _identify(rows: Iterable[_Sampled]) -> list[tuple[str, bool]]:
    """(language, whether that is certain enough to call a row by it) of each row."""
    found = []
    for row in rows:
        words = _NOT_WORDS.sub(" ", row.text)[:IDENTIFIED_CHARACTERS]
        size = len("".join(filter(str.isalpha, words)).encode("utf-8", "replace"))
        if size < _MIN_BYTES:
            found.append((UNKNOWN, False))
            continue
        language, probability = _best(_model().rank(words))
        sure = size >= _MIN_OUTLIER_BYTES and probability >= _MIN_OUTLIER_PROBABILITY
        known = probability >= _MIN_PROBABILITY and language != _NO_LANGUAGE
        found.append((language, sure) if known else (UNKNOWN, False))
    return found


@cache
def _model() -> Any:
    """Kept for the next report of the process: loading takes a second, and it holds 75 MiB."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _best(ranking: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """The most probable language, its varieties counted with it. ranking: the best first."""
    together: dict[str, float] = {}
    for language, probability in ranking:
        if probability < _NEGLIGIBLE:
            break
        name = _SAME.get(language, language)
        together[name] = together.get(name, 0.0) + probability
    return max(together.items(), key=lambda item: item[1], default=(UNKNOWN, 0.0))


def _dominant(counts: Counter[str]) -> str:
    """The value that nearly all rows have; empty where there is none, or where rows are few."""
    total = counts.total()
    if total < _MIN_ROWS:
        return ""
    value, rows = counts.most_common(1)[0]
    return value if rows >= _DOMINANT_SHARE * total else ""


def _odd_languages(
    sampled: list[_Sampled], identified: list[tuple[str, bool]], counts: Counter[str]
) -> list[Finding]:
    dominant = _dominant(counts)
    if not dominant:
        return []
    tally, others = Tally(), Counter[str]()
    for row, (language, sure) in zip(sampled, identified, strict=True):
        if sure and language != dominant:
            tally.add(row.source, row.text)
            others[language] += 1
    if not tally.rows:
        return []
    named = ", ".join(f"{language} {rows:,}" for language, rows in others.most_common(5))
    share = counts[dominant] / counts.total()
    text = (
        f"{count_of(tally.rows, 'row')} in another language ({named}) "
        f"than the {share:.1%} in {dominant}"
    )
    advice = "look at these rows: delete them if they are not meant to be there"
    return [tally.finding("language", text, advice, "notice")]
