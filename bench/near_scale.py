"""What the search for near duplicates costs on many rows: `python -m bench.near_scale`.

Rows are made up, a batch at a time, in a process of its own for each kind of row; prints a table in
Markdown. The time to make the rows up is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.deploy.child import peak_bytes
from bench.deploy.memory import interpreter_peak_bytes
from bench.environment import ROOT
from llamafarm.data.near.search import contained_pairs, near_pairs
from llamafarm.data.near.shingles import ShingleStore
from llamafarm.data.near.signatures import BANDS

BATCH_ROWS = 1000
# One row in so many is looked up among the others: is it contained in one?
INNER_STEP = 20
_MB = 1e6

Row = tuple[str, str]
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of row. pairs: near duplicates found; peak_bytes: of the process."""

    kind: str
    rows: int
    shingles: int
    disk_bytes: int
    reading_seconds: float
    search_seconds: float
    lookup_seconds: float
    pairs: int
    peak_bytes: int


def natural(random: Generator, count: int) -> list[Row]:
    """Rows of 15 to 200 words with natural frequencies; two in a hundred repeat the row before but
    for a word.
    """
    lengths = np.clip(random.lognormal(4.0, 0.6, count), 15, 200).astype(int)
    words = iter(_WORDS[np.searchsorted(_CUMULATIVE, random.random(int(lengths.sum())))].tolist())
    rows: list[Row] = []
    for length, draw in zip(lengths.tolist(), random.random(count).tolist(), strict=True):
        row = [next(words) for _ in range(length)]
        if draw < 0.02 and rows:
            question, answer = rows[-1]
            rows.append((question, answer.replace(" ", " indeed ", 1)))
        else:
            rows.append((" ".join(row[: length // 4]), " ".join(row[length // 4 :])))
    return rows


def sums(random: Generator, count: int) -> list[Row]:
    """One template with two numbers of four digits."""
    numbers = random.integers(0, 10_000, (count, 2)).tolist()
    return [(f"What is {a} + {b}?", f"The sum of {a} and {b} is {a + b}.") for a, b in numbers]


def letters(random: Generator, count: int) -> list[Row]:
    """A long template, most of whose shingles all rows share, with three numbers."""
    numbers = random.integers(0, 10**9, (count, 3)).tolist()
    return [(_QUESTION.format(a, b), _ANSWER.format(c, b, a)) for a, b, c in numbers]


def copies(random: Generator, count: int) -> list[Row]:
    """One row again and again, with one word of it changed."""
    row = natural(np.random.default_rng(1), 1)[0]
    words = row[1].split()
    return [
        (row[0], " ".join([*words[:place], str(number), *words[place + 1 :]]))
        for place, number in zip(
            random.integers(0, len(words), count).tolist(),
            random.integers(0, 1_000_000, count).tolist(),
            strict=True,
        )
    ]


KINDS: Mapping[str, Callable[[Generator, int], list[Row]]] = {
    "natural": natural,
    "sums": sums,
    "letters": letters,
    "copies": copies,
}
_QUESTION = "Write a polite letter to customer {} about order {} which is late"
_ANSWER = (
    "Dear customer, we are sorry to tell you that your order has been delayed in our warehouse, it "
    "will leave by day {} and you can follow it online as order {} or ask our staff for help with "
    "your account {}"
)
_RANKS = np.arange(1, 50_001)
_WORDS = np.array([f"word{rank}" for rank in _RANKS], dtype=object)
_CUMULATIVE = np.cumsum(1 / (_RANKS + 2.7))
_CUMULATIVE /= _CUMULATIVE[-1]


def batches(kind: str, rows: int) -> Iterator[list[Row]]:
    """Made-up rows, the same ones each time."""
    random = np.random.default_rng(0)
    for begin in range(0, rows, BATCH_ROWS):
        yield KINDS[kind](random, min(BATCH_ROWS, rows - begin))


def measure(kind: str, rows: int) -> Cost:
    """In this process."""
    reading = 0.0
    with tempfile.TemporaryDirectory() as folder, ShingleStore(Path(folder)) as store:
        for batch in batches(kind, rows):
            begin = time.perf_counter()
            store.add(batch)
            reading += time.perf_counter() - begin
        store.finish()
        everything = np.arange(len(store))
        shingles = int(store.lengths(everything).sum())
        disk = sum(file.stat().st_size for file in Path(folder).iterdir()) + BANDS * 8 * rows
        begin = time.perf_counter()
        pairs = near_pairs(store, everything)
        searching = time.perf_counter() - begin
        inner = everything[::INNER_STEP]
        begin = time.perf_counter()
        contained_pairs(store, inner, np.delete(everything, inner))
        looking_up = time.perf_counter() - begin
    seconds = (reading, searching, looking_up)
    return Cost(kind, rows, shingles, disk, *seconds, len(pairs), peak_bytes())


def measure_apart(kind: str, rows: int) -> Cost:
    """In a fresh process."""
    command = [sys.executable, "-m", "bench.near_scale", "--measure", kind, "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def line_of(cost: Cost, interpreter: int) -> str:
    """A row of the table."""
    cells = (
        cost.kind,
        f"{cost.rows:,}",
        f"{cost.shingles / cost.rows:.0f}",
        f"{cost.reading_seconds:.1f} s",
        f"{cost.search_seconds:.1f} s",
        f"{cost.lookup_seconds:.1f} s",
        f"{cost.pairs:,}",
        f"{(cost.peak_bytes - interpreter) / _MB:.0f} MB",
        f"{cost.disk_bytes / _MB:.0f} MB",
    )
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| rows | number | shingles a row | reading | search | look-up of 1 row in 20 | pairs found "
    "| peak over the interpreter's own | scratch files |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main() -> None:
    """Every kind that is named, one after another."""
    parser = argparse.ArgumentParser(prog="python -m bench.near_scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--measure", choices=list(KINDS), help="one kind, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(asdict(measure(arguments.measure, arguments.rows))))
        return
    interpreter = interpreter_peak_bytes()
    print(HEADER)
    for kind in arguments.kinds:
        print(line_of(measure_apart(kind, arguments.rows), interpreter), flush=True)


if __name__ == "__main__":
    main()
