"""The certificate's two halves brought together: the trained model here, the file in the engine.

Like api.py it puts rooms together and decides nothing itself.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.bundled import bundled_demos
from llamafarm.data.rows import Conversation, Message
from llamafarm.errors import DataError, LlamafarmError
from llamafarm.export.convert import GgufPlan, Work
from llamafarm.export.engine_reference import rows_of_engine
from llamafarm.export.parity import Certificate, Ending, Layer, certify
from llamafarm.export.reference import ReferenceRow, own_answers, reference_rows, trained_weights
from llamafarm.export.source import ExportSource
from llamafarm.export.tolerances import Tolerance, tolerance_of
from llamafarm.export.weight_check import compare_weights
from llamafarm.models.llama_cpp import LlamaCpp

MAX_POSITIONS = 256
_MOST_ROWS = 64
_LONGEST_ROW = 2048
_OWN_ANSWER_TOKENS = 40
_VERSIONS = ("llamafarm", "xllamacpp", "transformers", "torch", "gguf")
_QUESTIONS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea.",
    "What is 17 + 25?",
    "List three things to take along on a hike.",
    "Translate `good morning` into German and into Spanish.",
    "Who wrote Hamlet, and when?",
    "Give me a recipe for pancakes.",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a file is measured against. prompts: where the rows came from; weights: the comparison
    that needs no engine, None where nothing is known of the file's tensors.
    """

    rows: tuple[ReferenceRow, ...]
    prompts: str
    weights: Layer | None


def certify_file(
    file: Path,
    reference: Reference,
    *,
    file_type: str,
    tolerance: Tolerance,
    bos_text: str,
    ending: Ending,
    others: Sequence[Layer],
    threads: int,
    on_work: Work,
) -> Certificate:
    """Measure the file. others: layers that were compared already.

    Raises UserError where the engine is missing, RunError when it dies.
    """
    rows = reference.rows
    if not rows:
        raise DataError("no prompt is short enough to be compared")
    positions = sum(len(row.answer_ids) for row in rows)
    longest = max(len(row.prompt_ids) + len(row.answer_ids) for row in rows)
    on_work("asking llama.cpp", 0, positions)
    with LlamaCpp(file, context_tokens=longest + 8, threads=threads, exact=True) as engine:
        return certify(
            rows,
            engine,
            file_type=file_type,
            tolerance=tolerance,
            bos_text=bos_text,
            ending=ending,
            others=[*([] if reference.weights is None else [reference.weights]), *others],
            prompts=reference.prompts,
            on_position=lambda done: on_work("asking llama.cpp", done, positions),
        )


def engine_versions() -> dict[str, str]:
    """What measured."""
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def trained_reference(
    source: ExportSource,
    file: Path,
    plan: GgufPlan | None,
    *,
    on_work: Work,
    on_note: Callable[[str], None],
) -> Reference:
    """The trained model in transformers; its memory is free again afterwards. plan: how the file
    was written, where we wrote it: its weights are then compared too.
    """
    from llamafarm.models.load import load_finished_model

    on_work("loading the trained model", 0, 0)
    model, tokenizer = load_finished_model(source.directory)
    rows, prompts = trained_rows(source, model, tokenizer, on_work=on_work, on_note=on_note)
    if plan is None:
        return Reference(rows, prompts, None)
    weights = compare_weights(
        file,
        plan.tensors,
        trained_weights(model),
        differing_codes=tolerance_of(plan.file_type.name).differing_codes,
        on_tensor=lambda number: on_work("comparing the weights", number, len(plan.tensors)),
    )
    return Reference(rows, prompts, weights)


def trained_rows(
    source: ExportSource,
    model: Any,
    tokenizer: Any,
    *,
    on_work: Work,
    on_note: Callable[[str], None],
) -> tuple[tuple[ReferenceRow, ...], str]:
    """What the trained model, in transformers, predicts; and where the rows came from."""
    conversations, prompts = _conversations(source, model, tokenizer, on_note)
    rows: list[ReferenceRow] = []
    done = 0
    for row in reference_rows(
        model, tokenizer, conversations, max_positions=MAX_POSITIONS, max_length=_LONGEST_ROW
    ):
        rows.append(row)
        done += len(row.answer_ids)
        on_work("asking the trained model", done, MAX_POSITIONS)
    return tuple(rows), prompts


def engine_reference(
    file: Path, system_prompt: str | None, end_token_id: int | None, *, threads: int, on_work: Work
) -> Reference:
    """The engine on the file that another one was made from."""
    on_work("asking the given file", 0, 0)
    with LlamaCpp(file, context_tokens=_LONGEST_ROW // 4, threads=threads, exact=True) as engine:
        rows = rows_of_engine(
            engine,
            _QUESTIONS,
            system_prompt,
            end_token_id=end_token_id,
            answer_tokens=_OWN_ANSWER_TOKENS,
        )
    return Reference(rows, f"general questions, against {file.name}", None)


def _conversations(
    source: ExportSource, model: Any, tokenizer: Any, on_note: Callable[[str], None]
) -> tuple[list[Conversation], str]:
    """The run's own rows where they can be had; else general questions with the model's answers."""
    if source.run is not None:
        try:
            return _rows_of_run(source.run, tokenizer)
        except LlamafarmError as fault:
            on_note(
                f"the run's own rows cannot be read ({fault.summary}): general questions are "
                "asked instead"
            )
    from llamafarm.evaluation.generation import Generator

    generator = Generator(model, tokenizer)
    system = source.record.system_prompt

    def answer(question: str) -> str:
        messages = [*([Message("system", system)] if system else []), Message("user", question)]
        text = generator.generate(messages, max_new_tokens=_OWN_ANSWER_TOKENS)
        return text or "I do not know."

    return own_answers(_QUESTIONS, answer, system), "general questions"


def _rows_of_run(run: Path, tokenizer: Any) -> tuple[list[Conversation], str]:
    """Rows that the model was evaluated on; of a run without evaluation, rows it was trained on."""
    import os

    from llamafarm.data.prepare import Side, conversations_of
    from llamafarm.data.token_row import adds_bos
    from llamafarm.planning.resolve_data import resolve_data
    from llamafarm.strategy.loader import load_strategy

    strategy = load_strategy(run / "strategy.yaml", None, (), environ=os.environ)
    request, _ = resolve_data(
        strategy,
        model_context=1 << 30,
        tokenizer_template=tokenizer.chat_template,
        working_directory=Path.cwd(),
        bundled_data=bundled_demos(),
        skip_bad_rows=True,
        tokenizer_adds_bos=adds_bos(tokenizer),
    )
    side: Side = "eval" if request.eval_wanted else "train"
    rows = conversations_of(request, side, most=_MOST_ROWS)
    asked = [row for row in rows if row.messages and row.messages[-1].role == "assistant"]
    if not asked:
        raise DataError("no row holds a question with its answer")
    name = "evaluation" if side == "eval" else "training"
    return asked, f"{name} rows of the run"
