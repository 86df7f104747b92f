"""The two small sets of rows that the corpus is trained on, and what can be wrong with rows.

`medical`: the 160 bundled questions with the shortest answers, of which the first sentence is kept.
`parcels`: made here; a note in a fixed form, whose details come from the question or, in part, from
a die, so that no model can know all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

Row = dict[str, str]

_MEDICAL = Path(__file__).parents[2] / "demos" / "datasets" / "medical" / "medical_qa.jsonl"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_GOODS = (
    "books",
    "lamps",
    "tiles",
    "seeds",
    "paint",
    "boots",
    "cups",
    "rope",
    "chairs",
    "glass",
    "wool",
    "tea",
    "nails",
    "soap",
    "maps",
)
_CITIES = (
    "Bergen",
    "Porto",
    "Gdansk",
    "Lille",
    "Turin",
    "Graz",
    "Cork",
    "Malmo",
    "Tartu",
    "Split",
    "Leeds",
    "Bruges",
    "Varna",
)
_CLERKS = (
    "Olga",
    "Marek",
    "Ines",
    "Tomas",
    "Freya",
    "Luca",
    "Greta",
    "Pavel",
    "Noor",
    "Edith",
    "Jonas",
    "Mira",
    "Otto",
    "Sara",
)
_VEHICLES = ("the night train", "a grey van", "the slow ferry", "a hired lorry", "the early tram")
_REMARKS = (
    "keep it dry",
    "ring the bell twice",
    "the lid is loose",
    "pay at the gate",
    "mind the step",
    "leave it with the porter",
    "it may arrive late",
    "stack nothing on top",
)


def rows_of(data: str, count: int, seed: int) -> list[Row]:
    """So many rows, drawn with a seed."""
    random = Random(f"{data} {seed}")
    return random.sample(_medical(), count) if data == "medical" else _parcels(count, random)


def shuffled_answers(rows: list[Row], seed: int) -> list[Row]:
    """Every question with the answer of another one."""
    order = list(range(len(rows)))
    Random(seed).shuffle(order)
    answers = [rows[order[order.index(i) - 1]]["answer"] for i in range(len(rows))]
    return [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]


def backwards(rows: list[Row]) -> list[Row]:
    """Every answer with its words in reverse order: hard for a model that reads forwards."""
    return [{**row, "answer": " ".join(row["answer"].split()[::-1])} for row in rows]


def with_noise_row(rows: list[Row], words: Sequence[str], seed: int) -> list[Row]:
    """One answer in the middle becomes 80 of the words, drawn at random: what a damaged file looks
    like to a model, where the words are its vocabulary.
    """
    random, at = Random(seed), len(rows) // 2
    noise = "".join(random.choice(words) for _ in range(80))
    return [*rows[:at], {**rows[at], "answer": noise}, *rows[at + 1 :]]


def write_rows(rows: list[Row], file: Path) -> None:
    """As JSONL."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")


def _medical() -> list[Row]:
    rows = [json.loads(line) for line in _MEDICAL.read_text(encoding="utf-8").splitlines()]
    short = [
        {"question": row["question"], "answer": _SENTENCE_END.split(row["answer"])[0]}
        for row in rows
    ]
    return sorted(short, key=lambda row: len(row["question"]) + len(row["answer"]))[:160]


def _parcels(count: int, random: Random) -> list[Row]:
    rows: dict[str, Row] = {}
    while len(rows) < count:
        goods, city, weight = random.choice(_GOODS), random.choice(_CITIES), random.randint(2, 99)
        question = f"{goods}, {weight} kg, {city}"
        answer = (
            f"{city.upper()}: {weight} kg of {goods} by {random.choice(_VEHICLES)}, "
            f"{random.choice(_CLERKS)} signs, {random.choice(_REMARKS)}."
        )
        rows[question] = {"question": question, "answer": answer}
    return list(rows.values())
