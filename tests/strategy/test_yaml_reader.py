from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llamafarm.errors import StrategyError
from llamafarm.strategy.nodes import MappingNode, SequenceNode, to_plain
from llamafarm.strategy.yaml_reader import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    parse_yaml,
    read_yaml,
)


def plain(text: str) -> object:
    node = parse_yaml(text, "f.yaml")
    return None if node is None else to_plain(node)


def mapping(text: str) -> MappingNode:
    node = parse_yaml(text, "f.yaml")
    assert isinstance(node, MappingNode)
    return node


def refusal(text: str) -> str:
    with pytest.raises(StrategyError) as refused:
        parse_yaml(text, "f.yaml")
    return refused.value.render()


def test_every_key_and_value_has_its_line() -> None:
    node = mapping("a: 1\nb:\n  - x\n  -\n    c: 2\n# comment\nd: |\n  text\n  more\n")
    assert [(e.key, e.line) for e in node] == [("a", 1), ("b", 2), ("d", 7)]
    items = node.entries[1].value
    assert isinstance(items, SequenceNode)
    assert [item.line for item in items.items] == [3, 5]


def test_keys_are_names_whatever_they_look_like() -> None:
    assert plain("on: 1\n2024: 2\nnull: 3\ntrue: 4\n") == {"on": 1, "2024": 2, "null": 3, "true": 4}


def test_quoted_and_block_scalars_are_text() -> None:
    assert plain("a: '1'\nb: \"no\"\nc: |\n  5\nd: >-\n  2e-4\n") == {
        "a": "1",
        "b": "no",
        "c": "5\n",
        "d": "2e-4",
    }


def test_of_equal_keys_the_first_stands_and_both_lines_are_known() -> None:
    node = mapping("a: 1\nb: 2\na: 3\na: 4\n")
    assert to_plain(node) == {"a": 1, "b": 2}
    assert [(d.key, d.first_line, d.line) for d in node.duplicates] == [("a", 1, 3), ("a", 1, 4)]


def test_aliases_and_merge_keys_keep_the_lines_of_their_anchor() -> None:
    node = mapping("d: &d\n  x: 1\n  y: 2\ne:\n  <<: *d\n  x: 3\nf: *d\n")
    assert to_plain(node) == {"d": {"x": 1, "y": 2}, "e": {"x": 3, "y": 2}, "f": {"x": 1, "y": 2}}
    merged = node.entries[1].value
    assert isinstance(merged, MappingNode)
    assert [(e.key, e.line) for e in merged] == [("x", 6), ("y", 3)]


def test_a_merge_key_takes_a_list_and_nothing_else() -> None:
    assert plain("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc:\n  <<: [*a, *b]\n") == {
        "a": {"x": 1},
        "b": {"x": 2, "y": 3},
        "c": {"x": 1, "y": 3},
    }
    assert "`<<` takes an alias of a mapping" in refusal("c:\n  <<: 5\n")


@pytest.mark.parametrize("text", ["", "  \n", "# only a comment\n", "---\n", "~", "null"])
def test_nothing_is_nothing(text: str) -> None:
    assert parse_yaml(text, "f.yaml") is None


@pytest.mark.parametrize("loader", ["libyaml", "python"])
@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1, 2\nb: 3\n", 2, "the list opened with `[` in line 1 is not closed"),
        ("a: {b: 1\nc: 2", 2, "the mapping opened with `{` in line 1 is not closed"),
        ("a:\n\tb: 1\n", 2, "a tab stands in the indentation"),
        ("a: b: c\n", 1, "a `:` stands where no key can begin"),
        ("k: v\n  bad: 1\n", 2, "a `:` stands where no key can begin"),
        ("a: 'x\n", 2, "the text whose quote opens in line 1 is not closed"),
        ("a: @x\n", 1, "`@` cannot begin a value"),
        ("- a\nb: c\n", 2, "this line does not continue the block that begins in line 1"),
        ("a: 1\nb\n", 3, "expected `key: value`"),
        ("a: *nope\n", 1, "no anchor &nope stands before this alias"),
        ("a: &x [*x]\n", 1, "the alias *x stands inside its own anchor"),
        ("a: !!python/object:os.system x\n", 1, "is not accepted"),
        ("a: !custom x\n", 1, "the tag !custom is not accepted"),
        ("a: !!str 5\n", 1, "is not accepted"),
        ("a: 1\n---\nb: 2\n", 2, "a second document begins"),
        ("? [a]\n: b\n", 1, "a key must be a single word or text"),
        ("a: \x07\n", 1, "a control character stands here (U+0007)"),
        ("a: 1\nb: \udc80\n", 2, "a control character stands here (U+DC80)"),
    ],
)
def test_a_syntax_error_names_its_line_in_words(
    monkeypatch: pytest.MonkeyPatch, loader: str, text: str, line: int, message: str
) -> None:
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    shown = refusal(text)
    assert f"f.yaml:{line}  " in shown
    assert message in shown


def test_nesting_is_limited() -> None:
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal("[" * 100_000)
    assert plain("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


def test_nesting_through_aliases_is_limited() -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 40)]
    assert "nested deeper" in refusal("\n".join(lines))


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "with aliases expanded" in refusal("\n".join(lines))
    many = "a: &a 1\nb: [" + ", ".join(["*a"] * (MAX_ALIASES + 1)) + "]\n"
    assert f"more than {MAX_ALIASES} aliases" in refusal(many)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(StrategyError, match="larger than 1,000,000 bytes"):
        read_yaml(path)


def test_a_file_in_another_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(StrategyError) as refused:
        read_yaml(path)
    assert f"{path}:2  not UTF-8 text (byte 0xe9)" in refused.value.render()


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    node = read_yaml(path)
    assert isinstance(node, MappingNode)
    assert [(e.key, e.line) for e in node] == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_an_error_of_the_user(tmp_path: Path, name: str) -> None:
    with pytest.raises(StrategyError) as refused:
        read_yaml(tmp_path / name)
    assert refused.value.exit_code == 2
    assert str(tmp_path) in refused.value.render()


@pytest.mark.parametrize(
    "text",
    [
        "-\n" * 300_000,
        "".join(f"k{n}: 1\n" for n in range(60_000)),
        "a: [" + "[]," * 250_000 + "]",
        "a: [" + "{}," * 250_000 + "]",
        "?\n" * 300_000,
    ],
    ids=["lines", "keys", "lists", "mappings", "empty_keys"],
)
def test_the_number_of_values_is_limited_while_they_are_read(text: str) -> None:
    assert f"more than {MAX_NODES:,} values" in refusal(text)


def test_a_merge_bomb_is_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n  k{n}: 1" for n in range(1, 30)]
    assert "with aliases expanded" in refusal("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "? " + "x" * 900_000 + "\n: 1\n",
        "a: !" + "x" * 900_000 + " b\n",
        "a: *" + "x" * 900_000 + "\n",
        "a: &" + "x" * 900_000 + " [*" + "x" * 90_000 + "]\n",
    ],
    ids=["key", "tag", "alias", "anchor"],
)
def test_a_long_name_is_refused_in_a_short_message(text: str) -> None:
    assert len(refusal(text)) < 500


@pytest.mark.parametrize("escape", [r"\ud800", r"\UFFFFFFFF", r"\q", r"\xZZ"])
@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_an_escape_that_stands_for_no_character_is_named(
    monkeypatch: pytest.MonkeyPatch, loader: str, escape: str
) -> None:
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    shown = refusal(f'a: 1\nb: "{escape}"\n')
    assert "f.yaml:2  " in shown
    assert "stands before what is no escape of YAML" in shown


@pytest.mark.parametrize(
    "value",
    [
        "1" * 10_000,
        "1e" + "9" * 5_000,
        ".inf",
        ".nan",
        "1:30:00",
        "2024-01-01",
        "0b1",
        "1_000",
        "5.",
    ],
)
def test_what_other_yaml_takes_for_a_number_never_becomes_one_unseen(value: str) -> None:
    found = plain(f"a: {value}")
    assert isinstance(found, dict)
    assert found["a"] == value or isinstance(found["a"], float)


def test_a_surrogate_and_a_null_byte_are_named_with_their_line(tmp_path: Path) -> None:
    for content in (b"a: 1\nb: \xed\xa0\x80\n", b"a: 1\nb: \0\n"):
        path = tmp_path / "bytes.yaml"
        path.write_bytes(content)
        with pytest.raises(StrategyError) as refused:
            read_yaml(path)
        assert f"{path}:2  " in refused.value.render()
