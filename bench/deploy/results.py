"""What was measured, as values, and the file that keeps it. Pure but for reading and writing it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ALLOWED_BASE_BYTES = 300_000_000


@dataclass(frozen=True, slots=True)
class SpeedRun:
    """One process. seconds: floor (read and write as many bytes), conversion (plan, write, fsync),
    command (the whole of it, from start to exit); load: the machine's, just before.
    """

    what: str
    seconds: float
    load: float


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """All runs of one kind of output, e.g. `F16`. Sizes in bytes."""

    kind: str
    input_bytes: int
    output_bytes: int
    runs: tuple[SpeedRun, ...]

    def seconds(self, what: str) -> float:
        """The median."""
        return median(run.seconds for run in self.runs if run.what == what)

    @property
    def ratio(self) -> float:
        """The conversion against the floor."""
        return self.seconds("conversion") / self.seconds("floor")

    def fastest(self, what: str) -> float:
        """Seconds of the run that was disturbed least."""
        return min(run.seconds for run in self.runs if run.what == what)

    @property
    def ratio_of_fastest(self) -> float:
        """The same, of the fastest run of each: a disk that is slow now and then flatters `ratio`,
        because a conversion computes meanwhile.
        """
        return self.fastest("conversion") / self.fastest("floor")


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One conversion in a fresh process. model_bytes, largest_tensor_bytes: as stored;
    interpreter_bytes: the peak of a process that does nothing; heavy_modules: of torch and
    transformers, those that were imported.
    """

    model: str
    kind: str
    model_bytes: int
    largest_tensor_bytes: int
    interpreter_bytes: int
    peak_bytes: int
    heavy_modules: tuple[str, ...]

    @property
    def over_interpreter(self) -> int:
        """What the conversion itself takes, in bytes."""
        return self.peak_bytes - self.interpreter_bytes

    @property
    def allowed_bytes(self) -> int:
        """Twice the largest tensor, and 300 MB."""
        return 2 * self.largest_tensor_bytes + ALLOWED_BASE_BYTES


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One file of one model in llama.cpp, against the trained model in transformers.

    mean_kl, max_difference (of a log-probability): see export/parity.py; agreed: positions where
    both name the same token; decided, agreed_decided: those whose margin exceeds tolerated_margin;
    widest_disagreement: the largest margin at which they name different tokens; differing_codes:
    the largest share of a tensor's bytes that are not those of PEFT's merge.
    """

    model: str
    file_type: str
    positions: int
    mean_kl: float
    max_difference: float
    agreed: int
    tolerated_margin: float
    decided: int
    agreed_decided: int
    widest_disagreement: float
    differing_codes: float


@dataclass(frozen=True, slots=True)
class RoundingRow:
    """One of ggml's tensor types. differing_codes: the share of bytes that differ where two merges
    only round differently.
    """

    tensor_type: str
    differing_codes: float


_ROWS: Mapping[str, type] = {
    "speed": SpeedRow,
    "memory": MemoryRow,
    "rounding": RoundingRow,
    "parity": ParityRow,
}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the bench. date: ISO; command: what was typed; load: the highest one-minute load
    average while it was measured; rows: SpeedRows, MemoryRows or ParityRows.
    """

    date: str
    command: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    load: float
    rows: Sequence[Any]


def read_parts(file: Path) -> dict[str, Part]:
    """Read what write_parts wrote; empty where there is no file."""
    if not file.is_file():
        return {}
    values = json.loads(file.read_text(encoding="utf-8"))
    return {name: _part(name, part) for name, part in values.items()}


def write_parts(file: Path, parts: Mapping[str, Part]) -> None:
    """All runs as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {name: asdict(part) for name, part in parts.items()}
    file.write_text(json.dumps(_rounded(values), indent=1) + "\n", encoding="utf-8")


def _part(name: str, values: Mapping[str, Any]) -> Part:
    rows = [_row(_ROWS[name], row) for row in values["rows"]]
    return Part(**{**values, "rows": rows})


def _row(kind: type, values: Mapping[str, Any]) -> Any:
    if kind is SpeedRow:
        return SpeedRow(**{**values, "runs": tuple(SpeedRun(**run) for run in values["runs"])})
    if kind is MemoryRow:
        return MemoryRow(**{**values, "heavy_modules": tuple(values["heavy_modules"])})
    return kind(**values)


def _rounded(value: Any) -> Any:
    """Six significant digits."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
