"""Results as the bench would measure them."""

from __future__ import annotations

from bench.deploy.results import MemoryRow, ParityRow, Part, RoundingRow, SpeedRow, SpeedRun

from llamafarm.export.file_types import FILE_TYPES

MACHINE = {
    "cpu": "Some CPU",
    "cores": 2,
    "capability": "AVX2",
    "memory_bytes": 24 * 1024**3,
    "system": "Linux",
}
SPEED = SpeedRow(
    kind="F16",
    input_bytes=500_000_000,
    output_bytes=250_000_000,
    runs=tuple(
        SpeedRun(what, seconds, 0.1)
        for what, every in {
            "floor": (1.0, 0.9, 5.0),
            "conversion": (1.5, 1.4, 1.6),
            "command": (2.0, 2.5, 3.0),
        }.items()
        for seconds in every
    ),
)
MEMORY = MemoryRow("Small", "F16", 300_000_000, 100_000_000, 10_000_000, 90_000_000, ())
ROUNDING = tuple(
    RoundingRow(name, 0.02 if name == "F32" else 0.001)
    for name in dict.fromkeys(file_type.tensor_type for file_type in FILE_TYPES.values())
)


def parity_row(
    model: str = "Small",
    file_type: str = "F16",
    *,
    mean_kl: float = 0.01,
    max_difference: float = 0.2,
    widest_disagreement: float = 0.05,
) -> ParityRow:
    return ParityRow(
        model=model,
        file_type=file_type,
        positions=200,
        mean_kl=mean_kl,
        max_difference=max_difference,
        agreed=190,
        tolerated_margin=0.4,
        decided=150,
        agreed_decided=150,
        widest_disagreement=widest_disagreement,
        differing_codes=0.0,
    )


def part(*rows: object, load: float = 0.1) -> Part:
    return Part(
        "2026-01-31", "python -m bench.deploy", MACHINE, {"gguf": "0.17.1"}, load, list(rows)
    )


PARTS = {
    "speed": part(SPEED),
    "memory": part(MEMORY),
    "rounding": part(*ROUNDING),
    "parity": part(parity_row(), parity_row("Tiny", mean_kl=0.02)),
}
