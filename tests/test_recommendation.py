"""`recommend` and `init` with real rows and a real tokenizer: what is written is what `train`
plans.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm import RecommendRequest, recommend, setup
from llamafarm.errors import GateRefused, OutputError, StrategyError, UserError
from llamafarm.monitoring.events import Event
from llamafarm.planning.plan import TrainingPlan
from llamafarm.readiness import plan_run
from llamafarm.recommendation import Recommendation
from llamafarm.strategy.loader import default_strategy, load_strategy
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.overrides import Override
from tests.data.rows_on_disk import qa, write_jsonl
from tests.hardware.recorded import LAPTOP

Recommend = Callable[..., Recommendation]
GOLDEN = Path(__file__).parent / "golden" / "recommend"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> Path:
    """An empty directory on a recorded machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llamafarm.hardware.probe.probe", lambda: LAPTOP)
    return tmp_path


@pytest.fixture
def flags(tiny_model_dir: Path) -> Callable[..., tuple[Override, ...]]:
    """Flags as the commands make them, always with the tiny model."""

    def of(**given: object) -> tuple[Override, ...]:
        paths = {
            "dataset": "dataset.path",
            "eval_dataset": "dataset.eval_file",
            "use": "dataset.eval_split",
            "rate": "training_args.learning_rate",
        }
        model = Override("base_model.id", str(tiny_model_dir), f"--base-model {tiny_model_dir}")
        own = [Override(paths[k], v, f"--{k.replace('_', '-')} {v}") for k, v in given.items()]
        return (*own, model)

    return of


def silent(_: Event) -> None:
    """Nobody listens."""


def plan_of(strategy: Strategy) -> TrainingPlan:
    planned = plan_run(strategy, skip_bad_rows=False, allow_download=False, emit=silent)
    return replace(planned.plan, decisions=())


def same(plan: TrainingPlan) -> TrainingPlan:
    """Without what depends on the free disk, and without how the model was spelt."""
    source = replace(plan.model.source, requested="")
    forecast = replace(plan.forecast, disk_free_bytes=0)
    return replace(plan, forecast=forecast, model=replace(plan.model, source=source))


@pytest.mark.parametrize("rows", [60, 130])
def test_the_recommended_file_is_the_plan_of_train_dataset(
    rows: int, here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(rows)))
    request = RecommendRequest(flags(dataset="rows.jsonl"), name="default", file=Path("s.yaml"))
    recommend(request)
    trained = plan_of(default_strategy("default", flags(dataset="rows.jsonl")))
    written = plan_of(load_strategy(here / "s.yaml", None, environ={}))
    assert same(written) == same(trained)


def test_below_fifty_rows_five_percent_are_recommended_with_their_row(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(40)))
    made = recommend(RecommendRequest(flags(dataset="rows.jsonl"), file=Path("s.yaml")))
    assert "eval_split: 0.05  # table: 5% of 40 rows: row very small dataset" in made.text
    assert made.data is not None and made.data.eval is not None
    assert made.data.eval.rows == 2
    written = plan_of(load_strategy(here / "s.yaml", None, environ={}))
    assert written.data_fingerprint == made.data.fingerprint


def test_a_share_that_is_asked_for_names_its_row(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    made = recommend(RecommendRequest(flags(dataset="rows.jsonl", use=0.15)))
    line = "flag: --use 0.15: 0.15 of the rows are kept for evaluation: row robust validation"
    assert f"    # {line}\n    eval_split: 0.15\n" in made.text


def test_rows_of_their_own_to_evaluate_on_leave_no_share(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    write_jsonl(here / "eval.jsonl", map(qa, range(100, 110)))
    made = recommend(RecommendRequest(flags(dataset="rows.jsonl", eval_dataset="eval.jsonl")))
    assert "eval_file: eval.jsonl" in made.text
    assert "eval_split" not in made.text
    assert not any("no effect" in warning for warning in made.warnings)


def test_a_directory_with_rows_to_evaluate_on_leaves_no_share(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    (here / "data").mkdir()
    write_jsonl(here / "data" / "train.jsonl", map(qa, range(60)))
    write_jsonl(here / "data" / "valid.jsonl", map(qa, range(100, 110)))
    made = recommend(RecommendRequest(flags(dataset="data"), file=Path("s.yaml")))
    assert "eval_split" not in made.text
    assert not any("no effect" in warning for warning in made.warnings)
    written = plan_of(load_strategy(here / "s.yaml", None, environ={}))
    assert written.data.eval_location == here / "data" / "valid.jsonl"


def test_a_flag_is_kept_and_warned_about_above_its_line(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    made = recommend(RecommendRequest(flags(dataset="rows.jsonl", rate=0.5)))
    lines = [line.strip() for line in made.text.splitlines()]
    at = lines.index("learning_rate: 0.5  # flag: --rate 0.5")
    before = " ".join(line.removeprefix("# ") for line in lines[at - 4 : at])
    assert "warning: learning_rate=0.5 is more than twice what the table advises" in before
    assert len(made.warnings) >= 1


def test_without_rows_model_and_machine_decide_and_the_rest_is_listed(
    flags: Callable[..., tuple[Override, ...]], here: Path
) -> None:
    made = recommend(RecommendRequest(flags(), file=Path("s.yaml")))
    assert (made.data, made.forecast) == (None, None)
    assert "data      none given" in made.text
    assert re.search(r"#   learning_rate: by the number of rows: under 100: ", made.text)
    assert "--dataset ROWS" in made.text
    assert {f.path for f in made.open} >= {"dataset.path", "training_args.learning_rate"}
    write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    rows = Override("dataset.path", "rows.jsonl", "--dataset rows.jsonl")
    written = plan_of(load_strategy(here / "s.yaml", None, [rows], environ={}))
    whole = plan_of(default_strategy("recommended", flags(dataset="rows.jsonl")))
    assert same(written) == same(whole)


def test_a_file_elsewhere_finds_its_rows_from_there(
    here: Path, flags: Callable[..., tuple[Override, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    inside, outside = here / "s.yaml", here / "deeper" / "still" / "s.yaml"
    (here / "cwd").mkdir()
    monkeypatch.chdir(here / "cwd")
    for file in (inside, outside):
        recommend(RecommendRequest(flags(dataset="../rows.jsonl"), file=file))
        monkeypatch.chdir("/")
        location = plan_of(load_strategy(file, None, environ={})).data.train_location
        assert isinstance(location, Path)
        assert location.samefile(here / "rows.jsonl")
        monkeypatch.chdir(here / "cwd")


def test_a_file_that_exists_is_refused_before_any_work(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    (here / "s.yaml").write_text("mine\n")
    request = RecommendRequest(flags(), file=Path("s.yaml"))
    with pytest.raises(OutputError, match=r"s\.yaml exists") as refused:
        recommend(request)
    assert "--overwrite" in refused.value.hint
    assert (here / "s.yaml").read_text() == "mine\n"
    recommend(replace(request, overwrite=True))
    assert load_strategy(here / "s.yaml", "recommended", environ={})


@pytest.mark.parametrize("name", ["a/b", ".hidden", ""])
def test_a_name_that_no_strategy_can_have_is_refused(
    name: str, flags: Callable[..., tuple[Override, ...]]
) -> None:
    with pytest.raises(StrategyError, match="no strategy can be called"):
        recommend(RecommendRequest(flags(), name=name))


def test_missing_rows_are_the_error_of_train(
    flags: Callable[..., tuple[Override, ...]],
) -> None:
    with pytest.raises(UserError) as missing:
        recommend(RecommendRequest(flags(dataset="none.jsonl"), file=Path("s.yaml")))
    assert "there is no file none.jsonl" in missing.value.render()
    assert not Path("s.yaml").exists()


def test_rows_that_cannot_be_read_are_left_out_on_request_and_by_the_line_to_type(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    file = write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    file.write_text(file.read_text() + "{broken\n")
    request = RecommendRequest(flags(dataset="rows.jsonl"))
    with pytest.raises(UserError, match=r"rows\.jsonl:61"):
        recommend(request)
    made = recommend(replace(request, skip_bad_rows=True))
    assert "llamafarm train --strategy-file FILE --skip-bad-rows" in made.text


def test_a_leak_is_refused_as_in_training_and_allowed_in_the_file(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    for name in ("rows.jsonl", "eval.jsonl"):
        write_jsonl(here / name, map(qa, range(60)))
    overrides = flags(dataset="rows.jsonl", eval_dataset="eval.jsonl")
    with pytest.raises(GateRefused):
        recommend(RecommendRequest(overrides))
    allowed = Override("dataset.allow_leakage", "true", "--allow-leakage")
    for for_beginners in (False, True):
        made = recommend(RecommendRequest((*overrides, allowed), for_beginners=for_beginners))
        assert "allow_leakage: true  # flag: --allow-leakage" in made.text


def test_a_hostile_name_of_a_file_stays_in_its_comment(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    name = "rows\nseed: 7 #\x1b[2J.jsonl"
    write_jsonl(here / name, map(qa, range(60)))
    made = recommend(RecommendRequest(flags(dataset=name), file=Path("s.yaml")))
    found = load_strategy(here / "s.yaml", None, environ={})
    assert (found.dataset.path, found.training_args.seed) == (name, 42)
    assert "\x1b" not in made.text


def test_a_secret_of_the_environment_is_not_written(
    here: Path, flags: Callable[..., tuple[Override, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_TOKEN", "s3cr3t-v4lue")
    (here / "s3cr3t-v4lue").mkdir()
    write_jsonl(here / "s3cr3t-v4lue" / "rows.jsonl", map(qa, range(60)))
    made = recommend(RecommendRequest(flags(dataset="s3cr3t-v4lue/rows.jsonl")))
    assert "s3cr3t-v4lue" not in made.text
    assert "path: ${STORE_TOKEN}/rows.jsonl" in made.text


def test_a_first_strategy_explains_each_value_and_passes_setup(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", map(qa, range(60)))
    file = Path("strategy.yaml")
    overrides = flags(dataset="rows.jsonl")
    made = recommend(RecommendRequest(overrides, name="my_strategy", file=file, for_beginners=True))
    lines = made.text.splitlines()
    for number, line in enumerate(lines):
        key = line.strip().partition(":")[0]
        if key in ("r", "dropout", "num_train_epochs", "learning_rate", "path", "eval_split"):
            assert lines[number - 1].strip().startswith("# ")
    report = setup(file, verify_only=True)
    assert report.ok, report.problems
    written = plan_of(load_strategy(here / file, None, environ={}))
    assert same(written) == same(plan_of(default_strategy("my_strategy", overrides)))


@pytest.mark.parametrize("kind", ["recommend", "init"])
def test_a_file_looks_as_agreed(
    kind: str, here: Path, packaged_model_dir: Path, cache_dir: Path
) -> None:
    """The machine is a recorded one; what is measured on this one is masked."""
    write_jsonl(here / "rows.jsonl", map(qa, range(130)))
    cache_dir.mkdir()
    (cache_dir / "models").symlink_to(packaged_model_dir.parents[1])
    rows = Override("dataset.path", "rows.jsonl", "--dataset rows.jsonl")
    made = recommend(RecommendRequest((rows,), name="mine", for_beginners=kind == "init"))
    masked = re.sub(r"#   forecast .*", "#   forecast  …", made.text)
    assert masked == (GOLDEN / f"{kind}.yaml").read_text(encoding="utf-8")


def test_a_name_that_only_looks_like_a_home_directory_is_a_file(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "~nobody.jsonl", map(qa, range(20)))
    target = here / "sub" / "mine.yaml"
    recommend(RecommendRequest(overrides=flags(dataset="~nobody.jsonl"), file=target))
    assert plan_of(load_strategy(target, "recommended", environ={})).data


def test_a_file_that_lies_here_by_a_roundabout_way_names_its_rows_as_they_were_given(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    (here / "sub").mkdir()
    write_jsonl(here / "rows#1.jsonl", map(qa, range(20)))
    asked = flags(dataset="rows#1.jsonl")
    roundabout = Path("sub") / ".." / "mine.yaml"
    recommend(RecommendRequest(overrides=asked, file=roundabout))
    assert "path: rows#1.jsonl" in (here / "mine.yaml").read_text()
    recommend(RecommendRequest(overrides=asked, file=here / "sub" / "mine.yaml"))
    assert f"path: {here / 'rows#1.jsonl'}" in (here / "sub" / "mine.yaml").read_text()


def test_rows_that_were_left_out_are_counted(
    here: Path, flags: Callable[..., tuple[Override, ...]]
) -> None:
    write_jsonl(here / "rows.jsonl", [*map(qa, range(20)), {"unknown": 1}])
    made = recommend(RecommendRequest(overrides=flags(dataset="rows.jsonl"), skip_bad_rows=True))
    assert ", 1 left out; " in made.text


def test_an_empty_name_of_the_rows_is_not_the_same_as_none(
    flags: Callable[..., tuple[Override, ...]],
) -> None:
    with pytest.raises(UserError):
        recommend(RecommendRequest(overrides=flags(dataset="")))


@pytest.mark.parametrize("name", ["", "a/b", "evil\x1b[31m\nx"])
def test_a_name_that_no_strategy_can_have_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(StrategyError, match="no strategy can be called") as caught:
        recommend(RecommendRequest(name=name))
    (problem,) = caught.value.problems
    assert (problem.where, "letter or digit" in problem.message) == ("--name", True)
    assert caught.value.summary.isprintable()


def test_a_directory_is_refused_before_anything_is_read(here: Path) -> None:
    (here / "sub").mkdir()
    with pytest.raises(OutputError, match="sub is a directory"):
        recommend(RecommendRequest(file=Path("sub"), overwrite=True))
