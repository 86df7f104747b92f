"""A plan as a strategy to read: it plans the same run, and every line says who decided it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.decision import Decision
from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.recommended import (
    decision_name,
    left_out,
    open_fields,
    other_remarks,
    reasons,
    strategy_of_plan,
    strategy_without_data,
    written_paths,
)
from llamafarm.planning.resolve import WithoutData, resolve_without_data
from llamafarm.strategy.annotate import annotate
from llamafarm.strategy.dump import to_yaml
from llamafarm.strategy.loader import default_strategy, load_strategy
from llamafarm.strategy.model import DatasetSection, Method, Strategy
from llamafarm.strategy.overrides import Override
from tests.hardware.recorded import A10, H200, LAPTOP, M2_16GB, RTX_4090, T4
from tests.planning.building import (
    HOME,
    LLAMA_1B,
    LLAMA_7B,
    SMOLLM2,
    SMOLLM2_SOURCE,
    make_request,
    plan_for,
    with_args,
)

DATA = DatasetSection(path="rows.jsonl")
CASES: dict[str, tuple[Strategy, Any, Any]] = {
    "laptop": (Strategy(id="s", dataset=DATA), LAPTOP, SMOLLM2),
    "7B on an H200": (Strategy(id="s", dataset=DATA), H200, LLAMA_7B),
    "7B on an A10": (Strategy(id="s", dataset=DATA), A10, LLAMA_7B),
    "1B on a T4": (Strategy(id="s", dataset=DATA), T4, LLAMA_1B),
    "apple": (Strategy(id="s", dataset=DATA), M2_16GB, SMOLLM2),
    "qlora": (Strategy(id="s", dataset=DATA, method=Method(type="qlora")), RTX_4090, LLAMA_7B),
    "full": (Strategy(id="s", dataset=DATA, method=Method(type="full_finetune")), H200, LLAMA_1B),
    "no evaluation": (with_args("s", eval_strategy="no"), LAPTOP, SMOLLM2),
    "by epoch": (with_args("s", eval_strategy="epoch", save_strategy="epoch"), LAPTOP, SMOLLM2),
    "max steps": (with_args("s", max_steps=20), LAPTOP, SMOLLM2),
}


def read_back(strategy: Strategy, tmp_path: Path) -> Strategy:
    file = tmp_path / "strategy.yaml"
    file.write_text(annotate(to_yaml(strategy), {}), encoding="utf-8")
    return load_strategy(file, strategy.id, environ={})


def bare(plan: TrainingPlan) -> TrainingPlan:
    return replace(plan, decisions=())


def recommended(name: str) -> tuple[Strategy, TrainingPlan, Strategy]:
    strategy, machine, shape = CASES[name]
    plan = plan_for(strategy, machine, shape)
    return strategy, plan, strategy_of_plan(strategy, plan, None)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [40, 412, 20_000])
def test_the_written_strategy_plans_the_same_run(name: str, rows: int, tmp_path: Path) -> None:
    strategy, machine, shape = CASES[name]
    plan = plan_for(strategy, machine, shape, rows=rows)
    written = read_back(strategy_of_plan(strategy, plan, None), tmp_path)
    assert bare(plan_for(written, machine, shape, rows=rows)) == bare(plan)


@pytest.mark.parametrize("name", CASES)
def test_what_is_recommended_is_warned_about_no_more_than_before(name: str, tmp_path: Path) -> None:
    _, machine, shape = CASES[name]
    _, plan, written = recommended(name)
    again = plan_for(read_back(written, tmp_path), machine, shape)
    assert set(again.warnings) <= set(plan.warnings)


@pytest.mark.parametrize("name", CASES)
def test_every_line_says_who_decided_it(name: str) -> None:
    strategy, plan, written = recommended(name)
    comments = reasons(plan.decisions, written_paths(written), strategy)
    of_plan = [path for path in written_paths(written) if not path.startswith("dataset.")]
    assert len(of_plan) > 30
    for path in of_plan:
        assert comments[path].beside
        about = [d for d in plan.decisions if d.field == decision_name(path)]
        values = [d for d in about if d.source not in ("warning", "notice")]
        assert comments[path].beside.startswith(f"{values[0].source}: ")
        assert values[0].reason.rstrip(".") in comments[path].beside


@pytest.mark.parametrize("name", CASES)
def test_every_value_of_a_table_is_written_and_names_its_row(name: str) -> None:
    strategy, plan, written = recommended(name)
    comments = reasons(plan.decisions, written_paths(written), strategy)
    by_table = [d.field for d in plan.decisions if d.source == "table"]
    names = {decision_name(path): path for path in written_paths(written)}
    for field in by_table:
        assert "row " in comments[names[field]].beside


def test_a_warning_about_a_value_stands_above_it_and_others_in_the_head() -> None:
    strategy = with_args("s", learning_rate=0.5)
    plan = plan_for(strategy, rows=40)
    written = strategy_of_plan(strategy, plan, None)
    comments = reasons(plan.decisions, written_paths(written), strategy)
    (above,) = comments["training_args.learning_rate"].above
    assert above.startswith("warning: learning_rate=0.5 is more than twice")
    remarks = (*plan.decisions, Decision("dataset", "", "warning", "rows repeat"))
    assert other_remarks(remarks, written_paths(written)) == ["warning: rows repeat"]


def test_data_keep_the_names_that_they_were_given_by() -> None:
    strategy = Strategy(id="s", dataset=DatasetSection(path="rows.jsonl", max_samples=30))
    written = strategy_of_plan(strategy, plan_for(strategy), None)
    assert written.dataset == DatasetSection(path="rows.jsonl", max_samples=30, eval_split=0.1)


def test_the_share_that_auto_came_to_is_written() -> None:
    strategy = Strategy(id="s", dataset=DatasetSection(path="rows.jsonl", eval_split="auto"))
    plan = plan_for(strategy, request=make_request(eval_auto=True), rows=38)
    assert strategy_of_plan(strategy, plan, 0.05).dataset.eval_split == 0.05


def without_data(strategy: Strategy, machine: Any = LAPTOP, shape: Any = SMOLLM2) -> WithoutData:
    return resolve_without_data(
        strategy,
        machine,
        SMOLLM2_SOURCE,
        shape,
        working_directory=HOME,
        bitsandbytes_available=True,
    )


@pytest.mark.parametrize("name", ["laptop", "7B on an H200", "1B on a T4", "qlora", "full"])
def test_without_data_the_same_is_decided_as_far_as_it_goes(name: str, tmp_path: Path) -> None:
    strategy, machine, shape = CASES[name]
    strategy = strategy.model_copy(update={"dataset": DatasetSection()})
    found = without_data(strategy, machine, shape)
    written = read_back(strategy_without_data(strategy, found), tmp_path)
    assert written.training_args.learning_rate is None
    assert written.training_args.per_device_train_batch_size is None
    plan = plan_for(strategy, machine, shape)
    assert bare(plan_for(written, machine, shape)) == bare(plan)
    decided = {d.field: d for d in plan.decisions if d.source not in ("notice", "warning")}
    by_data = {"seed", "gradient_accumulation_steps"}
    for decision in found.decisions:
        if decision.source in ("notice", "warning") or "batch" in decision.field:
            continue
        assert decision.field in by_data or decided[decision.field] == decision


def test_what_depends_on_the_rows_is_listed_with_every_row_of_its_table() -> None:
    strategy = Strategy(id="s")
    fields = {f.path: f for f in open_fields(strategy, without_data(strategy), 10**9)}
    rate = fields["training_args.learning_rate"].reason
    assert "under 100: 1e-05 to 5e-05" in rate
    assert "over 10000: 0.0002 to 0.0005" in rate
    assert fields["training_args.per_device_train_batch_size"].value == "8"
    assert "robust validation 0.15" in fields["dataset.eval_split"].reason
    text = left_out(fields.values())
    assert text[0] == "Left out, because it depends on the rows:"
    assert len(text) == len(fields) + 1


def test_what_a_flag_has_settled_is_not_open() -> None:
    strategy = default_strategy("s", [Override("learning_rate", 1e-4, "--set learning_rate=1e-4")])
    found = without_data(strategy)
    open_paths = {f.path for f in open_fields(strategy, found, 10**9)}
    assert "training_args.learning_rate" not in open_paths
    written = strategy_without_data(strategy, found)
    assert written.training_args.learning_rate == 1e-4
    comments = reasons(found.decisions, written_paths(written), strategy)
    beside = comments["training_args.learning_rate"].beside
    assert beside == "flag: --set learning_rate=1e-4"


def test_less_memory_than_the_row_asks_for_is_told_without_data_too() -> None:
    found = without_data(Strategy(id="s"), T4, LLAMA_7B)
    (text,) = [d.reason for d in found.decisions if d.source == "warning"]
    assert "below the 15.5 GiB that the table asks for with 6.74B parameters" in text
    assert "23.5 GiB are recommended" in text
