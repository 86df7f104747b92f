"""Memory and time from a large JSONL file to token rows: `python -m bench.data_scale 200 2000`.

Each size (megabytes) is generated, then prepared in a process of its own whose peak resident set is
read from the operating system. Prints a Markdown table.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.deploy.child import peak_bytes
from bench.environment import ROOT

WORDS_A_ROW = 150
_MEGABYTE = 1_000_000


def generate(path: Path, megabytes: int, seed: int = 1) -> int:
    """Question and answer rows of words in natural proportions (Zipf); how many."""
    rng = random.Random(seed)
    syllables = ["ka", "lo", "mi", "ren", "tas", "ur", "vel", "do", "shi", "pa", "qu", "er", "in"]
    vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(30_000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    cumulative = list(itertools.accumulate(weights))
    rows, written = 0, 0
    with path.open("wb") as file:
        while written < megabytes * _MEGABYTE:
            words = rng.choices(vocabulary, cum_weights=cumulative, k=WORDS_A_ROW)
            row = {"question": " ".join(words[:30]) + "?", "answer": " ".join(words[30:]) + "."}
            line = (json.dumps(row) + "\n").encode()
            file.write(line)
            written += len(line)
            rows += 1
    return rows


def prepare_once(data: Path) -> None:
    """What the measured process does; its own report goes to stdout."""
    from llamafarm.data.prepare import prepare
    from llamafarm.data.request import DataRequest
    from llamafarm.hardware.probe import cpu_threads
    from llamafarm.models.resolve import resolve_model
    from llamafarm.models.tokenizer import load_tokenizer
    from llamafarm.strategy.model import BaseModelSpec

    source = resolve_model(BaseModelSpec(), working_directory=Path.cwd())
    tokenizer = load_tokenizer(source.directory)
    request = DataRequest(
        train_location=data,
        eval_location=None,
        test_location=None,
        eval_wanted=True,
        eval_fraction=0.1,
        chat_template=tokenizer.chat_template,
        max_length=2048,
        seed=42,
        num_workers=cpu_threads(),
    )
    at_start = peak_bytes()
    begins: dict[str, float] = {}
    began = time.perf_counter()

    def work(what: str, done: int, total: int) -> None:
        begins.setdefault(what.split()[0], time.perf_counter() - began)

    report = prepare(request, tokenizer, cache_dir=data.parent / "cache", work=work).report
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - began,
                "begins": begins,
                "at_start": at_start,
                "peak": peak_bytes(),
                "rows": report.train.rows + (report.eval.rows if report.eval else 0),
                "tokens": report.ledger.tokens if report.ledger else 0,
            }
        )
    )


def measure(megabytes: int) -> dict[str, float]:
    """One size, in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        generate(data, megabytes)
        done = subprocess.run(
            [sys.executable, "-m", "bench.data_scale", "--prepare", str(data)],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--prepare"]:
        prepare_once(Path(sys.argv[2]))
        return
    print("| file | rows | tokens | seconds | peak resident set | at the start |")
    print("|---|---|---|---|---|---|")
    for megabytes in [int(size) for size in sys.argv[1:]] or [20, 200]:
        found = measure(megabytes)
        print(
            f"| {megabytes} MB | {found['rows']:,} | {found['tokens']:,} "
            f"| {found['seconds']:.0f} | "
            f"{found['peak'] / 1e6:.0f} MB | {found['at_start'] / 1e6:.0f} MB |",
            flush=True,
        )
        print(f"  {found['begins']}", file=sys.stderr)


if __name__ == "__main__":
    main()
