"""Every line of the seed that asks for something, and what answers for it.

A test of this folder names its lines with `@pytest.mark.seed(57)`; what other folders prove is
named here. A row without a test is open, with what brings it. `python -m tests.acceptance.rows`
prints the table with the name of every test.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]

_OLLAMA = "Ollama itself answers only where a server runs"
_DEVICES = "comes with training on several devices"


@dataclass(frozen=True)
class Row:
    """lines: as people write them, `42, 137, 270-271`. says: what the seed asks for there.

    elsewhere: tests of other folders, `room/test_file.py::test_name`; later: what of a covered row
    is still to come; open: why there is no test at all.
    """

    lines: str
    says: str
    elsewhere: tuple[str, ...] = ()
    later: str = ""
    open: str = ""

    @property
    def numbers(self) -> frozenset[int]:
        """Every line number of the row."""
        return frozenset(number for part in self.lines.split(", ") for number in _range(part))


ROWS = (
    Row(
        "4, 297",
        "a complete reference of the parameters",
        elsewhere=(
            "docs/test_training_guide.py::test_guide_names_every_field_and_no_other",
            "docs/test_training_guide.py::test_guide_gives_the_default_the_code_has",
            "strategy/test_keys_reference.py::test_every_key_has_a_place_on_the_page",
        ),
    ),
    Row(
        "5, 298",
        "examples of strategies that load",
        elsewhere=(
            "docs/test_docs_yaml.py::test_block_loads",
            "demos/test_strategies.py::test_strategy_loads_without_a_word",
        ),
    ),
    Row("6, 301-304", "the demo's files, under their names"),
    Row(
        "7, 299",
        "a reference of the command line that agrees with the parser",
        elsewhere=(
            "docs/test_cli_reference.py::test_section_lists_every_argument_and_flag_and_no_other",
        ),
    ),
    Row("12-26", "the layers of the drawing, as packages"),
    Row(
        "17",
        "the LLaMA-Factory fine-tuner",
        elsewhere=(
            (
                "training/backends/llamafactory/test_train.py"
                "::test_a_run_is_told_evaluated_and_saved_as_any_other"
            ),
            "training/backends/llamafactory/test_train.py::test_its_losses_are_those_of_stock_peft",
            "e2e/test_llamafactory.py::test_both_engines_start_and_end_alike",
            (
                "e2e/test_llamafactory.py"
                "::test_the_adapter_loads_in_stock_peft_and_its_file_is_proved"
            ),
        ),
    ),
    Row("18", "the Ollama converter"),
    Row("23", "data in every usual format, faults with their line"),
    Row("24", "a split that is exact, repeatable, and keeps rows together that say the same"),
    Row("25", "metrics of a run on the console, in a file, in TensorBoard"),
    Row("32", "everything is configured in YAML; flags only override"),
    Row("33", "a strategy is used from any file"),
    Row("34", "a run records its configuration, versions and data"),
    Row("35", "strategies are combined"),
    Row("36", "template, seed and split without code"),
    Row("39", "evaluation unless somebody switches it off"),
    Row("40", "90 to 10, seed 42"),
    Row("41", "training and evaluation side by side while it runs"),
    Row("42, 137, 282", "the best step is what is kept"),
    Row(
        "43",
        "a run that overfits is stopped",
        elsewhere=(
            "diagnosis/test_stop_on_overfitting.py::test_overfitting_ends_the_run_and_the_best_is_kept",
        ),
    ),
    Row("46-47", "NVIDIA: bf16, fp16 and TF32 where the card has them"),
    Row("48", "Apple: MPS, fp32, shared memory"),
    Row(
        "49",
        "CPU: as many threads as this process may use",
        elsewhere=(
            "hardware/test_limits.py::test_a_quota_of_one_leaves_one_core_of_eight",
            "hardware/test_probe.py::test_an_affinity_of_one_leaves_one_usable_core",
        ),
    ),
    Row(
        "50",
        "checkpointing and accumulation, from either place",
        elsewhere=(
            "training/test_loop.py::test_gradient_checkpointing_changes_nothing_but_memory",
            "training/test_loop.py::test_accumulation_does_not_change_the_training",
        ),
    ),
    Row("57", "the demo, whole"),
    Row("60", "`cli.py train`, and the same as a console command"),
    Row(
        "61",
        "`demo3_training_optimized` with its values",
        elsewhere=(
            "demos/test_strategies.py::test_demo3_training_optimized_has_the_original_values",
        ),
    ),
    Row("62", "`--strategy-file`, and where a file is looked for without it"),
    Row("63-64", "the demo's data by their bare names"),
    Row("70", "three forms of a strategy file"),
    Row("71", "`name` is a title, the key is the id"),
    Row("74-75", "`type: pytorch`, other types refused with the choices"),
    Row("77", "`method.type`, lora where it is left out"),
    Row("78, 184, 202", "`r`, and alpha from it"),
    Row("79", "`alpha`"),
    Row("70-83", "what the snippet leaves out has a default"),
    Row("81", "`num_train_epochs`, parts of one too"),
    Row("82", "`eval_strategy` in all its spellings"),
    Row("83, 191", "`eval_steps`, also beyond the end of the run"),
    Row("88, 130", "`train` with a strategy and its file, nothing else"),
    Row("94, 107", "the splitting line"),
    Row("96", "data_train.jsonl and data_eval.jsonl, no row lost"),
    Row("104", "raw text becomes rows"),
    Row("113-118", "a configuration of comments only"),
    Row("119", "`dataset` beside `components`"),
    Row("120-121", "`train_file` and `eval_file`"),
    Row("127", "`setup … --verify-only`: 0, or 2 with every problem"),
    Row("135", "training loss at every step"),
    Row("136", "evaluation loss every so many steps"),
    Row("137", "a new best, when it is found"),
    Row("138", "the summary at the end, on screen and in a file"),
    Row("143", "`convert` to Ollama"),
    Row("146", "`ollama run`", later=_OLLAMA),
    Row("155", "the table's row for 1B"),
    Row("156", "the table's row for 3B"),
    Row("157", "the table's row for 7B"),
    Row("158", "the table's row for 13B"),
    Row("164", "the table's row for under 100 examples"),
    Row("165", "the table's row for 100 to 1000 examples"),
    Row("166", "the table's row for 1000 to 10000 examples"),
    Row("167", "the table's row for over 10000 examples"),
    Row("173", "5 % of very few rows"),
    Row("174", "10 % as a rule"),
    Row("175, 176", "15 % and 20 % on request"),
    Row("183-191", "scenario 1, parameter by parameter"),
    Row("198", "scenario 2: `device: cuda`"),
    Row("199-200", "scenario 2: `use_bf16: true`"),
    Row("204", "scenario 2: `per_device_train_batch_size: 8`"),
    Row("205", "scenario 2: `gradient_accumulation_steps: 1`"),
    Row("206", "scenario 2: `mixed_precision: bf16`"),
    Row("213", "scenario 3: `device: mps`"),
    Row("215", "scenario 3: `use_fp16: false`"),
    Row("217-218", "scenario 3: two by two"),
    Row(
        "226-228",
        "what the curves mean is said",
        elsewhere=(
            "monitoring/test_verdict.py::test_what_was_found_is_the_verdict",
            (
                "diagnosis/test_generalisation.py"
                "::test_an_eval_loss_that_turns_while_training_goes_on_is_overfitting"
            ),
            (
                "diagnosis/test_generalisation.py"
                "::test_a_gap_that_opened_is_overfitting_although_the_eval_loss_only_stands"
            ),
        ),
    ),
    Row(
        "231",
        "warm-up, then decay, logged",
        elsewhere=(
            "training/test_loop.py::test_the_logged_learning_rate_is_the_schedule_of_transformers",
        ),
    ),
    Row(
        "232",
        "a loss that leaves the rails is caught",
        elsewhere=(
            (
                "training/test_loop.py"
                "::test_a_non_finite_loss_stops_the_run_before_the_weights_and_names_the_rows"
            ),
            "diagnosis/test_learning.py::test_a_loss_far_above_its_start_says_that_the_rate_is_too_high",
        ),
    ),
    Row(
        "233",
        "a loss that does not move is said",
        elsewhere=(
            (
                "diagnosis/test_learning.py"
                "::test_no_progress_at_a_rate_far_below_the_guide_is_too_low_a_rate"
            ),
            (
                "diagnosis/test_progress.py"
                "::test_a_loss_that_stays_where_it_is_for_a_third_of_the_run_is_a_plateau"
            ),
        ),
    ),
    Row(
        "236",
        "the load of the GPU is told",
        elsewhere=(
            (
                "diagnosis/test_machine.py"
                "::test_a_device_that_computes_less_than_half_of_the_time_wants_more_rows"
            ),
        ),
    ),
    Row(
        "237",
        "a low load leads to advice",
        elsewhere=(
            (
                "diagnosis/test_machine.py"
                "::test_a_device_that_computes_less_than_half_of_the_time_wants_more_rows"
            ),
        ),
    ),
    Row(
        "238, 246",
        "out of memory is caught, with what to reduce",
        elsewhere=(
            "training/test_loop.py::test_a_run_out_of_memory_says_what_to_reduce",
            "training/test_shortage.py::test_less_memory_gives_the_same_weights_without_dropout",
            "diagnosis/test_machine.py::test_memory_that_ran_out_is_pressure",
        ),
    ),
    Row(
        "244",
        "advice against overfitting",
        elsewhere=(
            (
                "diagnosis/test_generalisation.py"
                "::test_an_eval_loss_that_turns_while_training_goes_on_is_overfitting"
            ),
        ),
    ),
    Row(
        "245",
        "advice against underfitting",
        elsewhere=("diagnosis/test_progress.py::test_two_losses_that_stay_high_are_underfitting",),
    ),
    Row(
        "247",
        "advice against slow training",
        elsewhere=("diagnosis/test_machine.py::test_steps_that_wait_for_their_rows_are_slow",),
    ),
    Row(
        "248",
        "advice against an unstable loss",
        elsewhere=(
            (
                "diagnosis/test_learning.py"
                "::test_a_loss_that_jumps_further_than_its_rows_explain_is_unstable"
            ),
        ),
    ),
    Row("254-255", "`ddp_find_unused_parameters`", later=f"its effect {_DEVICES}"),
    Row(
        "256",
        "`dataloader_num_workers`",
        elsewhere=("training/test_loop.py::test_workers_prepare_the_same_batches",),
    ),
    Row("257", "`fp16_backend`: a notice"),
    Row(
        "263",
        "`metric_for_best_model`",
        elsewhere=("training/test_answer_metrics.py::test_one_of_them_can_choose_the_best_step",),
    ),
    Row("264", "`greater_is_better`"),
    Row(
        "265",
        "`load_best_model_at_end`",
        elsewhere=("training/test_loop.py::test_load_best_false_keeps_the_last_step",),
    ),
    Row(
        "260",
        "metrics of one's own",
        elsewhere=(
            "training/test_answer_metrics.py::test_metrics_stand_in_every_record_of_the_run",
            (
                "evaluation/test_metrics.py"
                "::test_a_function_of_ones_own_is_imported_from_beside_the_strategy"
            ),
        ),
    ),
    Row("270-271", "`track_training_metrics`"),
    Row(
        "272",
        "`log_tensorboard`",
        elsewhere=(
            (
                "monitoring/test_tensorboard.py"
                "::test_a_missing_package_is_an_error_that_says_how_to_get_it"
            ),
        ),
    ),
    Row("273", "`save_checkpoints`"),
    Row("279, 287", "no training without evaluation by accident"),
    Row("280", "what is left out is chosen with care"),
    Row("281", "evaluation is shown and saved"),
    Row(
        "283",
        "a measurement on data that training has not seen",
        elsewhere=("e2e/test_train.py::test_the_trained_model_answers_and_is_measured",),
    ),
    Row("284", "the result says how it was made"),
    Row("288", "a learning rate far too high is warned about"),
    Row(
        "289",
        "the gap is not hidden",
        elsewhere=("monitoring/test_verdict.py::test_what_was_found_is_the_verdict",),
    ),
    Row("290", "too many epochs on few rows are warned about"),
    Row("291", "data are checked before they are trained on, and leaks between files refused"),
    Row(
        "292",
        "one seed, and two equal runs",
        elsewhere=("training/test_loop.py::test_two_runs_are_bitwise_equal",),
    ),
    Row("306-309", "the links of the seed"),
    Row("313-314", "version 2.0"),
)


@dataclass(frozen=True)
class Marked:
    """A test of this folder and the lines it names."""

    name: str
    lines: frozenset[int]


@functools.cache
def marked_tests() -> tuple[Marked, ...]:
    """The tests of this folder, but for those about this table."""
    return tuple(
        Marked(f"acceptance/{file.name}::{function.name}", _marked_lines(function))
        for file in sorted(Path(__file__).parent.glob("test_*.py"))
        if file.name != "test_rows.py"
        for function in _functions(file)
    )


def names_of_tests(file: Path) -> set[str]:
    """The tests of a file; of one that is not there, none."""
    return {function.name for function in _functions(file)} if file.is_file() else set()


def _functions(file: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _marked_lines(function: ast.FunctionDef) -> frozenset[int]:
    calls = [d for d in function.decorator_list if isinstance(d, ast.Call)]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.seed"]
    return frozenset(ast.literal_eval(line) for mark in marks for line in mark.args)


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def render() -> str:
    """The table as text: a row, its tests, what is still to come."""
    lines = []
    for row in ROWS:
        lines.append(f"{row.lines:<13} {row.says}")
        own = (test.name for test in marked_tests() if test.lines & row.numbers)
        lines += [f"{'':<16}{name}" for name in (*own, *row.elsewhere)]
        lines += [f"{'':<14}later: {row.later}"] if row.later else []
        lines += [f"{'':<14}OPEN: {row.open}"] if row.open else []
    return "\n".join(lines)


if __name__ == "__main__":
    print(render())  # noqa: T201
