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
from dataclasses import dataclass
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
    costs = best_of((alone, ours), arguments.rounds)
    tokens = alone()
    for name, cost in zip(("tokenizers alone", "rows with masks"), costs, strict=True):
        rates = f"{len(texts) / cost.wall:>9,.0f} rows/s {tokens / cost.wall:>11,.0f} tokens/s"
        print(f"{name:<18} {rates} {cost.cpu / len(texts) * 1e6:>6.0f} us of CPU a row")
    share = costs[0].wall / costs[1].wall
    print(
        f"{'share':<18} {share:>9.1%}  of the speed (goal {GOAL:.0%}; {arguments.workers} workers)"
    )
    print(f"{'':<18} {costs[0].cpu / costs[1].cpu:>9.1%}  by CPU time")
    return 0 if share >= GOAL else 3


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m bench.tokenising", description=__doc__)
    found.add_argument("--rows", type=int, default=5000)
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return found


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds: on the clock, and of all threads together."""

    wall: float
    cpu: float


def best_of(sides: Sequence[Callable[[], object]], rounds: int) -> tuple[Cost, ...]:
    """The least cost of each side, of the two kinds apart."""
    times: list[list[Cost]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, times, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            side()
            taken.append(Cost(time.perf_counter() - wall, time.process_time() - cpu))
    return tuple(Cost(min(t.wall for t in taken), min(t.cpu for t in taken)) for taken in times)


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
