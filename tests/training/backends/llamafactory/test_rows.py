"""The rows as LLaMA-Factory's trainer takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.data.tokenized import ListRows
from llamafarm.training.backends.llamafactory import rows as module
from llamafarm.training.backends.llamafactory.rows import (
    PairedRows,
    Side,
    conversation_texts,
    spans,
    write_rows,
)

# Trained tokens are those above 100.
CHAT = [1, 2, 101, 102]
TURNS = [1, 2, 101, 102, 3, 103, 4]


def rows_of(*rows: Sequence[int]) -> ListRows:
    return ListRows([(ids, [token > 100 for token in ids]) for ids in rows])


def decode(ids: Sequence[int]) -> str:
    return "".join(f"<{token}>" for token in ids)


def written(directory: Path, on_rows: Any = lambda done: None, **sides: Side) -> Any:
    from datasets import load_from_disk

    write_rows(directory, sides, decode, on_rows)
    return load_from_disk(str(directory / "rows"))


def texts(directory: Path, name: str = "train") -> list[dict[str, Any]]:
    lines = (directory / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def labels(ids: Sequence[int]) -> list[int]:
    return [token if token > 100 else -100 for token in ids]


def test_the_dataset_has_exactly_the_tokens_and_labels_of_the_rows(tmp_path: Path) -> None:
    train, held_out = [CHAT, TURNS], [[5, 105]]
    found = written(tmp_path, train=rows_of(*train), eval=rows_of(*held_out))
    assert set(found) == {"train", "validation"}
    for split, rows in (("train", train), ("validation", held_out)):
        assert found[split]["input_ids"] == rows
        assert found[split]["labels"] == [labels(ids) for ids in rows]
        assert found[split]["attention_mask"] == [[1] * len(ids) for ids in rows]
        assert set(found[split].column_names) == {"input_ids", "labels", "attention_mask"}


def test_rows_beyond_one_batch_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 3)
    rows = [[i + 1, 101 + i] for i in range(8)]
    assert written(tmp_path, train=rows_of(*rows))["train"]["input_ids"] == rows


def test_nothing_of_the_way_there_stays(tmp_path: Path) -> None:
    written(tmp_path, train=rows_of(CHAT), eval=rows_of(CHAT))
    assert {p.name for p in tmp_path.iterdir()} == {"rows", "train.jsonl", "eval.jsonl"}


def test_the_progress_counts_the_rows_of_all_sides(tmp_path: Path) -> None:
    done: list[int] = []
    written(tmp_path, done.append, train=rows_of(CHAT, TURNS), eval=rows_of(CHAT))
    assert done == [1, 2, 3]


def test_an_interruption_leaves_no_half_dataset(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path, {"train": rows_of(CHAT, TURNS), "eval": rows_of(CHAT)}, decode, stop)
    assert not (tmp_path / "rows").exists()


def test_a_line_of_text_is_one_row_with_its_special_tokens(tmp_path: Path) -> None:
    written(tmp_path, train=rows_of(CHAT, TURNS))
    assert texts(tmp_path) == [
        {
            "history": [],
            "prompt": "<1><2>",
            "response": "<101><102>",
            "text": "<1><2><101><102>",
        },
        {
            "history": [["<1><2>", "<101><102>"]],
            "prompt": "<3>",
            "response": "<103>",
            "text": "<1><2><101><102><3><103>",
        },
    ]


def test_text_stays_readable_in_other_scripts(tmp_path: Path) -> None:
    write_rows(tmp_path, {"train": rows_of(CHAT)}, lambda ids: "grün", lambda done: None)
    assert "grün" in (tmp_path / "train.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ("..TT", [([0, 1], [2, 3])]),
        ("..TT.", [([0, 1], [2, 3])]),
        ("..TT..T", [([0, 1], [2, 3]), ([4, 5], [6])]),
        (".T.T.T..", [([0], [1]), ([2], [3]), ([4], [5])]),
        # Plain text: all of it but the first token, which nothing predicts.
        (".TTTT", [([0], [1, 2, 3, 4])]),
        # No row of ours begins like that; it is an answer to nothing.
        ("TT.T", [([], [0, 1]), ([2], [3])]),
        ("TT", [([], [0, 1])]),
    ],
)
def test_prompts_and_answers_take_turns(
    trained: str, expected: list[tuple[list[int], list[int]]]
) -> None:
    ids = np.arange(len(trained), dtype=np.int32)
    mask = np.array([mark == "T" for mark in trained])
    assert spans(ids, mask) == expected


def test_plain_text_is_whole_in_its_line() -> None:
    ids = np.arange(5, dtype=np.int32)
    mask = np.array([False, True, True, True, True])
    assert conversation_texts(spans(ids, mask), decode)["text"] == decode(range(5))


# Pairs.


def pairs_of() -> PairedRows:
    chosen = rows_of([1, 2, 101], [3, 4, 103, 104])
    rejected = rows_of([3, 4, 203], [9, 209], [1, 2, 201, 202])
    return PairedRows(chosen, rejected, [(0, 2), (1, 0)])


def test_a_pair_has_both_answers_as_tokens_and_labels(tmp_path: Path) -> None:
    found = written(tmp_path, train=pairs_of())["train"]
    chosen, rejected = [[1, 2, 101], [3, 4, 103, 104]], [[1, 2, 201, 202], [3, 4, 203]]
    assert len(pairs_of()) == len(found) == 2
    for prefix, rows in (("chosen_", chosen), ("rejected_", rejected)):
        assert found[f"{prefix}input_ids"] == rows
        assert found[f"{prefix}labels"] == [labels(ids) for ids in rows]
        assert found[f"{prefix}attention_mask"] == [[1] * len(ids) for ids in rows]


def test_a_line_of_a_pair_has_the_prompt_once(tmp_path: Path) -> None:
    written(tmp_path, train=pairs_of())
    assert texts(tmp_path) == [
        {"prompt": "<1><2>", "chosen": "<101>", "rejected": "<201><202>"},
        {"prompt": "<3><4>", "chosen": "<103><104>", "rejected": "<203>"},
    ]
