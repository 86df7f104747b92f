"""What the search for near duplicates finds of what was planted: `python -m bench.leakage`.

Every base row is planted with six variants, from an exact copy to a free paraphrase, among rows
that only look alike: of one template with other numbers or names, or about the same things. Prints
recall and precision as tables in Markdown. The seed is fixed; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from bench.workload import MEDICAL_QA
from llamafarm.data.near.search import NEAR_SIMILARITY, RowPairs, contained_pairs, near_pairs
from llamafarm.data.near.shingles import ShingleStore

Row = tuple[str, str]
Random = random.Random

# Content words, the frequent ones first; each with a word that says nearly the same.
NOUNS = (
    "time/moment people/folk water/liquid house/home work/labour food/meal city/town road/street "
    "family/household school/college market/bazaar garden/yard machine/device engine/motor "
    "problem/trouble answer/reply letter/message price/cost doctor/physician patient/client "
    "teacher/tutor student/pupil computer/laptop program/application network/grid report/account "
    "meeting/gathering river/stream mountain/peak forest/wood winter/frost summer/heat "
    "morning/dawn evening/dusk customer/buyer company/firm office/bureau manager/director "
    "plan/scheme result/outcome reason/cause change/shift method/approach tool/instrument "
    "kitchen/galley bread/loaf soup/broth fruit/produce vegetable/plant medicine/drug "
    "illness/disease pain/ache sleep/rest exercise/training muscle/tissue heart/core blood/fluid "
    "skin/surface bone/joint child/youngster parent/guardian neighbour/resident bicycle/bike "
    "train/railway airport/terminal ticket/pass hotel/inn museum/gallery picture/image "
    "story/tale language/tongue sentence/phrase law/rule court/tribunal judge/referee bank/lender "
    "loan/credit tax/duty budget/fund factory/plant worker/employee field/meadow farmer/grower "
    "harvest/crop cow/cattle horse/pony dog/hound cat/kitten bird/fowl fish/trout storm/tempest "
    "cloud/haze wind/breeze island/isle harbour/port ship/vessel captain/skipper bridge/crossing "
    "tower/spire window/pane door/gate roof/ceiling wall/barrier paint/varnish paper/sheet "
    "pencil/crayon battery/cell screen/display signal/sign sensor/detector theory/hypothesis "
    "experiment/trial sample/specimen planet/world star/sun orbit/path rocket/missile"
)
VERBS = (
    "uses/employs makes/builds finds/discovers needs/requires helps/assists shows/reveals "
    "keeps/retains changes/alters brings/carries follows/trails supports/backs protects/guards "
    "improves/enhances reduces/lowers raises/lifts checks/inspects cleans/washes repairs/mends "
    "measures/gauges explains/clarifies describes/depicts connects/links opens/unlocks "
    "closes/shuts moves/shifts stops/halts starts/begins reaches/attains joins/enters "
    "leaves/departs warms/heats cools/chills"
)
ADJECTIVES = (
    "good/fine new/recent old/aged large/big small/little long/lengthy short/brief quiet/calm "
    "strong/sturdy weak/frail bright/vivid dark/dim warm/mild cold/chilly dry/arid wet/damp "
    "safe/secure cheap/inexpensive costly/expensive simple/plain careful/cautious early/prompt "
    "late/tardy local/nearby public/shared private/personal modern/current famous/renowned "
    "useful/handy broken/damaged"
)
SMALL_WORDS = {
    "the": "this",
    "a": "one",
    "often": "frequently",
    "usually": "mostly",
    "because": "since",
    "although": "though",
    "near": "beside",
    "with": "alongside",
}
JOINTS = ("because", "although", "while", "and", "so that", "as soon as", "unless", "where")
PLACES = ("near", "with", "without", "behind", "before", "after", "inside", "for", "beyond")
PAIRS = [
    (plain, other)
    for words in (NOUNS, VERBS, ADJECTIVES)
    for plain, _, other in (pair.partition("/") for pair in words.split())
]
SYNONYMS: Mapping[str, str] = SMALL_WORDS | dict(PAIRS) | {b: a for a, b in PAIRS}
_NAMES = (
    "Anna Bruno Chidi Dalia Emre Farah Goran Hana Ines Jonas Kofi Lena Mateo Nadia Omar Petra "
    "Quentin Rosa Samir Tomas Uma Viktor Wanda Ximena Yusuf Zoe"
)
_CITIES = (
    "Lisbon Oslo Nairobi Lima Osaka Quito Tunis Riga Zagreb Dakar Hanoi Perth Cork Malmo Porto "
    "Turin Lyon Bonn Graz Basel Brno Split Varna Izmir Haifa Accra Lagos Cusco Leon Omaha"
)
NAMES, CITIES = _NAMES.split(), _CITIES.split()
TEMPLATES: Sequence[Callable[[Random], Row]] = (
    lambda r: _sum(r.randint(1, 999), r.randint(1, 999)),
    lambda r: _weeks(r.randint(2, 500)),
    lambda r: _train(r.choice(CITIES), r.choice(CITIES), r.randint(1, 12)),
    lambda r: _age(r.choice(NAMES), r.randint(1, 90), r.randint(2, 20)),
    lambda r: _price(r.randint(2, 99), r.randint(2, 99)),
    lambda r: _called(r.choice(NAMES), r.choice(CITIES)),
)


def _sum(a: int, b: int) -> Row:
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}, so the sum is {a + b}."


def _weeks(n: int) -> Row:
    return (
        f"How many days are there in {n} weeks?",
        f"A week has seven days, so {n} weeks have {7 * n} days in all.",
    )


def _train(start: str, end: str, hour: int) -> Row:
    return (
        f"When does the train from {start} to {end} leave?",
        f"The train from {start} to {end} leaves at {hour} o'clock from platform {hour % 7 + 1}.",
    )


def _age(name: str, age: int, years: int) -> Row:
    return (
        f"{name} is {age} years old. How old will {name} be in {years} years?",
        f"In {years} years {name} will be {age} + {years} = {age + years} years old.",
    )


def _price(count: int, price: int) -> Row:
    return (
        f"A shop sells {count} boxes for {price} euros each. How much is that?",
        f"{count} boxes at {price} euros make {count * price} euros.",
    )


def _called(name: str, city: str) -> Row:
    return (
        f"Write a greeting for {name} from {city}.",
        f"Dear {name}, welcome! We hope that your journey from {city} was pleasant.",
    )


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to say a row again. goal: recall asked for; None where it is not to be found."""

    name: str
    make: Callable[[Row, Random], Row]
    goal: float | None


@dataclass(frozen=True, slots=True)
class Planted:
    """A row, what it was made from, and how; rows of the same base say the same."""

    row: Row
    base: int
    variant: str


class Writer:
    """Makes up rows of 15 to 200 words in sentences; words have natural frequencies."""

    def __init__(self, rng: Random) -> None:
        self._random = rng
        self._lists = [_weighted(text) for text in (NOUNS, VERBS, ADJECTIVES)]

    def row(self) -> Row:
        """A question and an answer."""
        length = min(180, max(10, int(self._random.lognormvariate(3.9, 0.7))))
        answer: list[str] = []
        while sum(len(sentence.split()) for sentence in answer) < length:
            answer.append(self.sentence())
        question = f"Why {self._verb()} the {self._thing()} {self._place()} the {self._thing()}?"
        return question, " ".join(answer)

    def sentence(self) -> str:
        """8 to 17 words."""
        words = f"The {self._thing()} {self._verb()} the {self._thing()} {self._place()} "
        words += f"a {self._thing()}"
        if self._random.random() < 0.5:
            joint = self._random.choice(JOINTS)
            words += f" {joint} the {self._thing()} {self._verb()} the {self._thing()}"
        return words + "."

    def _thing(self) -> str:
        noun = self._pick(0)
        return f"{self._pick(2)} {noun}" if self._random.random() < 0.4 else noun

    def _verb(self) -> str:
        often = self._random.random()
        return f"often {self._pick(1)}" if often < 0.15 else self._pick(1)

    def _place(self) -> str:
        return self._random.choice(PLACES)

    def _pick(self, which: int) -> str:
        words, weights = self._lists[which]
        return self._random.choices(words, cum_weights=weights)[0]


def _weighted(text: str) -> tuple[list[str], list[float]]:
    """Zipf: the word at rank r is drawn in proportion to 1 / (r + 2)."""
    words = [pair.split("/")[0] for pair in text.split()]
    return words, list(accumulate(1 / (rank + 3) for rank in range(len(words))))


def exact(row: Row, _random: Random) -> Row:
    """The same bytes."""
    return row


def normalised(row: Row, rng: Random) -> Row:
    """Other case, punctuation, white space or Unicode form; the same words."""
    ways: Sequence[Callable[[str], str]] = (
        str.upper,
        lambda text: text.replace(" ", "  ").replace(".", " .\n"),
        lambda text: re.sub(r"[.,?!]", "", text).lower(),
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: "".join(_full_width(c) for c in text),
        lambda text: f"**{text}**".replace(", ", " - "),
    )
    way = rng.choice(ways)
    return way(row[0]), way(row[1])


def _full_width(letter: str) -> str:
    return chr(ord(letter) + 0xFEE0) if letter.isascii() and letter.isalpha() else letter


def one_word(row: Row, rng: Random) -> Row:
    """One word of the answer is another one."""
    words = row[1].split()
    words[rng.randrange(len(words))] = rng.choice(NAMES)
    return row[0], " ".join(words)


def one_in_twenty(row: Row, rng: Random) -> Row:
    """One word in 20 of the answer changed, inserted or left out, at random places."""
    words = row[1].split()
    for _ in range(max(1, round(len(words) / 20))):
        place = rng.randrange(len(words))
        new = rng.choice(NAMES)
        kind = rng.choice(("change", "insert", "delete"))
        words[place : place + (kind != "insert")] = [] if kind == "delete" else [new]
    return row[0], " ".join(words)


def a_sentence(row: Row, rng: Random) -> Row:
    """The answer's sentences in another order, or about 15 % of words more."""
    sentences = re.split(r"(?<=[.?!])\s+", row[1])
    if len(sentences) > 2 and rng.random() < 0.5:
        moved = sentences.pop(rng.randrange(len(sentences) - 1))
        sentences.append(moved)
    else:
        count = max(3, round(0.15 * len(row[1].split())))
        added = " ".join(Writer(rng).sentence() for _ in range(count // 8 + 1)).split()[:count]
        sentences.insert(rng.randrange(len(sentences) + 1), " ".join(added) + ".")
    return row[0], " ".join(sentences)


def paraphrase(row: Row, rng: Random) -> Row:
    """About 40 % of all words by others that say nearly the same."""
    return _reworded(row[0], rng), _reworded(row[1], rng)


def _reworded(text: str, rng: Random) -> str:
    def other(word: str) -> str:
        plain = word.strip(".,?!").lower()
        return word.lower().replace(plain, SYNONYMS.get(plain, f"{plain}like"))

    return " ".join(other(word) if rng.random() < 0.4 else word for word in text.split())


VARIANTS = (
    Variant("exact copy", exact, 0.99),
    Variant("case, punctuation, spaces, Unicode form", normalised, 0.99),
    Variant("one word changed", one_word, 0.95),
    Variant("one word in 20 changed, inserted or left out", one_in_twenty, 0.95),
    Variant("sentences reordered, or 15 % added", a_sentence, 0.95),
    Variant("free paraphrase, 40 % of words", paraphrase, None),
)


def plant(bases: int, seed: int = 0) -> list[Planted]:
    """Base rows (real ones first, then made-up ones), their variants, and as many rows of
    templates as bases; mixed.
    """
    rng = Random(seed)
    writer = Writer(rng)
    lines = MEDICAL_QA.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[: bases // 2]]
    rows = [(record["question"], record["answer"]) for record in records]
    rows += [writer.row() for _ in range(bases - len(rows))]
    planted: list[Planted] = []
    for base, row in enumerate(rows):
        planted.append(Planted(row, base, "base"))
        planted += [Planted(v.make(row, rng), base, v.name) for v in VARIANTS]
    looking_alike = dict.fromkeys(TEMPLATES[i % len(TEMPLATES)](rng) for i in range(bases))
    planted += [Planted(row, bases + i, "template") for i, row in enumerate(looking_alike)]
    rng.shuffle(planted)
    return planted


def shingles_of(row: Row) -> set[tuple[str, ...]]:
    """The definition, in as few words as it takes; for rows that have words."""
    found: set[tuple[str, ...]] = set()
    for text in row:
        words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
        found |= {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    return found


def jaccard(one: Row, other: Row) -> float:
    """From sets of words."""
    a, b = shingles_of(one), shingles_of(other)
    return len(a & b) / len(a | b)


@dataclass(frozen=True, slots=True)
class Recall:
    """Of one variant: pairs with the base, those found, and the same of truly similar ones."""

    variant: Variant
    planted: int
    found: int
    similar: int
    similar_found: int
    mean_similarity: float

    @property
    def share(self) -> float:
        """Found of planted."""
        return self.found / self.planted

    @property
    def similar_share(self) -> float:
        """Found of those that are near duplicates by definition."""
        return self.similar_found / self.similar if self.similar else float("nan")


@dataclass(frozen=True, slots=True)
class Outcome:
    """right: found pairs of one base; wrong: found pairs that were planted as unrelated."""

    recalls: tuple[Recall, ...]
    right: int
    wrong: int

    @property
    def precision(self) -> float:
        """Of the found pairs."""
        return self.right / (self.right + self.wrong)


def search(rows: Sequence[Row]) -> RowPairs:
    """Near duplicates of rows held in memory."""
    with tempfile.TemporaryDirectory() as folder, ShingleStore(Path(folder)) as store:
        store.add(rows)
        store.finish()
        return near_pairs(store, np.arange(len(rows)))


def judge(planted: Sequence[Planted], pairs: RowPairs) -> Outcome:
    """Compare what was found with what was planted."""
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    base_row = {p.base: i for i, p in enumerate(planted) if p.variant == "base"}
    recalls = []
    for variant in VARIANTS:
        hits: list[tuple[float, bool]] = []
        for i, p in enumerate(planted):
            if p.variant == variant.name:
                j = base_row[p.base]
                similarity = jaccard(planted[j].row, p.row)
                hits.append((similarity, (min(i, j), max(i, j)) in found))
        similar = [hit for similarity, hit in hits if similarity >= NEAR_SIMILARITY]
        mean = sum(similarity for similarity, _ in hits) / len(hits)
        counts = (len(hits), sum(hit for _, hit in hits), len(similar), sum(similar))
        recalls.append(Recall(variant, *counts, mean))
    right = sum(planted[i].base == planted[j].base for i, j in found)
    return Outcome(tuple(recalls), right, len(found) - right)


@dataclass(frozen=True, slots=True)
class Containment:
    """Questions and answers inside documents: planted, found, and found where none is."""

    planted: int
    found: int
    wrong: int


def contain(rows: int, seed: int = 1) -> Containment:
    """Half of the rows stand in a document of ten times their length, half in none."""
    rng = Random(seed)
    writer = Writer(rng)
    inner = [writer.row() for _ in range(rows)]
    documents: list[tuple[str, ...]] = []
    for row in inner[: rows // 2]:
        before, after = ([writer.row()[1] for _ in range(5)] for _ in range(2))
        documents.append(("\n".join([*before, *row, *after]),))
    with tempfile.TemporaryDirectory() as folder, ShingleStore(Path(folder)) as store:
        store.add(inner)
        store.add(documents)
        store.finish()
        outer = np.arange(rows, len(store))
        pairs = contained_pairs(store, np.arange(rows), outer)
    right = pairs.second == pairs.first + rows
    return Containment(rows // 2, int(right.sum()), int((~right).sum()))


def tables(outcome: Outcome, rows: int, contained: Containment) -> Iterator[str]:
    """Markdown."""
    columns = ("variant of a row", "planted", "mean similarity", "found", "goal")
    yield f"| {' | '.join([*columns, 'similarity >= 0.7', 'found'])} |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for r in outcome.recalls:
        goal = "-" if r.variant.goal is None else f"{r.variant.goal:.0%}"
        of_similar = f"{r.similar_share:.2%}" if r.similar else "-"
        yield (
            f"| {r.variant.name} | {r.planted:,} | {r.mean_similarity:.2f} | {r.share:.2%} "
            f"| {goal} | {r.similar:,} | {of_similar} |"
        )
    yield ""
    yield (
        f"{rows:,} rows; pairs found {outcome.right + outcome.wrong:,}, of them planted as "
        f"unrelated {outcome.wrong:,}: precision {outcome.precision:.2%} (goal 98 %)."
    )
    yield ""
    yield (
        f"Contained in a document of ten times the length: {contained.found:,} of "
        f"{contained.planted:,} found, {contained.wrong:,} where there is none."
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.leakage", description=__doc__)
    parser.add_argument("--bases", type=int, default=5000)
    bases = parser.parse_args().bases
    planted = plant(bases)
    outcome = judge(planted, search([p.row for p in planted]))
    print("\n".join(tables(outcome, len(planted), contain(bases // 5))))


if __name__ == "__main__":
    main()
