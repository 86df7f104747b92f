"""How much of the speed of the `tokenizers` library is left when rows become tokens with a mask.

`python -m bench.tokenising`. Both sides get the same conversations and the packaged model's
tokenizer, on all cores. The library alone encodes texts that were rendered before; ours renders the
chat template, finds the answers, encodes, compares the prompts, and makes arrays. Rounds alternate,
and the best of each side counts: other work on the machine only makes a round slower.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import cycle

from bench.workload import MEDICAL_QA, packaged_model
from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.token_row import Limits, RowTokenizer
from llamafarm.data.tokenizing import BATCH_ROWS, ordered_map
from llamafarm.models.tokenizer import load_tokenizer

MAX_LENGTH = 512
GOAL = 0.8


def main() -> int:
    """Exit code 0 when the share reaches the goal, 3 when it does not."""
    arguments = parser().parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    tokenizer = load_tokenizer(packaged_model().directory)
    template = ChatTemplate.for_tokenizer(tokenizer.chat_template, tokenizer, date=TRAINING_DATE)
    rows = RowTokenizer(tokenizer, template, Limits(MAX_LENGTH))
    conversations = medical_conversations(arguments.rows)
    texts = [template.render(conversation.messages) for conversation in conversations]
    batches = [conversations[i : i + BATCH_ROWS] for i in range(0, len(texts), BATCH_ROWS)]

    def alone() -> int:
        encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return sum(len(encoding) for encoding in encoded)

    def ours() -> int:
        results = ordered_map(rows.encode, batches, arguments.workers)
        return sum(result.counts.tokens for result in results)

    if alone() != ours():
        raise ValueError("the two sides made different numbers of tokens")
    seconds = best_of((alone, ours), arguments.rounds)
    for name, best in zip(("tokenizers alone", "rows with masks"), seconds, strict=True):
        print(f"{name:<18} {len(texts) / best:>9,.0f} rows/s  {alone() / best:>11,.0f} tokens/s")
    share = seconds[0] / seconds[1]
    print(f"{'share':<18} {share:>9.1%}  (goal {GOAL:.0%}, {arguments.workers} workers)")
    return 0 if share >= GOAL else 3


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m bench.tokenising", description=__doc__)
    found.add_argument("--rows", type=int, default=5000)
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return found


def best_of(sides: Sequence[Callable[[], object]], rounds: int) -> tuple[float, ...]:
    """The shortest time of each side in seconds."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    return tuple(min(taken) for taken in times)


def medical_conversations(count: int) -> list[Conversation]:
    """The demo's rows again and again, each time with other numbers in question and answer."""
    lines = MEDICAL_QA.read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    return [
        Conversation(
            RowRef(MEDICAL_QA.name, n + 1),
            (
                Message("user", f"{pair['question']} (case {n})"),
                Message("assistant", f"{pair['answer']} See page {n * 7919 % 1000}."),
            ),
        )
        for n, pair in zip(range(count), cycle(pairs), strict=False)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
