"""What a GGUF file says in the engine: what another one is measured against that was made of it."""

from __future__ import annotations

from collections.abc import Sequence

from llamafarm.export.reference import LIKELIEST, Prediction, ReferenceRow
from llamafarm.models.llama_cpp import LlamaCpp


def rows_of_engine(
    engine: LlamaCpp,
    questions: Sequence[str],
    system_prompt: str | None,
    *,
    end_token_id: int | None,
    answer_tokens: int,
) -> tuple[ReferenceRow, ...]:
    """A row for each question, with what the file itself answers, up to answer_tokens."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    rows = []
    for number, question in enumerate(questions, start=1):
        messages = (*system, {"role": "user", "content": question})
        text = engine.render(messages)
        prompt_ids = engine.tokenize(text)
        answer = engine.generate(prompt_ids, max_new_tokens=answer_tokens)
        answer_ids = [token for token in answer.token_ids if token != end_token_id]
        if answer.stopped_by == "eos" and end_token_id is not None:
            answer_ids.append(end_token_id)
        rows.append(
            ReferenceRow(
                f"a question of llamafarm:{number}",
                messages,
                text,
                prompt_ids,
                answer.text,
                tuple(answer_ids),
                _predictions(engine, prompt_ids, answer_ids),
            )
        )
    return tuple(rows)


def _predictions(
    engine: LlamaCpp, prompt_ids: Sequence[int], answer_ids: Sequence[int]
) -> tuple[Prediction, ...]:
    predictions = []
    for i in range(len(answer_ids)):
        found = engine.next_token([*prompt_ids, *answer_ids[:i]], likeliest=LIKELIEST)
        values = found.log_probabilities
        predictions.append(Prediction(tuple(values), tuple(values.values())))
    return tuple(predictions)
