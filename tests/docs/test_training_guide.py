"""The guide names every field with the default the code has, and the tables' numbers."""

from __future__ import annotations

import re

import pytest

from llamafarm.planning import tables as planned
from llamafarm.planning.later import not_in_this_version
from llamafarm.planning.tables import Range
from llamafarm.strategy.fields import FieldSpec, field_specs
from llamafarm.strategy.loader import default_strategy
from llamafarm.strategy.overrides import Override
from tests.docs.pages import ROOT, prose, sections, tables, ticked

GUIDE = ROOT / "docs" / "PYTORCH_TRAINING_GUIDE.md"
# A block that stands in the table of what is not in this version.
WITHOUT_A_ROW = {"distributed"}
SEED_LINKS = (
    "https://huggingface.co/docs/transformers/training",
    "https://arxiv.org/abs/2106.09685",
    "https://pytorch.org/tutorials/recipes/recipes/tuning_guide.html",
)


def documented() -> dict[str, tuple[str, ...]]:
    """Dotted path → row. The first cell of a header names the block: `method.`."""
    found: dict[str, tuple[str, ...]] = {}
    for table in tables(prose(GUIDE)):
        if len(table.header) != 5 or table.header[1] != "What it does":
            continue
        names = ticked(table.header[0])
        prefix = names[0] if names else ""
        for row in table.rows:
            path = prefix + ticked(row[0])[0]
            assert path not in found, f"{path} stands in the guide twice"
            found[path] = row
    return found


def numbers(cell: str) -> Range:
    """`5e-5 to 1e-4`, `8-16`, `4` → the range."""
    values = [float(v) for v in re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", cell)]
    return Range(values[0], values[-1])


def table_named(first_column: str) -> tuple[tuple[str, ...], ...]:
    return next(t.rows for t in tables(prose(GUIDE)) if t.header[0] == first_column)


def test_guide_names_every_field_and_no_other() -> None:
    assert set(documented()) == set(field_specs()) - WITHOUT_A_ROW


def test_fields_without_a_row_are_named_as_not_in_this_version() -> None:
    text = sections(GUIDE.read_text("utf-8"))["Not in this version"]
    assert {name for name in WITHOUT_A_ROW if f"`{name}`" in text} == WITHOUT_A_ROW


@pytest.mark.parametrize("spec", field_specs().values(), ids=lambda spec: spec.path)
def test_guide_gives_the_default_the_code_has(spec: FieldSpec) -> None:
    if spec.path in WITHOUT_A_ROW:
        return
    written = documented()[spec.path][2].strip("`")
    if isinstance(spec.default, bool):
        assert written == str(spec.default).lower()
    elif isinstance(spec.default, int | float):
        assert written == str(spec.default)
    elif isinstance(spec.default, str) and spec.default:
        assert written == spec.default
    elif spec.default is None or spec.default == "":
        assert written, f"{spec.path}: say what happens when it is left out"
        assert not re.fullmatch(r"-?\d+(\.\d+)?", written) or f"{written}" in spec.description
    else:
        assert written == "none"


@pytest.mark.parametrize("spec", field_specs().values(), ids=lambda spec: spec.path)
def test_guide_names_every_choice(spec: FieldSpec) -> None:
    choices = spec.schema.get("enum") or spec.schema.get("items", {}).get("enum", ())
    if spec.path in {*WITHOUT_A_ROW, "backend", "method.type"}:
        return
    row = " ".join(documented()[spec.path])
    missing = [c for c in choices if not re.search(rf"(?<!\w){c}(?!\w)", row)]
    assert missing == []


def test_size_table_is_the_planners() -> None:
    rows = table_named("Model size")
    assert len(rows) == len(planned.SIZE_ROWS)
    for cells, row in zip(rows, planned.SIZE_ROWS, strict=True):
        assert cells[0] == f"{row.billions:g}B"
        assert float(cells[1]) == row.min_memory_gib
        assert float(cells[2]) == row.recommended_memory_gib
        assert numbers(cells[3]) == row.rank
        assert numbers(cells[4]) == row.batch_size


def test_data_table_is_the_planners() -> None:
    rows = table_named("Rows")
    assert len(rows) == len(planned.DATA_ROWS)
    for cells, row in zip(rows, planned.DATA_ROWS, strict=True):
        assert cells[0] == row.name
        assert numbers(cells[1]) == row.learning_rate
        assert numbers(cells[2]) == row.epochs
        assert float(cells[3].rstrip("%")) / 100 == row.warmup_fraction


def test_split_table_is_the_planners() -> None:
    rows = table_named("Use")
    assert len(rows) == len(planned.SPLIT_ROWS)
    for cells, row in zip(rows, planned.SPLIT_ROWS, strict=True):
        assert cells[0].startswith(row.use_case)
        assert float(cells[1].rstrip("%")) / 100 == row.eval_fraction


def test_default_ranks_are_the_planners() -> None:
    ranks = [planned.default_rank(int(b * 1e9)) for b in (0.1, 1, 3, 7, 13)]
    assert ranks == [4, 8, 16, 32, 64]
    assert "4 below 1B, 8, 16, 32, 64 from 1B, 3B, 7B, above 13B" in documented()["method.r"][2]


def test_rows_of_what_is_not_built_say_so() -> None:
    """What planning would warn about, if every field were written."""
    written = {
        spec.path: True
        for spec in field_specs().values()
        if spec.schema.get("type") == "boolean" and "precision" not in spec.path
    }
    lists = {
        "training_args.report_to": ["wandb"],
        "prompt_template.stop_sequences": ["x"],
        "export.quantization": "q8_0",
        "export.model_name": "x",
        "export.system_prompt": "x",
        "export.ollama_parameters.top_k": 1,
    }
    overrides = [Override(path, value, path) for path, value in {**written, **lists}.items()]
    named = {d.field for d in not_in_this_version(default_strategy("all", overrides))}
    text = sections(GUIDE.read_text("utf-8"))["Not in this version"]
    silent = [
        path
        for path in sorted(named)
        if "not in this version" not in " ".join(documented()[path])
        and f"`{path.rsplit('.', 1)[-1]}`" not in text
    ]
    assert silent == []


def test_links_of_the_overview_are_kept() -> None:
    text = GUIDE.read_text("utf-8")
    assert [link for link in SEED_LINKS if f"({link})" not in text] == []
