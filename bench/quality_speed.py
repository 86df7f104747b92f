"""How many rows a second of CPU time the quality checks see, and how much memory they keep.

    python -m bench.quality_speed [ROWS]

Rows of about 500 characters are made here: English, German, Russian and Chinese sentences, one row
in twenty with an e-mail address, a phone number or a date in it.
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Iterator

from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.rows import Conversation, Message, RowRef

WORDS = {
    "en": "the patient should take one tablet of this medicine with water after every meal and "
    "see a doctor when the pain does not go away within a week or becomes worse at night",
    "de": "der Patient sollte nach jeder Mahlzeit eine Tablette mit Wasser einnehmen und einen "
    "Arzt aufsuchen wenn die Schmerzen länger als eine Woche dauern oder nachts stärker werden",
    "ru": "пациент должен принимать одну таблетку после еды запивая водой и обратиться к врачу "
    "если боль не проходит в течение недели или усиливается ночью",
    "zh": "患者 应 在 每次 饭后 用水 服用 一片 药物 如果 疼痛 一周 内 没有 消失 或 夜间 加重 请",
}
EXTRAS = (
    "Write to maria.keller@praxis-keller.de.",
    "Call +49 30 901820 or (415) 555-2671.",
    "Seen on 2024-03-17 at 10:45, invoice 20240317001, ISBN 978-3-16-148410-0.",
)


def rows(count: int, language: str) -> Iterator[Conversation]:
    draw = random.Random(0)
    words = WORDS[language].split()
    for line in range(1, count + 1):
        prompt = f"{' '.join(draw.choices(words, k=15))}?"
        answer = f"{' '.join(draw.choices(words, k=65))}."
        if line % 20 == 0:
            answer += f" {draw.choice(EXTRAS)}"
        yield Conversation(
            RowRef("rows.jsonl", line), (Message("user", prompt), Message("assistant", answer))
        )


def measure(count: int, language: str) -> None:
    made = list(rows(count, language))
    characters = sum(len(m.content) for row in made for m in row.messages)
    observer = QualityObserver()
    start = time.process_time()
    for row in made:
        observer.see(row, "train")
    seen = time.process_time() - start
    start = time.process_time()
    observer.report()
    reported = time.process_time() - start
    print(
        f"{language}: {count / seen:,.0f} rows/s, {seen / count * 1e6:.1f} us a row of "
        f"{characters / count:.0f} characters, {characters / seen / 1e6:.0f} MB/s; "
        f"report {reported:.2f} s; all together {(seen + reported) / count * 1e6:.1f} us a row"
    )


def memory(count: int) -> None:
    tracemalloc.start()
    observer = QualityObserver()
    for row in rows(count, "en"):
        observer.see(row, "train")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"kept after {count:,} rows: {kept / 2**20:.1f} MiB")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for language in WORDS:
        measure(count, language)
    for size in (count // 10, count // 2):
        memory(size)


if __name__ == "__main__":
    main()
