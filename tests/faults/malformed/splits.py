"""Good rows that cannot be split as they are asked to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .case import dumped, jsonl, row

ONE_GROUP = "all 10 rows say the same or belong to one group"
TEN = jsonl(*map(row, range(10)))


@dataclass(frozen=True, slots=True)
class SplitCase:
    """Rows, and how they are to be split: refused with these words, or done with this warning.

    asked: arguments of `datasplit`.
    """

    name: str
    content: bytes
    refused: tuple[str, ...] = ()
    warned: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)


def _sources(*values: object) -> bytes:
    fields = [
        {"question": f"What is {i}?", "answer": f"{i}.", "s": v} for i, v in enumerate(values)
    ]
    return jsonl(*map(dumped, fields))


CASES = (
    SplitCase("no row", b"\n\n", ("is empty",)),
    SplitCase("one row", jsonl(row(1)), ("1 row cannot be split",)),
    SplitCase("two rows in three", jsonl(row(1), row(2)), ("2 rows cannot be split",),
              asked={"test_percent": 10}),
    SplitCase("one good row and a bad one", jsonl(row(1), b"{"), ("1 row cannot be split",),
              asked={"skip_bad_rows": True}),
    SplitCase("nothing but bad rows", b"{\n{\n", ("no row is left, all 2 were dropped",),
              asked={"skip_bad_rows": True}),
    SplitCase("bad rows", jsonl(row(1), b"{", row(3), b"[]"), ("2 problems", ":2 ", ":4 ")),
    SplitCase("all rows equal", jsonl(*[row(1)] * 10), warned=ONE_GROUP),
    SplitCase("all rows nearly equal", jsonl(*[dumped({"question": "Tell me what the number is now",
              "answer": f"The number is what I have told you before, {i}"}) for i in range(10)]),
              warned=ONE_GROUP),
    SplitCase("more rows held out than there are", TEN, ("10 rows cannot give 10 held-out",),
              asked={"eval_rows": 10}),
    SplitCase("a hundred times as many", TEN, ("ask for at most 9",), asked={"eval_rows": 1000}),
    SplitCase("no rows held out", TEN, ("at least 1 row",), asked={"eval_rows": 0}),
    SplitCase("a negative number of rows", TEN, ("at least 1 row: not -3",),
              asked={"eval_rows": -3}),
    SplitCase("0 percent", TEN, ("must lie between 0 and 100",), asked={"eval_percent": 0}),
    SplitCase("100 percent", TEN, ("must lie between 0 and 100",), asked={"eval_percent": 100}),
    SplitCase("minus 5 percent", TEN, ("(got -5)",), asked={"eval_percent": -5}),
    SplitCase("not a number percent", TEN, ("(got nan)",), asked={"eval_percent": float("nan")}),
    SplitCase("infinite percent", TEN, ("(got inf)",), asked={"eval_percent": float("inf")}),
    SplitCase("a word for a percentage", TEN, ('(got "many")',), asked={"eval_percent": "many"}),
    SplitCase("90 and 10 percent", TEN, ("together take 100 %",),
              asked={"eval_percent": 90, "test_percent": 10}),
    SplitCase("percent and rows", TEN, ("exclude each other",),
              asked={"eval_percent": 10, "eval_rows": 2}),
    SplitCase("a stable split of so many rows", TEN, ("cannot hold exactly 2 rows",),
              asked={"eval_rows": 2, "stable": True}),
    SplitCase("a group that no row has", TEN, ('no row has a field "source"', "--group-by"),
              asked={"group_by": "source"}),
    SplitCase("a group that is nearly a field", TEN, ("did you mean answer?",),
              asked={"group_by": "anwser"}),
    SplitCase("a stratum that no row has", TEN, ("--stratify-by",), asked={"stratify_by": "s"}),
    SplitCase("both that no row has", TEN, ("--group-by", "--stratify-by"),
              asked={"group_by": "a", "stratify_by": "b"}),
    SplitCase("one group", _sources(*["web"] * 10), warned=ONE_GROUP, asked={"group_by": "s"}),
    SplitCase("a group missing in one row", _sources("a", "b", "c", None), (":4 ",),
              asked={"group_by": "s"}),
    SplitCase("a stratum missing in one row", _sources("a", "b", None, "a"), (":3 ",),
              asked={"stratify_by": "s"}),
    SplitCase("groups of every type", _sources(1, "1", 1.0, True, [1], {"a": 1}, "", " "),
              asked={"group_by": "s"}),
    SplitCase("a group that is a list", _sources(["a"], ["b"], ["a"], ["b"]),
              asked={"group_by": "s"}),
    SplitCase("a stratum a row", _sources(*range(10)), asked={"stratify_by": "s"}),
)  # fmt: skip
