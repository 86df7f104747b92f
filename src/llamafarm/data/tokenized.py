"""Token sequences with a mask, memory-mapped from the Arrow cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llamafarm.data.report import DataReport
from llamafarm.data.rows import RowRef


class TokenRows(Protocol):
    """Rows of tokens. A row is `input_ids` int32 [n] and `trained` bool [n]: trained[t] says that
    token t is an answer token, i.e. that the prediction made at t - 1 is scored. trained[0] is
    always False.
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def input_ids(self, row: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        ...

    def trained(self, row: int) -> npt.NDArray[np.bool_]:
        """Which tokens of one row are trained."""
        ...

    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of every row."""
        ...

    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Number of trained tokens of every row."""
        ...

    def source(self, row: int) -> RowRef:
        """Where the row was written."""
        ...

    def conversation_text(self, row: int) -> tuple[str, str]:
        """Prompt and answer of the row as text, for samples and messages."""
        ...


def row_bytes(ids: npt.NDArray[np.int32], trained: npt.NDArray[np.bool_]) -> bytes:
    """What a row adds to the fingerprint of its side: SHA-256 over these of all rows."""
    return ids.tobytes() + b"|" + trained.tobytes() + b"\n"


@dataclass(frozen=True)
class PreparedData:
    """Both sides, ready to train on. eval is None only when evaluation was switched off."""

    train: TokenRows
    eval: TokenRows | None
    report: DataReport


class ListRows:
    """Rows held in memory: for rows made by a program, and for tests."""

    def __init__(
        self,
        rows: Sequence[tuple[Sequence[int], Sequence[bool]]],
        name: str = "memory",
    ) -> None:
        import hashlib

        self._ids = [np.asarray(ids, dtype=np.int32) for ids, _ in rows]
        self._trained = [np.asarray(trained, dtype=np.bool_) for _, trained in rows]
        digest = hashlib.sha256()
        for ids, trained in zip(self._ids, self._trained, strict=True):
            digest.update(row_bytes(ids, trained))
        self.fingerprint = digest.hexdigest()
        self._name = name

    def __len__(self) -> int:
        return len(self._ids)

    def input_ids(self, row: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        return self._ids[row]

    def trained(self, row: int) -> npt.NDArray[np.bool_]:
        """Which tokens of one row are trained."""
        return self._trained[row]

    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of every row."""
        return np.array([len(ids) for ids in self._ids], dtype=np.int64)

    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Number of trained tokens of every row."""
        return np.array([int(t.sum()) for t in self._trained], dtype=np.int64)

    def source(self, row: int) -> RowRef:
        """Where the row was written."""
        return RowRef(self._name, row + 1)

    def conversation_text(self, row: int) -> tuple[str, str]:
        """Rows made of ids alone have no text."""
        return "", ""
