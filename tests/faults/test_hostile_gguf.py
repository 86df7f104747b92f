"""GGUF files that lie about themselves: named as such, and never believed first."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from llamafarm.errors import ModelError
from llamafarm.models.gguf_file import read_gguf
from tests.models.gguf_files import write_gguf

MUTANTS = 2000
# A header of 1 kB makes a few kB of values; a count that was believed would make gigabytes.
MOST_MEMORY_BYTES = 1_000_000
LARGEST = 2**64 - 1
TEMPTING = (0, 1, 7, 31, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**63, LARGEST)
UINT32, FLOAT32, STRING, ARRAY, UINT64 = 4, 6, 8, 9, 10
F32, Q8_0 = 0, 8


def number(code: str, value: int) -> bytes:
    return struct.pack("<" + code, value)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return number("Q", len(raw)) + raw


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + number("I", kind) + value


def tensor(
    name: str | bytes, dimensions: Sequence[int] = (4,), kind: int = F32, offset: int = 0
) -> bytes:
    sizes = b"".join(number("Q", size) for size in dimensions)
    return (
        text(name) + number("I", len(dimensions)) + sizes + number("I", kind) + number("Q", offset)
    )


def gguf_bytes(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    *,
    data: int = 64,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    """A file with these entries, and `data` bytes of weights at the usual alignment."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = b"GGUF" + number("I", version) + b"".join(number("Q", count) for count in counts)
    head += b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


LIES = {
    "tensors": (gguf_bytes(tensor_count=LARGEST), "the number of tensors: 18,446,744,073,"),
    "keys": (gguf_bytes(key_count=2**40), "the number of keys: 1,099,511,627,776 are announced"),
    "version": (gguf_bytes(version=50331648), "version 50331648; versions 2 and 3"),
    "text": (
        gguf_bytes([key("a", STRING, number("Q", LARGEST))]),
        "key 'a': a text of 18,446,744,073,709,551,615 bytes",
    ),
    "text_at_the_end": (
        gguf_bytes([key("a", STRING, number("Q", 5000))]),
        "key 'a': the file ends here",
    ),
    "name": (gguf_bytes([key(b"x" * 70_000, UINT32, number("I", 1))]), "the name of key 1: a text"),
    "utf8": (
        gguf_bytes([key(b"\xff\xfe", UINT32, number("I", 1))]),
        "the name of key 1: a text that is not UTF-8",
    ),
    "kind": (gguf_bytes([key("a", 77, b"")]), "key 'a': a value of the unknown type 77"),
    "array": (
        gguf_bytes([key("a", ARRAY, number("I", UINT64) + number("Q", 2**61))]),
        "key 'a': 2,305,843,009,213,693,952 are announced, and there is room for",
    ),
    "array_of_text": (
        gguf_bytes([key("a", ARRAY, number("I", STRING) + number("Q", LARGEST))]),
        "key 'a': 18,446,744,073,709,551,615 are announced",
    ),
    "array_kind": (
        gguf_bytes([key("a", ARRAY, number("I", 99) + number("Q", 0))]),
        "key 'a': an array of the unknown type 99",
    ),
    "depth": (
        gguf_bytes([key("a", ARRAY, (number("I", ARRAY) + number("Q", 1)) * 2000)]),
        "key 'a': arrays inside arrays",
    ),
    "twice": (
        gguf_bytes([key("a", UINT32, number("I", 1)), key("a", UINT32, number("I", 2))]),
        "key 'a': it is there twice",
    ),
    "alignment": (
        gguf_bytes([key("general.alignment", UINT32, number("I", 48))]),
        "key 'general.alignment': 48 is no power of two",
    ),
    "alignment_zero": (
        gguf_bytes([key("general.alignment", UINT32, number("I", 0))]),
        "key 'general.alignment': 0 is no power of two",
    ),
    "alignment_text": (
        gguf_bytes([key("general.alignment", STRING, text("32"))]),
        "key 'general.alignment': it is not a whole number",
    ),
    "dimensions": (
        gguf_bytes(tensors=[tensor("t", (1,) * 5)]),
        "tensor 't': 5 dimensions; at most 4",
    ),
    "dimension_count": (
        gguf_bytes(tensors=[text("t") + number("I", 2**32 - 1) + b"\0" * 40]),
        "tensor 't': 4,294,967,295 dimensions",
    ),
    "no_dimension": (gguf_bytes(tensors=[tensor("t", (4, 0))]), "tensor 't': a dimension of 0"),
    "product": (
        gguf_bytes(tensors=[tensor("t", (2**63, 2**63, 2**63, 2**63))]),
        "tensor 't': it ends at byte",
    ),
    "format": (gguf_bytes(tensors=[tensor("t", kind=5)]), "tensor 't': the unknown block format 5"),
    "blocks": (
        gguf_bytes(tensors=[tensor("t", (40, 2), Q8_0)]),
        "tensor 't': rows of 40 values, which blocks of 32",
    ),
    "outside": (gguf_bytes(tensors=[tensor("t", (17,))]), "tensor 't': it ends at byte"),
    "offset": (gguf_bytes(tensors=[tensor("t", offset=2**64 - 32)]), "tensor 't': it ends at byte"),
    "aligned": (
        gguf_bytes(tensors=[tensor("t", offset=8)]),
        "tensor 't': its offset is no multiple",
    ),
    "overlap": (
        gguf_bytes(tensors=[tensor("t", (9,)), tensor("u", offset=32)]),
        "tensor 'u': it overlaps tensor 't'",
    ),
    "tensor_twice": (
        gguf_bytes(tensors=[tensor("t"), tensor("t", offset=32)]),
        "tensor 't': it is there twice",
    ),
    "tensor_name": (gguf_bytes(tensors=[tensor("n" * 65)]), "the name of tensor 1: a text of 65"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_named_with_its_place(tmp_path: Path, lie: str) -> None:
    content, message = LIES[lie]
    file = tmp_path / "lie.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError) as fault:
        read_gguf(file)
    assert f"lie.gguf is not a readable GGUF file ({message}" in fault.value.summary
    assert len(fault.value.summary) < 1000


def test_the_same_entries_without_a_lie_are_read(tmp_path: Path) -> None:
    file = tmp_path / "true.gguf"
    nested = number("I", ARRAY) + number("Q", 1) + number("I", FLOAT32) + number("Q", 0)
    file.write_bytes(
        gguf_bytes(
            [key("general.alignment", UINT32, number("I", 32)), key("a", ARRAY, nested)],
            [tensor("u", offset=32), tensor("t", (8,)), tensor("scalar", (), offset=64)],
            data=68,
        )
    )
    found = read_gguf(file)
    assert found.metadata == {"general.alignment": 32, "a": [[]]}
    assert [(t.name, t.shape, t.num_bytes) for t in found.tensors] == [
        ("u", (4,), 16),
        ("t", (8,), 32),
        ("scalar", (), 4),
    ]


def small_gguf(folder: Path) -> bytes:
    draw = np.random.default_rng(0)
    write_gguf(
        folder / "small.gguf",
        {
            "blk.0.attn_q.weight": draw.normal(size=(2, 64)).astype(np.float32),
            "norm.weight": draw.normal(size=(7,)).astype(np.float32),
            "half.weight": draw.normal(size=(4, 5)).astype(np.float16),
        },
        quantised=True,
    )
    return (folder / "small.gguf").read_bytes()


def mutants(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Damage as disks, networks and enemies do it: bytes, numbers, cuts, repeats, one to four of
    them a file.
    """
    draw = random.Random(seed)
    for _ in range(count):
        made = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(made)) if made else 0
            match draw.randrange(6):
                case 0:
                    made[at : at + 1] = bytes([draw.randrange(256)])
                case 1:
                    made[at : at + 8] = struct.pack("<Q", draw.choice(TEMPTING))
                case 2:
                    made[at : at + 4] = struct.pack("<I", draw.choice(TEMPTING) % 2**32)
                case 3:
                    del made[at:]
                case 4:
                    del made[at : at + draw.randint(1, 40)]
                case 5:
                    made[at:at] = made[at : at + draw.randint(1, 40)]
        yield bytes(made)


def test_damage_of_any_kind_gives_a_model_error_and_costs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "mutant.gguf"
    content = small_gguf(tmp_path)
    file.write_bytes(content)
    read_gguf(file)
    refused = 0
    tracemalloc.start()
    try:
        for mutant in mutants(content, seed=1, count=MUTANTS):
            file.write_bytes(mutant)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                found = read_gguf(file)
            except ModelError as fault:
                refused += 1
                assert len(fault.summary) < 1000
            else:
                assert all(t.offset + t.num_bytes <= len(mutant) for t in found.tensors)
            assert tracemalloc.get_traced_memory()[1] - before < MOST_MEMORY_BYTES
    finally:
        tracemalloc.stop()
    assert MUTANTS / 2 < refused < MUTANTS
