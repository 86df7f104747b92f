"""The rows of a run as LLaMA-Factory's trainer takes them: tokens and labels in an Arrow dataset,
so that what it feeds the model are this project's tokens, whatever templates it knows; and as text.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llamafarm.data.tokenized import TokenRows
from llamafarm.files import append_stream
from llamafarm.training.backends.llamafactory.translate import EVAL, ROWS, TRAIN

_ROWS_AT_ONCE = 1000
# What torch's cross entropy leaves out.
_IGNORED = -100
# Its collator of pairs asks for these.
_MEDIA = ("images", "videos", "audios")
# What the trainer's loader calls the sides.
_SPLITS = {TRAIN: "train", EVAL: "validation"}


@dataclass(frozen=True)
class PairedRows:
    """Two answers to the same prompt, row by row: the wanted and the other one."""

    chosen: TokenRows
    rejected: TokenRows
    pairs: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.pairs)


Side = TokenRows | PairedRows
Row = dict[str, list[int] | None]


def write_rows(
    directory: Path,
    sides: Mapping[str, Side],
    decode: Callable[[Sequence[int]], str],
    on_rows: Callable[[int], None],
    *,
    whole: bool = False,
) -> None:
    """Write `rows/` and a file of text a side. sides: by TRAIN and EVAL; on_rows: takes the rows
    done; what it raises ends this; whole: every token is trained, and the trainer makes the labels
    itself. Raises OSError.
    """
    from datasets import Dataset, DatasetDict

    done = itertools.count(1)
    written = {}
    for name, side in sides.items():
        stream = directory / f"{name}.arrow"
        with append_stream(directory / f"{name}.jsonl") as text:
            _write_stream(
                stream, _rows(side, decode, text.write, lambda: on_rows(next(done)), whole=whole)
            )
        written[_SPLITS[name]] = Dataset.from_file(str(stream))
    with _without_progress_bars():
        DatasetDict(written).save_to_disk(directory / ROWS)
    for name in sides:
        (directory / f"{name}.arrow").unlink()


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Progress is told by events here."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _rows(
    side: Side,
    decode: Callable[[Sequence[int]], str],
    write: Callable[[bytes], object],
    on_row: Callable[[], None],
    *,
    whole: bool,
) -> Iterator[Row]:
    for row in range(len(side)):
        if isinstance(side, PairedRows):
            chosen, rejected = side.pairs[row]
            texts = _pair_texts(side, chosen, rejected, decode)
            values: Row = {
                **_columns(side.chosen, chosen, "chosen_"),
                **_columns(side.rejected, rejected, "rejected_"),
                **dict.fromkeys(_MEDIA),
            }
        else:
            ids, trained = side.input_ids(row), side.trained(row)
            texts = conversation_texts(spans(ids, trained), decode)
            values = _columns(side, row)
            if whole:
                del values["labels"]
        write((json.dumps(texts, ensure_ascii=False) + "\n").encode())
        on_row()
        yield values


def _columns(rows: TokenRows, row: int, prefix: str = "") -> Row:
    ids, trained = rows.input_ids(row), rows.trained(row)
    return {
        f"{prefix}input_ids": ids.tolist(),
        f"{prefix}attention_mask": [1] * len(ids),
        f"{prefix}labels": np.where(trained, ids, _IGNORED).tolist(),
    }


def spans(
    ids: npt.NDArray[np.int32], trained: npt.NDArray[np.bool_]
) -> list[tuple[list[int], list[int]]]:
    """Prompt and answer in turn, as tokens; what follows the last answer is left out."""
    edges = [0, *np.flatnonzero(np.diff(trained.astype(np.int8), prepend=0)).tolist(), len(ids)]
    parts = [ids[a:b].tolist() for a, b in itertools.pairwise(edges)]
    return list(zip(parts[::2], parts[1::2], strict=False))


def conversation_texts(
    parts: Sequence[tuple[Sequence[int], Sequence[int]]], decode: Callable[[Sequence[int]], str]
) -> dict[str, Any]:
    """A line of the file of text: rendered, with every special token."""
    pairs = [[decode(prompt), decode(answer)] for prompt, answer in parts]
    *history, (prompt, response) = pairs
    return {
        "history": history,
        "prompt": prompt,
        "response": response,
        "text": "".join(itertools.chain(*pairs)),
    }


def _pair_texts(
    side: PairedRows, chosen: int, rejected: int, decode: Callable[[Sequence[int]], str]
) -> dict[str, str]:
    start = int(np.flatnonzero(side.chosen.trained(chosen))[0])
    other = int(np.flatnonzero(side.rejected.trained(rejected))[0])
    return {
        "prompt": decode(side.chosen.input_ids(chosen)[:start].tolist()),
        "chosen": decode(side.chosen.input_ids(chosen)[start:].tolist()),
        "rejected": decode(side.rejected.input_ids(rejected)[other:].tolist()),
    }


def unused_token(sides: Mapping[str, Side], vocabulary_size: int) -> int | None:
    """The first token id that no row has; None where all are used."""
    seen = np.zeros(vocabulary_size, dtype=np.bool_)
    for side in sides.values():
        for rows in (side.chosen, side.rejected) if isinstance(side, PairedRows) else (side,):
            for row in range(len(rows)):
                seen[rows.input_ids(row)] = True
    unused = np.flatnonzero(~seen)
    return int(unused[0]) if len(unused) else None


def _write_stream(path: Path, rows: Iterable[Row]) -> None:
    """An Arrow stream, some rows at a time."""
    import pyarrow as pa

    source = iter(rows)
    first = list(itertools.islice(source, _ROWS_AT_ONCE))
    kinds = [
        (name, pa.null() if name in _MEDIA else pa.list_(pa.int32()))
        for name in (first[0] if first else {})
    ]
    schema = pa.schema(kinds)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        batch = first
        while batch:
            stream.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch = list(itertools.islice(source, _ROWS_AT_ONCE))
