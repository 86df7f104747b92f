"""A .gguf file on a dataset, as it will be served: by llama.cpp, with the weights as they are in
the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from llamafarm.data.read_conversations import read_conversations
from llamafarm.data.report import DroppedRow
from llamafarm.data.rows import Conversation
from llamafarm.data.summary import Cuts
from llamafarm.errors import DataError, ModelError, Problem
from llamafarm.evaluation.engine_rows import EngineRow, EngineRowMaker
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.passes import OnRows
from llamafarm.evaluation.report import (
    Measured,
    Sample,
    make_sample,
    model_scores,
    row_warnings,
)
from llamafarm.evaluation.request import EvaluationTask
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.models.gguf_file import GgufFile, read_gguf
from llamafarm.models.llama_cpp import LlamaCpp
from llamafarm.models.record import read_model_record

_FEWEST_TOKENS = 2


def find_gguf(source: str) -> Path | None:
    """The file that a source names; None where it names something else."""
    path = Path(source).expanduser()
    return path if path.suffix.lower() == ".gguf" and path.is_file() else None


def open_gguf(file: Path) -> GgufFile:
    """The header of a file that can be measured. Raises ModelError where it has no chat template,
    or a context that nothing fits in.
    """
    gguf = read_gguf(file)
    if not gguf.metadata.get("tokenizer.chat_template"):
        raise ModelError(
            f"{file} has no chat template", hint="convert the model again, with its chat template"
        )
    context = _context_of(gguf)
    if context is not None and context < _FEWEST_TOKENS:
        raise ModelError(f"{file} says that its context ends at {context} tokens")
    return gguf


def measure_gguf(
    gguf: GgufFile,
    task: EvaluationTask,
    *,
    threads: int,
    at_most: int | None = None,
    on_rows: OnRows,
) -> Measured:
    """Loss over all rows, then greedy answers to the first ones.

    at_most: no row is longer, in tokens. A record beside the file, as beside every model of ours,
    says which system prompt and which limit its training had. Raises DataError for rows that cannot
    be read, ModelError for a file that the engine cannot load, RunError when the engine dies, or
    its template refuses a row.
    """
    record = read_model_record(gguf.path.parent)
    template = str(gguf.metadata["tokenizer.chat_template"])
    request = task.rows(template, record, _context_of(gguf), at_most)
    conversations = read_conversations(request)
    room = request.max_length + task.max_new_tokens
    context = min(room, _context_of(gguf) or room)
    with LlamaCpp(gguf.path, context_tokens=context, threads=threads) as engine:
        rows, dropped = _make_rows(EngineRowMaker(engine, gguf, request.max_length), conversations)
        asked = [row for row in rows if row.prompt_ids][: task.generated_rows]
        total = len(rows) + len(asked)
        losses = _losses(engine, rows, lambda done: on_rows(done, total))
        samples: list[Sample] = []
        for row in asked:
            limit = min(task.max_new_tokens, context - len(row.prompt_ids))
            answer = engine.generate(row.prompt_ids, max_new_tokens=limit).text
            samples.append(make_sample(str(row.source), row.prompt, row.reference, answer))
            on_rows(len(rows) + len(samples), total)
    truncated = [row.truncated for row in rows if row.truncated]
    return Measured(
        model_scores(losses, samples),
        losses.trained_tokens,
        tuple(str(row.source) for row in rows),
        losses.by_row,
        request.max_length,
        row_warnings(Cuts.of(truncated), dropped, len(rows), request.max_length),
    )


def _context_of(gguf: GgufFile) -> int | None:
    """Tokens that the model was made for, where the file says it."""
    return gguf.whole_number(f"{gguf.architecture}.context_length")


def _make_rows(
    maker: EngineRowMaker, conversations: Sequence[Conversation]
) -> tuple[list[EngineRow], list[DroppedRow]]:
    rows: list[EngineRow] = []
    dropped: list[DroppedRow] = []
    for conversation in conversations:
        made = maker.make(conversation)
        if isinstance(made, DroppedRow):
            dropped.append(made)
        else:
            rows.append(made)
    if not rows:
        askable = not all(row.segments or row.has_tools for row in conversations)
        raise DataError(
            f"no row is left to evaluate on: all {len(dropped):,} were left out",
            [Problem(row.reason, where=str(row.source)) for row in dropped[:5]],
            hint="shorten the rows"
            if askable
            else "evaluate the directory of the model instead of its GGUF file",
        )
    return rows, dropped


def _losses(
    engine: LlamaCpp, rows: Sequence[EngineRow], on_row: Callable[[int], None]
) -> LossResult:
    """One request a token: the engine keeps what it computed for the tokens before it."""
    sums: list[float] = []
    counts: list[int] = []
    correct: list[int] = []
    for row in rows:
        found = [
            engine.log_probability(part.token_ids[:at], part.token_ids[at])
            for part in row.scored
            for at in range(part.start, len(part.token_ids))
        ]
        sums.append(-sum(log_probability for log_probability, _ in found))
        counts.append(len(found))
        correct.append(sum(likeliest for _, likeliest in found))
        on_row(len(sums))
    means = tuple(loss / count for loss, count in zip(sums, counts, strict=True))
    by_row = RowLosses(means, tuple(counts), tuple(correct))
    return LossResult(sum(sums), sum(correct), sum(counts), by_row)
