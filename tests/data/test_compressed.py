from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.compressed import MAX_UNPACKED_BYTES, open_bytes, without_compression
from llamafarm.data.readers import RowSource, open_source
from llamafarm.errors import DataError

from .rows_on_disk import good_and_bad

Pack = Callable[[bytes], bytes]
ROWS = b"".join(
    b'{"question": "What is %d?", "answer": "It is %d."}\n' % (i, i) for i in range(900)
)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKS: dict[str, Pack] = {".gz": gzip.compress, ".zst": _zstd}


@pytest.fixture(params=PACKS)
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _open(path: Path, content: bytes) -> RowSource:
    path.write_bytes(content)
    return open_source(path)


def _refusal(path: Path, content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        list(_open(path, content).items())
    return caught.value.render()


def test_rows_of_a_compressed_file_are_those_of_the_file_inside(
    ending: str, tmp_path: Path
) -> None:
    packed = PACKS[ending](ROWS)
    inside = _open(tmp_path / "r.jsonl", ROWS)
    source = _open(tmp_path / f"r.jsonl{ending}", packed)
    assert source.kind == "jsonl"
    assert source.sha256 == hashlib.sha256(packed).hexdigest()
    rows, bad = good_and_bad(source.items())
    assert not bad
    assert [(row.source.line, row.raw) for row in rows] == [
        (row.source.line, row.raw) for row in good_and_bad(inside.items())[0]
    ]
    assert list(source.items()) == rows


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("r.json", b'[{"a": 1}, {"a": 2}]', "json"),
        ("r.json", b'{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("r.csv", b"a\n1\n2\n", "csv"),
        ("r.tsv", b"a\tb\n1\t2\n3\t4\n", "tsv"),
        ("r.JSONL", b'{"a": 1}\n{"a": 2}\n', "jsonl"),
    ],
)
def test_every_kind_of_text_file_may_be_compressed(
    name: str, content: bytes, kind: str, ending: str, tmp_path: Path
) -> None:
    source = _open(tmp_path / f"{name}{ending.upper()}", PACKS[ending](content))
    rows, bad = good_and_bad(source.items())
    assert (source.kind, len(rows), len(bad)) == (kind, 2, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=6), st.sampled_from(sorted(PACKS)))
def test_several_streams_one_after_the_other_are_one_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ending: str
) -> None:
    path = tmp_path_factory.mktemp("parts") / f"r.jsonl{ending}"
    path.write_bytes(b"".join(map(PACKS[ending], parts)))
    with open_bytes(path, "r") as file:
        assert file.read() == b"".join(parts)


def test_zeros_after_a_gzip_stream_are_padding(tmp_path: Path) -> None:
    source = _open(tmp_path / "r.jsonl.gz", gzip.compress(ROWS) + b"\0" * 1000)
    assert len(list(source.items())) == 900


def test_a_file_that_is_cut_off_is_named_with_the_line_and_the_byte_reached(
    ending: str, tmp_path: Path
) -> None:
    rows = b"".join(b'{"a": "%s"}\n' % os.urandom(300).hex().encode() for _ in range(1500))
    packed = PACKS[ending](rows)
    text = _refusal(tmp_path / f"r.jsonl{ending}", packed[: len(packed) // 2])
    line = int(text.split(f"r.jsonl{ending}:")[1].split()[0])
    assert 500 < line <= 751
    assert "the file is cut off" in text
    assert f"byte {len(packed) // 2:,} of the file" in text


def test_rows_that_end_at_a_line_are_not_taken_for_the_whole_file(
    ending: str, tmp_path: Path
) -> None:
    text = _refusal(tmp_path / f"r.jsonl{ending}", PACKS[ending](ROWS)[:-1])
    assert "cut off" in text
    assert ":901 " in text


def test_a_changed_byte_is_found(ending: str, tmp_path: Path) -> None:
    packed = bytearray(PACKS[ending](ROWS))
    packed[len(packed) // 2] ^= 0x55
    assert "damaged" in _refusal(tmp_path / f"r.jsonl{ending}", bytes(packed))


def test_what_is_not_compressed_is_refused_whatever_its_name_says(
    ending: str, tmp_path: Path
) -> None:
    assert "this is not" in _refusal(tmp_path / f"r.jsonl{ending}", ROWS)


def test_data_after_a_stream_that_is_none_is_refused(ending: str, tmp_path: Path) -> None:
    text = _refusal(tmp_path / f"r.jsonl{ending}", PACKS[ending](ROWS) + b"and more")
    assert "damaged" in text


def test_a_compressed_file_under_another_name_is_refused_with_the_right_one(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    assert f"mv {path} {path}{ending}" in _refusal(path, PACKS[ending](ROWS))


def test_an_empty_file_inside_is_empty(ending: str, tmp_path: Path) -> None:
    assert "is empty" in _refusal(tmp_path / f"a.jsonl{ending}", PACKS[ending](b""))
    assert "is empty" in _refusal(tmp_path / f"b.jsonl{ending}", b"")
    assert "is empty" in _refusal(tmp_path / f"c.jsonl{ending}", PACKS[ending](b"\n" * 5000))


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    line = b" " * (2**20 - 1) + b"\n"
    compressor = zstandard.ZstdCompressor()
    path = tmp_path / "r.jsonl.zst"
    with path.open("wb") as file, compressor.stream_writer(file) as writer:
        for _ in range(MAX_UNPACKED_BYTES // len(line) + 40):
            writer.write(line)
    with pytest.raises(DataError) as caught:
        open_source(path)
    text = caught.value.render()
    assert "more than 1 GiB and to more than 200 times its size" in text
    assert f"`zstd -dc --long=31 {path} > {tmp_path / 'r.jsonl'}`" in text


def test_a_window_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=wide)
    path = tmp_path / "r.jsonl.zst"
    with path.open("wb") as file, compressor.stream_writer(file) as writer:
        writer.write(ROWS)
    assert "window of more than 128 MiB" in _refusal(path, path.read_bytes())


def test_compressed_parquet_is_refused_with_a_way_out(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.parquet{ending}"
    path.write_bytes(PACKS[ending](b"PAR1"))
    with pytest.raises(DataError, match="Parquet is read as it is") as caught:
        open_source(path)
    assert f"> {tmp_path / 'r.parquet'}`" in caught.value.hint


def test_the_name_of_the_file_inside() -> None:
    assert without_compression(Path("d/r.jsonl.gz")) == Path("d/r.jsonl")
    assert without_compression(Path("r.csv.ZST")) == Path("r.csv")
    assert without_compression(Path("r.jsonl")) == Path("r.jsonl")
