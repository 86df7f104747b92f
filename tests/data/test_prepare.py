from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llamafarm.data import tokenizing
from llamafarm.data.datasplit import datasplit
from llamafarm.data.prepare import prepare
from llamafarm.data.request import DataRequest, Mixture, WeightedFile
from llamafarm.data.tokenized import PreparedData, TokenRows
from llamafarm.errors import DataError, LlamafarmError
from llamafarm.models.tokenizer import tokenizer_fingerprint

from .rows_on_disk import CHATML, qa, request_for, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Prepare:
    """prepare() with a tokenizer and a cache of its own."""

    def __init__(self, tokenizer: Any, cache_dir: Path) -> None:
        self.tokenizer, self.cache_dir = tokenizer, cache_dir

    def __call__(self, request: DataRequest, **options: Any) -> PreparedData:
        return prepare(request, self.tokenizer, cache_dir=self.cache_dir, **options)


@pytest.fixture(scope="module")
def fingerprint(smollm2_tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer_fingerprint(smollm2_tokenizer)


@pytest.fixture(autouse=True)
def _fingerprint_once(
    fingerprint: str, smollm2_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared tokenizer never changes: its fingerprint is taken once, which saves seconds."""

    def taken(tokenizer: Any) -> str:
        return fingerprint if tokenizer is smollm2_tokenizer else tokenizer_fingerprint(tokenizer)

    monkeypatch.setattr("llamafarm.data.prepare.tokenizer_fingerprint", taken)


@pytest.fixture
def prepared(smollm2_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Prepare:
    return Prepare(smollm2_tokenizer, tmp_path / "cache")


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "data.jsonl", map(qa, range(100)))


def _lines(rows: TokenRows | None) -> list[int]:
    assert rows is not None
    return [rows.source(i).line for i in range(len(rows))]


def _tokens(rows: TokenRows) -> list[Sequence[int]]:
    return [(*rows.input_ids(i).tolist(), *rows.trained(i).tolist()) for i in range(len(rows))]


def test_one_file_becomes_two_sides_in_its_order(prepared: Prepare, hundred: Path) -> None:
    data = prepared(request_for(hundred))
    train, held_out = _lines(data.train), _lines(data.eval)
    assert (len(train), len(held_out)) == (90, 10)
    assert sorted(train + held_out) == list(range(1, 101))
    assert train == sorted(train)
    assert data.train.conversation_text(0) == tuple(qa(train[0] - 1).values())
    report = data.report
    assert report.data_format == "qa"
    assert [(f.name, f.rows, f.role) for f in report.files] == [(str(hundred), 100, "train")]
    assert report.split == "10 % of 100 rows: 10 evaluation rows, drawn with seed 42"
    assert report.eval is not None
    assert (report.train.rows, report.eval.rows) == (90, 10)
    assert report.train.total_tokens == int(data.train.lengths().sum())
    assert report.train.trained_tokens == int(data.train.trained_counts().sum())
    assert report.train.shortest <= report.train.median <= report.train.p95 <= report.train.longest


@pytest.mark.parametrize("rows", [2, 9, 49, 100])
@pytest.mark.parametrize("percent", [5.0, 10.0, 33.0])
def test_a_run_splits_as_the_splitter_does(
    prepared: Prepare, tmp_path: Path, rows: int, percent: float
) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", (qa(n % 90) for n in range(rows)))
    files = datasplit(path, eval_percent=percent, seed=7, output_dir=tmp_path / "out")
    data = prepared(request_for(path, eval_fraction=percent / 100, seed=7))
    originals = path.read_text().splitlines()
    for side, file in ((data.train, files.train_file), (data.eval, files.eval_file)):
        assert [originals[line - 1] for line in _lines(side)] == file.read_text().splitlines()


def test_split_files_give_the_same_tokens_as_the_file_they_come_from(
    prepared: Prepare, hundred: Path
) -> None:
    files = datasplit(hundred, eval_percent=10, seed=42)
    whole = prepared(request_for(hundred))
    halves = prepared(request_for(files.train_file, eval_location=files.eval_file))
    assert halves.eval is not None and whole.eval is not None
    assert _tokens(halves.train) == _tokens(whole.train)
    assert _tokens(halves.eval) == _tokens(whole.eval)
    assert halves.report.fingerprint == whole.report.fingerprint


def test_the_second_time_rows_come_from_the_cache(prepared: Prepare, hundred: Path) -> None:
    told: list[tuple[str, int, int]] = []
    first = prepared(request_for(hundred), work=lambda *n: told.append(n))
    assert told[-1] == ("tokenising", 100, 100)
    told.clear()
    again = prepared(request_for(hundred), work=lambda *n: told.append(n))
    assert told == []
    assert "kept in the cache" in first.report.notices[-1]
    assert "taken from the cache" in again.report.notices[-1]
    assert replace(again.report, notices=()) == replace(first.report, notices=())
    assert _tokens(again.train) == _tokens(first.train)
    assert again.train.fingerprint == first.train.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 43},
        {"eval_fraction": 0.2},
        {"max_length": 128},
        {"system_prompt": "Be kind."},
        {"chat_template": CHATML + "{# other #}"},
        {"shuffle": False},
        {"max_samples": 50},
        {"remove_duplicates": True},
        {"filter_empty": True},
        {"skip_bad_rows": True},
        {"remove_patterns": ("x",)},
        {"max_input_length": 100},
        {"max_output_length": 100},
        {"data_format": "qa"},
        {"columns": {"question": "question"}},
        {"eval_wanted": False},
        {"eval_rows": 12},
        {"eval_auto": True},
        {"stable_split": True},
        {"mask_history": True},
        {"roles": {"user": "person"}},
        {"group_by": "question"},
        {"stratify_by": "question"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_everything_that_decides_the_rows_is_part_of_the_key(
    prepared: Prepare, hundred: Path, changes: dict[str, Any]
) -> None:
    prepared(request_for(hundred))
    other = prepared(request_for(hundred, **changes))
    assert "kept in the cache" in other.report.notices[-1]


def test_another_tokenizer_has_entries_of_its_own(
    prepared: Prepare, hundred: Path, smollm2_tokenizer_dir: Path
) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    first = prepared(request_for(hundred))
    tokens = Tokenizer.from_file(str(smollm2_tokenizer_dir / "tokenizer.json"))
    tokens.add_special_tokens(["</s>"])
    prepared.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="</s>")
    other = prepared(request_for(hundred))
    assert "kept in the cache" in other.report.notices[-1]
    assert other.report.fingerprint == first.report.fingerprint


def test_the_number_of_workers_changes_nothing(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamafarm.data.tokenizing.BATCH_ROWS", 7)
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(60)))
    one = prepared(request_for(path))
    many = Prepare(prepared.tokenizer, tmp_path / "other")(request_for(path, num_workers=3))
    assert _tokens(many.train) == _tokens(one.train)
    assert many.report.fingerprint == one.report.fingerprint


def test_other_bytes_are_read_anew_and_equal_ones_are_not(prepared: Prepare, hundred: Path) -> None:
    first = prepared(request_for(hundred))
    content = hundred.read_bytes()
    hundred.write_bytes(content.replace(b"number 5.", b"number five."))
    changed = prepared(request_for(hundred))
    assert changed.report.fingerprint != first.report.fingerprint
    hundred.write_bytes(content)
    assert "taken from the cache" in prepared(request_for(hundred)).report.notices[-1]


def test_a_damaged_entry_is_made_again(prepared: Prepare, hundred: Path) -> None:
    first = prepared(request_for(hundred))
    file = next(prepared.cache_dir.rglob("train-00000.arrow"))
    file.write_bytes(file.read_bytes()[:-100])
    again = prepared(request_for(hundred))
    assert "kept in the cache" in again.report.notices[-1]
    assert _tokens(again.train) == _tokens(first.train)


def test_nothing_is_left_in_the_cache_by_a_failure(prepared: Prepare, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [qa(1), {"question": "Why?"}, qa(2)])
    with pytest.raises(DataError, match=r"data\.jsonl:2"):
        prepared(request_for(path))
    assert not list(prepared.cache_dir.rglob("*.arrow"))


def test_a_cache_that_cannot_be_written_is_an_error_with_the_variable_to_set(
    smollm2_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, hundred: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LlamafarmError) as caught:
        prepare(request_for(hundred), smollm2_tokenizer, cache_dir=tmp_path / "file")
    assert "LLAMAFARM_CACHE" in caught.value.render()


def test_the_cache_is_where_the_environment_says(
    smollm2_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    hundred: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path / "mine"))
    prepare(request_for(hundred), smollm2_tokenizer)
    assert list((tmp_path / "mine").rglob("train-00000.arrow"))


def test_bad_rows_can_be_left_out_and_are_listed(prepared: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [json.dumps(qa(n)) for n in range(20)]
    path.write_text("\n".join([*rows[:3], "{", *rows[3:], '{"question": "Why?"}']), "utf-8")
    data = prepared(request_for(path, skip_bad_rows=True))
    assert len(data.train) + len(data.eval or ()) == 20
    assert [row.source.line for row in data.report.dropped] == [4, 22]


def test_empty_rows_are_dropped_when_asked_and_others_still_refused(
    prepared: Prepare, tmp_path: Path
) -> None:
    rows = [*map(qa, range(20)), {"question": "Why?", "answer": " "}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError, match="is empty"):
        prepared(request_for(path))
    data = prepared(request_for(path, filter_empty=True))
    assert [(r.source.line, r.reason) for r in data.report.dropped] == [(21, "answer: is empty")]
    write_jsonl(path, [*rows, {"question": 5, "answer": "x"}])
    with pytest.raises(DataError, match=r"data\.jsonl:22"):
        prepared(request_for(path, filter_empty=True))


def test_patterns_are_removed_before_rows_are_judged(prepared: Prepare, tmp_path: Path) -> None:
    rows = [*map(qa, range(9)), {"question": "Why?", "answer": "[advert]"}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = prepared(request_for(path, remove_patterns=(r"\[.*?\]", "the number ")))
    assert data.report.dropped[0].reason == "assistant is empty after remove_patterns"
    assert data.train.conversation_text(0)[1].startswith("It is ")
    assert "number" not in data.train.conversation_text(0)[1]


def test_duplicates_are_told_or_removed(prepared: Prepare, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [*map(qa, range(20)), qa(3), qa(3)])
    data = prepared(request_for(path))
    assert any("2 rows repeat" in n and "remove_duplicates" in n for n in data.report.notices)
    data = prepared(request_for(path, remove_duplicates=True))
    assert len(data.train) + len(data.eval or ()) == 20
    assert [(r.source.line, r.reason) for r in data.report.dropped] == [
        (21, "says the same as line 4"),
        (22, "says the same as line 4"),
    ]


def test_rows_that_train_and_eval_file_share_are_told(prepared: Prepare, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", map(qa, range(40)))
    held_out = write_jsonl(tmp_path / "e.jsonl", map(qa, range(38, 80)))
    test = write_jsonl(tmp_path / "x.jsonl", map(qa, range(39, 42)))
    data = prepared(request_for(train, eval_location=held_out, test_location=test))
    leaks = [w for w in data.report.warnings if "give away" in w]
    assert ["2 of 42 evaluation rows: 2 exact" in leaks[0], "1 of 3 test rows" in leaks[1]] == [
        True,
        True,
    ]
    assert [report.exact for report in data.report.leakage] == [2, 1]
    assert [f.role for f in data.report.files] == ["train", "eval", "test"]
    assert any("is kept apart" in n for n in data.report.notices)


def test_few_eval_rows_are_warned_about(prepared: Prepare, hundred: Path, tmp_path: Path) -> None:
    assert any(
        "only 10 evaluation rows" in w for w in prepared(request_for(hundred)).report.warnings
    )
    data = prepared(request_for(hundred, eval_fraction=0.3))
    assert not data.report.warnings


def test_long_rows_are_cut_listed_and_warned_about(prepared: Prepare, tmp_path: Path) -> None:
    long = {"question": "Count.", "answer": " ".join(map(str, range(60)))}
    path = write_jsonl(tmp_path / "data.jsonl", [*map(qa, range(40)), long])
    data = prepared(request_for(path, max_length=64, shuffle=False))
    assert [row.source.line for row in data.report.truncated] == [41]
    warning = next(w for w in data.report.warnings if "max_length=64" in w)
    assert "1 of 41 rows" in warning and f"{path}:41" in warning


def test_evaluation_can_be_switched_off(prepared: Prepare, hundred: Path) -> None:
    data = prepared(request_for(hundred, eval_wanted=False))
    assert data.eval is None and data.report.eval is None
    assert len(data.train) == 100
    data = prepared(request_for(hundred, eval_wanted=False, eval_location=hundred))
    assert any("evaluation rows are not read" in n for n in data.report.notices)


def test_an_eval_side_without_rows_is_an_error_that_says_why(
    prepared: Prepare, tmp_path: Path
) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", map(qa, range(10)))
    long = {"question": "word " * 90, "answer": "Yes."}
    held_out = write_jsonl(tmp_path / "e.jsonl", [long])
    with pytest.raises(DataError) as caught:
        prepared(request_for(train, eval_location=held_out, max_length=40))
    assert "no row is left to evaluate on" in caught.value.summary
    assert f"{held_out}:1" in caught.value.render()


def test_one_row_alone_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [qa(1)])
    with pytest.raises(DataError, match="1 row cannot be split"):
        prepared(request_for(path))


def test_only_the_first_rows_are_used_when_asked(prepared: Prepare, hundred: Path) -> None:
    data = prepared(request_for(hundred, max_samples=20))
    assert sorted(_lines(data.train) + _lines(data.eval)) == list(range(1, 21))
    assert any("max_samples" in n for n in data.report.notices)


def test_groups_stay_on_one_side_and_rows_without_one_are_refused(
    prepared: Prepare, tmp_path: Path
) -> None:
    rows = [{**qa(n), "document": n // 5} for n in range(50)]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = prepared(request_for(path, group_by="document"))
    groups = [{(line - 1) // 5 for line in _lines(side)} for side in (data.train, data.eval)]
    assert not groups[0] & groups[1]
    write_jsonl(path, [*rows, qa(99)])
    with pytest.raises(DataError, match="no document"):
        prepared(request_for(path, group_by="document"))


def test_strata_keep_their_shares(prepared: Prepare, tmp_path: Path) -> None:
    rows = [{**qa(n), "topic": "rare" if n % 10 == 0 else "common"} for n in range(100)]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = prepared(request_for(path, stratify_by="topic", eval_fraction=0.2))
    assert sum((line - 1) % 10 == 0 for line in _lines(data.eval)) == 2


def test_labels_that_cannot_take_effect_are_warned_about(prepared: Prepare, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", [{**qa(n), "d": 1} for n in range(40)])
    held_out = write_jsonl(tmp_path / "e.jsonl", [{**qa(n), "d": 1} for n in range(40, 80)])
    data = prepared(request_for(train, eval_location=held_out, group_by="d"))
    assert any("dataset.group_by has no effect" in w for w in data.report.warnings)


def test_formats_may_be_mixed_and_are_told(prepared: Prepare, tmp_path: Path) -> None:
    alpaca = [{"instruction": f"Say {n}.", "output": f"{n}!"} for n in range(10)]
    path = write_jsonl(tmp_path / "data.jsonl", [*map(qa, range(30)), *alpaca])
    report = prepared(request_for(path)).report
    assert report.data_format == "mixed (qa 30, alpaca 10)"
    assert any("mixes formats" in n for n in report.notices)


def test_the_system_prompt_goes_to_rows_without_one(prepared: Prepare, tmp_path: Path) -> None:
    rows = [qa(1), {**qa(2), "system": "Be brief."}, {"text": "Plain."}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = prepared(request_for(path, eval_wanted=False, system_prompt="Be kind."))
    texts = [prepared.tokenizer.decode(data.train.input_ids(i)) for i in range(3)]
    assert texts[0].startswith("<|im_start|>system\nBe kind.<|im_end|>")
    assert texts[1].startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert texts[2] == "Plain.<|im_end|>"


def test_a_template_that_fails_names_all_rows_and_its_own_words(
    prepared: Prepare, tmp_path: Path
) -> None:
    strict = (
        "{% for m in messages %}{% if m.role == 'user' and loop.index0 % 2 %}"
        "{{ raise_exception('roles must take turns') }}{% endif %}{{ m.content }}\n{% endfor %}"
    )
    odd = {"messages": [{"role": r, "content": "x y"} for r in ("user", "user", "assistant")]}
    path = write_jsonl(tmp_path / "data.jsonl", [qa(1), odd, qa(2), odd])
    request = request_for(path, chat_template=strict)
    with pytest.raises(DataError) as caught:
        prepared(request)
    text = caught.value.render()
    assert "roles must take turns" in text
    assert f"{path}:2" in text and f"{path}:4" in text
    data = prepared(replace(request, skip_bad_rows=True))
    assert [row.source.line for row in data.report.dropped] == [2, 4]


def test_a_system_prompt_without_a_place_in_the_template_is_told(
    prepared: Prepare, hundred: Path
) -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
    request = request_for(hundred, chat_template=template, system_prompt="Be kind.")
    data = prepared(request)
    assert any("no place for the system prompt of 100 rows" in n for n in data.report.notices)
    assert any("no end token" in n for n in data.report.notices)
    assert prepared.tokenizer.decode(data.train.input_ids(0)).startswith("Be kind.\n\nWhat is")


def test_missing_eval_file_is_an_error_before_anything_is_tokenised(
    prepared: Prepare, hundred: Path
) -> None:
    with pytest.raises(DataError, match="does not exist"):
        prepared(request_for(hundred, eval_location=hundred.with_name("nowhere.jsonl")))
    assert not prepared.cache_dir.exists()


def test_the_request_is_not_changed(prepared: Prepare, hundred: Path) -> None:
    request = request_for(hundred)
    prepared(request)
    assert request == request_for(hundred)


def test_a_mixture_repeats_and_draws_by_weight(prepared: Prepare, tmp_path: Path) -> None:
    parts = [
        write_jsonl(tmp_path / f"{n}.jsonl", map(qa, range(1000 * n, 1000 * n + 40)))
        for n in range(3)
    ]
    weighted = (WeightedFile(parts[0], 2.5), WeightedFile(parts[1]), WeightedFile(parts[2], 0.5))
    data = prepared(request_for(tmp_path, train_location=Mixture(weighted)))
    rows = Counter(data.train.source(row).file.rpartition("/")[2] for row in range(len(data.train)))
    held_out = Counter(
        data.eval.source(row).file.rpartition("/")[2] for row in range(len(data.eval))
    )
    kept = {name: 40 - held_out[name] for name in ("0.jsonl", "1.jsonl", "2.jsonl")}
    assert sum(held_out.values()) == 12
    assert rows["0.jsonl"] == 2 * kept["0.jsonl"] + round(0.5 * kept["0.jsonl"])
    assert rows["1.jsonl"] == kept["1.jsonl"]
    assert rows["2.jsonl"] == round(0.5 * kept["2.jsonl"])
    assert [file.weight for file in data.report.files] == [2.5, 1.0, 0.5]
    assert sum("is mixed with weight" in notice for notice in data.report.notices) == 2


def test_a_weight_that_leaves_nothing_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    big = write_jsonl(tmp_path / "big.jsonl", map(qa, range(40)))
    small = write_jsonl(tmp_path / "small.jsonl", map(qa, range(50, 52)))
    mixture = Mixture((WeightedFile(big), WeightedFile(small, 0.01)))
    with pytest.raises(DataError, match=r"small.jsonl with weight 0.01 gives no row"):
        prepared(request_for(big, train_location=mixture))


def test_only_the_last_answer_is_trained_where_history_is_masked(
    prepared: Prepare, tmp_path: Path
) -> None:
    turns = [
        {"role": role, "content": f"{role} {turn}"}
        for turn in range(3)
        for role in ("user", "assistant")
    ]
    path = write_jsonl(tmp_path / "d.jsonl", [{"messages": turns}])
    every = prepared(request_for(path, eval_wanted=False)).train
    last = prepared(request_for(path, eval_wanted=False, mask_history=True)).train
    assert every.input_ids(0).tolist() == last.input_ids(0).tolist()
    starts = [int((np.diff(rows.trained(0).astype(int)) == 1).sum()) for rows in (every, last)]
    assert starts == [3, 1]


def _told_of_tokenising() -> tuple[list[int], Callable[[str, int, int], None]]:
    told: list[int] = []

    def work(what: str, done: int, total: int) -> None:
        if what == "tokenising":
            told.append(done)

    return told, work


def test_work_that_was_cut_off_goes_on_after_its_finished_parts(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_ROWS", 10)
    monkeypatch.setattr(tokenizing, "PART_BATCHES", 2)
    path = write_jsonl(tmp_path / "d.jsonl", map(qa, range(95)))

    def stop_at_60(what: str, done: int, total: int) -> None:
        if what == "tokenising" and done >= 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(request_for(path), work=stop_at_60)
    (partial,) = prepared.cache_dir.rglob("partial")
    assert len(list(partial.glob("part-*.json"))) == 2
    told, work = _told_of_tokenising()
    gone_on = prepared(request_for(path), work=work)
    assert told == [50, 60, 70, 80, 90, 95]
    assert not partial.exists()
    other = Prepare(prepared.tokenizer, tmp_path / "other cache")
    at_once = other(request_for(path))
    assert gone_on.report.fingerprint == at_once.report.fingerprint
    assert gone_on.report.ledger == at_once.report.ledger
    assert replace(gone_on.report, notices=()) == replace(at_once.report, notices=())


def test_a_damaged_part_is_made_again(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_ROWS", 10)
    monkeypatch.setattr(tokenizing, "PART_BATCHES", 1)
    path = write_jsonl(tmp_path / "d.jsonl", map(qa, range(50)))

    def stop_at_40(what: str, done: int, total: int) -> None:
        if what == "tokenising" and done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(request_for(path), work=stop_at_40)
    (damaged,) = prepared.cache_dir.rglob("train-00001.arrow")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    told, work = _told_of_tokenising()
    data = prepared(request_for(path), work=work)
    assert told == [20, 30, 40, 50]
    assert (len(data.train), len(data.eval)) == (45, 5)


def test_the_ledger_counts_every_row_and_token(prepared: Prepare, tmp_path: Path) -> None:
    rows: list[dict[str, str]] = [*map(qa, range(30)), {"question": "Why?", "answer": ""}, qa(3)]
    rows += [{"question": "Long?", "answer": "word " * 400}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    request = request_for(path, filter_empty=True, remove_duplicates=True, max_output_length=300)
    data = prepared(request)
    ledger = data.report.ledger
    assert ledger is not None
    assert (ledger.rows_in, ledger.rows_kept) == (33, 30)
    assert {count.kind: count.rows for count in ledger.dropped} == {
        "empty": 1,
        "duplicate": 1,
        "answer too long": 1,
    }
    assert ledger.rows_in == ledger.rows_kept + ledger.rows_dropped
    both = (data.train, data.eval)
    assert ledger.tokens == sum(int(side.lengths().sum()) for side in both)
    assert ledger.trained_tokens == sum(int(side.trained_counts().sum()) for side in both)
    assert ledger.answers == ledger.answers_end_trained
    assert ledger.template_sha256 == sha256(CHATML.encode()).hexdigest()


def _two_files(tmp_path: Path, *, weight: float = 1.0) -> Mixture:
    one = write_jsonl(tmp_path / "one.jsonl", map(qa, range(60)))
    two = write_jsonl(tmp_path / "two.jsonl", map(qa, range(100, 160)))
    return Mixture((WeightedFile(one), WeightedFile(two, weight)))


def test_a_file_of_which_no_row_is_left_is_no_fault_of_its_weight(
    prepared: Prepare, tmp_path: Path
) -> None:
    request = request_for(tmp_path, train_location=_two_files(tmp_path), max_samples=50)
    data = prepared(request)
    assert len(data.train) + len(data.eval) == 50
    ledger = data.report.ledger
    assert {count.kind: count.rows for count in ledger.dropped} == {"beyond max_samples": 50}
    assert ledger.rows_in == ledger.rows_kept + ledger.rows_dropped == 100


def test_rows_that_a_weight_does_not_draw_are_counted(prepared: Prepare, tmp_path: Path) -> None:
    mixture = _two_files(tmp_path, weight=0.5)
    ledger = prepared(request_for(tmp_path, train_location=mixture)).report.ledger
    assert [count.kind for count in ledger.dropped] == ["not drawn"]
    assert ledger.rows_in == ledger.rows_kept + ledger.rows_dropped == 120


def test_a_row_that_a_weight_repeats_is_left_out_once(prepared: Prepare, tmp_path: Path) -> None:
    rows = [*map(qa, range(40)), {"question": "Long?", "answer": "word " * 400}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    request = request_for(
        path,
        train_location=Mixture((WeightedFile(path, 3.0),)),
        eval_wanted=False,
        max_output_length=300,
    )
    ledger = prepared(request).report.ledger
    assert (ledger.rows_in, ledger.rows_kept, ledger.rows_dropped) == (41, 120, 1)


def test_labels_for_the_split_are_asked_of_rows_that_are_split_only(
    prepared: Prepare, tmp_path: Path
) -> None:
    labelled = [{**qa(n), "source": f"book {n % 7}"} for n in range(40)]
    train = write_jsonl(tmp_path / "t.jsonl", labelled)
    test = write_jsonl(tmp_path / "x.jsonl", map(qa, range(100, 120)))
    held_out = write_jsonl(tmp_path / "e.jsonl", map(qa, range(200, 220)))
    data = prepared(request_for(train, test_location=test, group_by="source"))
    assert len(data.train) + len(data.eval) == 40
    plain = write_jsonl(tmp_path / "p.jsonl", map(qa, range(40)))
    data = prepared(request_for(plain, eval_location=held_out, group_by="source"))
    assert any("group_by has no effect" in warning for warning in data.report.warnings)


def test_the_ledger_leaves_rows_that_are_kept_apart_out_of_both_columns(
    prepared: Prepare, tmp_path: Path
) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", map(qa, range(60)))
    test = write_jsonl(tmp_path / "x.jsonl", [*map(qa, range(100, 110))] * 2)
    told: list[tuple[int, int]] = []

    def work(what: str, done: int, total: int) -> None:
        if what == "tokenising":
            told.append((done, total))

    request = request_for(train, test_location=test, remove_duplicates=True)
    ledger = prepared(request, work=work).report.ledger
    assert (ledger.rows_in, ledger.rows_kept, ledger.rows_dropped) == (60, 60, 0)
    assert told[-1] == (60, 60)


def test_near_duplicates_are_counted_with_their_copies(prepared: Prepare, tmp_path: Path) -> None:
    long = "the patient should drink plenty of water and rest for at least two days"
    twins = [{"question": "What to do?", "answer": long}] * 3
    twins.append({"question": "What to do?", "answer": long + " more"})
    path = write_jsonl(tmp_path / "d.jsonl", [*map(qa, range(40)), *twins])
    counts = prepared(request_for(path)).report.duplicates
    assert (counts.exact, counts.near) == (2, 4)
