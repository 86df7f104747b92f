"""docs/DATA.md: its commands run, their output is as it stands there, its rows are rows, and its
numbers are those of the code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llamafarm.data import survey
from llamafarm.data.compressed import MAX_RATIO, MAX_UNPACKED_BYTES
from llamafarm.data.encoding import MAX_LINE_BYTES
from llamafarm.data.formats import FORMATS, RowSpec, recognise, to_conversation
from llamafarm.data.leakage import GATE_SHARE
from llamafarm.data.near.contained import CONTAINED_PERCENT, MIN_SHINGLES
from llamafarm.data.near.search import NEAR_SIMILARITY
from llamafarm.data.quality.languages import SAMPLE_ROWS
from llamafarm.data.readers import file_kind
from llamafarm.data.records import BadRow, Record
from llamafarm.data.report import LEAK_WORDS
from llamafarm.data.rows import RowRef
from llamafarm.strategy.model import FORMAT_ALIASES
from tests.docs.pages import ROOT, Block, blocks, prose, sections, tables, ticked
from tests.docs.shell import Ran, files_of, missing_lines, run_page, shown_after

PAGE = ROOT / "docs" / "DATA.md"
SHELL_BLOCKS = blocks(PAGE, "bash")
SECTIONS = sections(PAGE.read_text("utf-8"))


def rows_of(first_column: str) -> tuple[tuple[str, ...], ...]:
    return next(t.rows for t in tables(prose(PAGE)) if t.header[0] == first_column)


def example_rows() -> dict[str, str]:
    """Format → the row that the page shows."""
    return {ticked(row[0])[0]: ticked(row[1])[0] for row in rows_of("`format`")}


def record(text: str) -> Record:
    fields = json.loads(text)
    assert isinstance(fields, dict)
    return Record(RowRef("DATA.md", 1), fields)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Ran]:
    """Every shell block, by its line."""
    done = run_page(PAGE, tmp_path_factory.mktemp("reader"), tmp_path_factory.mktemp("caches"))
    return {result.block.line: result for result in done}


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_block_ends_as_it_promises(block: Block, ran: dict[int, Ran]) -> None:
    done = ran[block.line]
    assert done.codes == done.promised, done.output


@pytest.mark.parametrize("line", shown_after(PAGE))
def test_output_is_as_the_page_shows_it(line: int, ran: dict[int, Ran]) -> None:
    assert missing_lines(shown_after(PAGE)[line], ran[line].output) == [], ran[line].output


def test_the_page_gives_every_file_that_its_commands_name() -> None:
    assert {name for name, _ in files_of(PAGE).values()} >= {"raw_data.txt", "chats.jsonl"}
    assert len(shown_after(PAGE)) > 5


def test_every_format_has_a_row_in_the_order_of_recognition() -> None:
    assert list(example_rows()) == list(FORMATS)


@pytest.mark.parametrize(("name", "text"), example_rows().items(), ids=lambda value: value[:20])
def test_row_of_the_table_is_read_as_its_format(name: str, text: str) -> None:
    spec = RowSpec(FORMATS[name].name) if FORMATS[name].by_name else RowSpec()
    parsed = to_conversation(record(text), spec)
    assert not isinstance(parsed, BadRow), parsed
    assert parsed[1] == name


def test_a_format_that_needs_its_name_is_said_to_need_it() -> None:
    by_name = {name for name, row_format in FORMATS.items() if row_format.by_name}
    (sentence,) = re.findall(r"is\s+needed for (.+?)\.", SECTIONS["Rows"])
    assert set(ticked(sentence)) == by_name
    for name in by_name:
        found = recognise(record(example_rows()[name]), RowSpec())
        assert found is not None and found.name != name


def test_what_the_jeopardy_row_trains_is_what_the_table_says() -> None:
    parsed = to_conversation(record(example_rows()["jeopardy"]), RowSpec("jeopardy"))
    assert not isinstance(parsed, BadRow)
    trained = next(row[2] for row in rows_of("`format`") if "`jeopardy`" in row[0])
    assert parsed[0].messages[-1].content == ticked(trained)[0]


def test_names_of_other_tools_are_understood() -> None:
    (sentence,) = re.findall(r"names of other tools too: (.+?)…", SECTIONS["Rows"])
    assert len(ticked(sentence)) > 2
    assert set(ticked(sentence)) <= set(FORMAT_ALIASES)


def unnamed_json() -> list[str]:
    """Rows in blocks of JSON that are no file of the page."""
    named = files_of(PAGE)
    found = [block for block in blocks(PAGE, "json") if block.line not in named]
    return [line for block in found for line in block.text.splitlines()]


@pytest.mark.parametrize("text", unnamed_json(), ids=lambda text: text[:20])
def test_row_in_the_text_is_a_row(text: str) -> None:
    parsed = to_conversation(record(text), RowSpec())
    assert not isinstance(parsed, BadRow), parsed


def test_the_row_with_tools_holds_a_description_a_call_and_an_answer() -> None:
    (text,) = unnamed_json()
    parsed = to_conversation(record(text), RowSpec())
    assert not isinstance(parsed, BadRow)
    conversation = parsed[0]
    assert conversation.tools
    assert [bool(m.tool_calls) for m in conversation.messages] == [False, True, False, False]
    assert [m.role for m in conversation.messages][2] == "tool"


@pytest.mark.parametrize("ending", [e for row in rows_of("Name ends in") for e in ticked(row[0])])
def test_every_ending_of_the_table_is_read(ending: str) -> None:
    assert file_kind(Path(f"rows{ending}"))
    if "parquet" not in file_kind(Path(f"rows{ending}")):
        assert file_kind(Path(f"rows{ending}.gz")) and file_kind(Path(f"rows{ending}.zst"))


def role_names() -> list[str]:
    (listed,) = re.findall(
        r"Roles that need no naming: (.+?)\.\n", SECTIONS["Names of their own"], re.DOTALL
    )
    return ticked(listed)


@pytest.mark.parametrize("role", role_names())
def test_a_role_that_needs_no_naming_is_known(role: str) -> None:
    asked = {"role": "user", "content": "Is it warm?"}
    said = '{"name": "weather", "arguments": {}}' if role.endswith("_call") else "Yes."
    turns = [asked, {"role": role, "content": said}, asked, {"role": "assistant", "content": "No."}]
    parsed = to_conversation(record(json.dumps({"messages": turns})), RowSpec())
    assert not isinstance(parsed, BadRow), parsed


def test_kinds_of_duplicates_are_those_of_the_report() -> None:
    assert [ticked(row[0])[0] for row in rows_of("Two rows are")] == list(LEAK_WORDS)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("Duplicates", f"Jaccard similarity of at least {NEAR_SIMILARITY:g}"),
        ("Duplicates", f"at least {CONTAINED_PERCENT} % of the shingles"),
        ("Duplicates", f"and at least {MIN_SHINGLES},"),
        ("Duplicates", f"at least {survey.COMMON_PROMPT_ROWS} rows"),
        ("Duplicates", f"and {survey.COMMON_PROMPT_SHARE * 100:g} % of all rows"),
        ("Leakage", f"more than {GATE_SHARE * 100:g} % of the rows"),
        ("What else is noticed", f"a sample of {SAMPLE_ROWS:,} rows a side"),
        ("Large files", f"may have {MAX_LINE_BYTES // 2**20} MiB"),
        ("Large files", f"more than {MAX_UNPACKED_BYTES // 2**30} GiB"),
        ("Large files", f"more than {MAX_RATIO} times its size"),
    ],
)
def test_numbers_are_those_of_the_code(section: str, said: str) -> None:
    assert said in " ".join(SECTIONS[section].split())
