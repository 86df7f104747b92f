from __future__ import annotations

import math

import pytest

from llamafarm.strategy.nodes import (
    MappingNode,
    ScalarNode,
    from_plain,
    resolve_plain,
    shown,
    to_plain,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1e5", 1e5),
        ("1E-5", 1e-5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("007", 7),
        ("+3", 3),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
    ],
)
def test_unquoted_scalars_follow_the_core_rules(text: str, value: object) -> None:
    assert resolve_plain(text) == value
    assert type(resolve_plain(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "5-10",
        "1_000",
        "1:30",
        "2024-01-01",
        "v2",
        "e5",
        ".",
        "-",
        "8x",
    ],
)
def test_words_and_dates_stay_text(text: str) -> None:
    assert resolve_plain(text) == text


def test_infinite_and_undefined_numbers_are_read() -> None:
    assert resolve_plain("-.inf") == -math.inf
    assert math.isnan(float(str(resolve_plain(".nan"))))


def test_a_number_of_many_digits_is_no_integer() -> None:
    assert resolve_plain("9" * 5000) == math.inf
    assert isinstance(resolve_plain("1" * 19), float)


def test_quoted_text_is_text() -> None:
    assert ScalarNode("8", quoted=True).value == "8"
    assert not ScalarNode("null", quoted=True).is_null


def test_plain_values_go_there_and_back() -> None:
    value = {"a": [1, 2.5, True, None, "no", "1e5"], "b": {"c": "x"}}
    assert to_plain(from_plain(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("step", '"step"'),
        (3, "3"),
        (True, "true"),
        (None, "nothing"),
        ([1, "x"], '[1, "x"]'),
        ({"a": 1}, "a mapping"),
        ("x" * 100, '"' + "x" * 58 + "…"),
        (float("inf"), ".inf"),
    ],
)
def test_values_are_shown_as_written(value: object, text: str) -> None:
    assert shown(from_plain(value)) == text


def test_a_mapping_finds_its_entries() -> None:
    node = from_plain({"a": 1, "b": 2})
    assert isinstance(node, MappingNode)
    assert node.keys() == ("a", "b")
    assert node.get("c") is None
