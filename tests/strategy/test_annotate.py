"""Comments in a strategy file: they stand where they belong, and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.strategy.annotate import Comment, annotate, one_line
from llamafarm.strategy.dump import to_yaml, with_values
from llamafarm.strategy.loader import load_strategy
from llamafarm.strategy.model import Strategy

WRITTEN = with_values(
    Strategy(id="mine"),
    {
        "base_model.id": "smollm2-135m-instruct",
        "method.r": 8,
        "method.alpha": 16.0,
        "method.target_modules": ("q_proj", "v_proj"),
        "training_args.learning_rate": 1e-4,
        "training_args.num_train_epochs": 2.5,
        "prompt_template.format": "first\nr: 4.0\nlast\n",
        "dataset.path": "rows.jsonl",
    },
)


def annotated(comments: dict[str, Comment], head: tuple[str, ...] = ()) -> list[str]:
    return annotate(to_yaml(WRITTEN), comments, head).splitlines()


def again(text: str, tmp_path: Path, name: str = "mine") -> Strategy:
    file = tmp_path / "strategy.yaml"
    file.write_text(text, encoding="utf-8")
    found = load_strategy(file, name, environ={})
    return found.model_copy(update={"file": None, "origins": {}, "notices": ()})


def test_a_short_comment_stands_behind_its_value() -> None:
    lines = annotated({"method.r": Comment(beside="table: row 1B")})
    assert "          r: 8  # table: row 1B" in lines


def test_a_long_comment_stands_above_its_value_in_lines_of_a_hundred() -> None:
    lines = annotated({"method.r": Comment(beside="word " * 60)})
    at = lines.index("          r: 8")
    above = [line for line in lines[at - 3 : at] if line.startswith("          # word")]
    assert len(above) > 2
    assert max(map(len, lines)) <= 100


def test_a_block_has_its_comment_above_and_what_belongs_to_it_below() -> None:
    comments = {"method": Comment(above=("what is trained",), below=("left out:", "  bias"))}
    lines = annotated(comments)
    at = lines.index("        method:")
    assert lines[at - 1] == "        # what is trained"
    end = lines.index("        training_args:")
    assert lines[end - 2 : end] == ["          # left out:", "          #   bias"]


def test_of_two_blocks_that_end_together_the_inner_comment_comes_first() -> None:
    comments = {"": Comment(below=("outer",)), "prompt_template": Comment(below=("inner",))}
    assert annotated(comments)[-2:] == ["    # inner", "  # outer"]


def test_the_name_of_a_key_in_the_file_leads_to_its_field() -> None:
    lines = annotated({"base_model.id": Comment(beside="the packaged model")})
    assert any(line.endswith("instruct  # the packaged model") for line in lines)


def test_a_text_of_several_lines_is_left_alone(tmp_path: Path) -> None:
    comments = {"prompt_template.format": Comment(beside="mine")}
    text = annotate(to_yaml(WRITTEN), comments)
    assert again(text, tmp_path).prompt_template.format == "first\nr: 4.0\nlast\n"
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == "format: |")
    assert lines[at - 1].strip() == "# mine"


def test_whole_numbers_lose_their_point_and_others_keep_it() -> None:
    lines = [line.strip() for line in annotated({})]
    assert "alpha: 16" in lines
    assert "num_train_epochs: 2.5" in lines


def test_the_head_stands_on_top_with_its_indents() -> None:
    lines = annotated({}, ("What this is.", "", "  model  mine"))
    assert lines[:4] == ["# What this is.", "#", "#   model  mine", 'version: "2.0"']


@pytest.mark.parametrize("name", ["mine", "components", "strategies"])
def test_a_strategy_of_any_name_is_commented(name: str, tmp_path: Path) -> None:
    strategy = WRITTEN.model_copy(update={"id": name})
    text = annotate(to_yaml(strategy), {"method.r": Comment(beside="why")})
    assert "r: 8  # why" in text
    assert again(text, tmp_path, name) == strategy


def test_a_comment_cannot_end_its_line() -> None:
    assert one_line("a\nb\x1b[2J\u2028c\x00") == "a b\\x1b[2J c\\x00"


@given(st.text(max_size=300), st.text(max_size=80), st.text(max_size=80))
def test_no_comment_changes_the_strategy(
    tmp_path_factory: pytest.TempPathFactory, long: str, short: str, head: str
) -> None:
    comments = {
        "method.r": Comment((short,), long, (short,)),
        "method": Comment((long,), "", (long,)),
        "dataset.path": Comment(beside=short),
        "": Comment(below=(long,)),
    }
    text = annotate(to_yaml(WRITTEN), comments, (head, long))
    found = again(text, tmp_path_factory.mktemp("annotated"))
    assert found == WRITTEN


def test_a_strategy_called_version_has_its_comments_too(tmp_path: Path) -> None:
    strategy = with_values(Strategy(id="version"), {"method.r": 8})
    text = annotate(to_yaml(strategy), {"method.r": Comment(beside="table: why")})
    assert "r: 8  # table: why" in text
    assert again(text, tmp_path, "version").method.r == 8
