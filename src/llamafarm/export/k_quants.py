"""The K types (Q4_K, Q5_K, Q6_K) through an engine, and the check of what it answered.

Their encoders search for the scales that err least, which numpy is too slow for. Either of two
engines makes the same bytes: llama.cpp's own library, where llama.cpp is installed, or the libgguf
package, an optional part.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llamafarm.errors import RunError, UserError
from llamafarm.export.contents import Floats
from llamafarm.export.file_types import FileType
from llamafarm.export.ggml_types import Bytes, decode, encoded_nbytes, type_number

LLAMA_CPP_PATH = "LLAMA_CPP_PATH"
# A row's error is at most this part of the row, as root mean squares. Measured with gguf's decoder,
# worst of rows of 256 values: normal 0.086, 0.043, 0.022; fourteen heavy-tailed, sparse, shifted or
# unevenly scaled distributions, 84,000 rows: 0.142, 0.090, 0.047; the weights of SmolLM2-135M:
# 0.102, 0.052, 0.037. Rows in another order, or moved by a column, are off by 1.4.
_BOUNDS = {"Q4_K": 0.25, "Q5_K": 0.14, "Q6_K": 0.08}
K_TYPES = tuple(_BOUNDS)
# A super-block's float16 scale is off by 2**-25 where it is smallest, and is multiplied by up to
# 128 x 32 (Q6_K): rows of smaller values may be lost altogether.
_SMALLEST_SCALE_ERROR = 2.0**-13
_ROWS_CHECKED = 5
_LIBRARIES = ("libggml-base.so", "libggml-base.so.0", "libggml-base.dylib")
_LIBRARY_FOLDERS = ("", "lib", "bin", "build/bin", "build/lib")
_HOW_TO_GET_ONE = (
    "pip install 'llamafarm[k-quants]', or install llama.cpp (its llama-quantize on PATH, or "
    f"{LLAMA_CPP_PATH} naming its directory); Q8_0 needs neither"
)
_ANOTHER_ENGINE = "choose Q8_0, which needs no engine; another version of this one may help"


class RowEncoder(Protocol):
    """An engine. encode: float32 rows [n, k], contiguous, to the bytes of n rows of a K type."""

    @property
    def name(self) -> str:
        """For messages."""

    def encode(self, rows: Floats, type_name: str) -> Bytes:
        """Safe to call from several threads at once."""


@dataclass(frozen=True, slots=True)
class LibggufEncoder:
    """The libgguf package: ggml's encoders in a Python extension."""

    name: str = "libgguf"

    def encode(self, rows: Floats, type_name: str) -> Bytes:
        """See RowEncoder."""
        import libgguf

        encoded: Bytes = libgguf.quantize_rows(rows, type_number(type_name))
        return encoded.reshape(-1)


@dataclass(frozen=True, slots=True)
class GgmlEncoder:
    """ggml's own base library, as llama.cpp's programs load it. path: of the shared library."""

    path: Path

    @property
    def name(self) -> str:
        """See RowEncoder."""
        return f"llama.cpp ({self.path})"

    def encode(self, rows: Floats, type_name: str) -> Bytes:
        """See RowEncoder. Raises RunError where the library lays rows out in another size."""
        library, number = _load(self.path), type_number(type_name)
        out = np.empty(encoded_nbytes(rows.shape, type_name), np.uint8)
        # Asked first: the library writes without knowing how long `out` is.
        stored = len(rows) * library.ggml_row_size(number, rows.shape[1])
        if stored != out.size:
            raise _wrong_size(self.name, f"rows in {type_name}", stored, out.size)
        addresses = rows.ctypes.data, out.ctypes.data
        written = library.ggml_quantize_chunk(number, *addresses, 0, *rows.shape, None)
        return out[:written]


def find_engine() -> RowEncoder | None:
    """llama.cpp's own library where it is found, else libgguf where it is installed.

    Raises UserError where the library found cannot be loaded.
    """
    library = next(_ggml_libraries(), None)
    if library is not None:
        _load(library)
        return GgmlEncoder(library)
    return LibggufEncoder() if importlib.util.find_spec("libgguf") else None


def require_engine(file_type: FileType) -> None:
    """Raises UserError, with how to get one, where the file type needs an engine and none is
    there.
    """
    if file_type.needs_engine and find_engine() is None:
        raise _no_engine(file_type.name)


def encode_k_rows(rows: Floats, type_name: str, *, tensor: str) -> Bytes:
    """Bytes of float32 rows [n, k], contiguous, finite, k a multiple of 256. tensor: its name.

    Raises UserError where no engine is there, RunError where its answer has the wrong length or, in
    the rows that are checked, decodes to something else than the rows.
    """
    engine = find_engine()
    if engine is None:
        raise _no_engine(type_name)
    if not len(rows):
        return np.empty(0, np.uint8)
    encoded = engine.encode(rows, type_name)
    expected = encoded_nbytes(rows.shape, type_name)
    if encoded.size != expected:
        raise _wrong_size(engine.name, f"tensor {tensor} in {type_name}", encoded.size, expected)
    _check_sample(rows, encoded.reshape(len(rows), -1), type_name, tensor, engine.name)
    return encoded


def _check_sample(
    rows: Floats, encoded: Bytes, type_name: str, tensor: str, engine_name: str
) -> None:
    """The first row, the last and some between must decode to what they were."""
    sample = np.unique(np.linspace(0, len(rows) - 1, _ROWS_CHECKED).astype(np.intp))
    given = rows[sample]
    with np.errstate(all="ignore"):
        error = _rms(decode(encoded[sample], type_name, given.shape) - given)
    allowed = _BOUNDS[type_name] * _rms(given) + _SMALLEST_SCALE_ERROR
    bad = np.flatnonzero(~(error <= allowed))  # NaN is bad
    if bad.size:
        worst = bad[np.argmax(error[bad])]
        raise RunError(
            f"{engine_name} encoded tensor {tensor} wrongly: in {type_name}, row {sample[worst]} "
            f"is off by {error[worst]:.3g} (root mean square), allowed is {allowed[worst]:.3g}",
            hint=_ANOTHER_ENGINE,
        )


def _rms(rows: Floats) -> npt.NDArray[np.float64]:
    means: npt.NDArray[np.float64] = np.square(rows, dtype=np.float64).mean(axis=1)
    return np.sqrt(means)


def _ggml_libraries() -> Iterator[Path]:
    for root in _llama_cpp_roots():
        for folder in _LIBRARY_FOLDERS:
            for name in _LIBRARIES:
                if (root / folder / name).is_file():
                    yield root / folder / name


def _llama_cpp_roots() -> Iterator[Path]:
    named = os.environ.get(LLAMA_CPP_PATH)
    if named:
        yield Path(named).expanduser()
    program = shutil.which("llama-quantize")
    if program:
        # Package managers put a link on PATH; the library may lie near the link or the program.
        for path in (Path(program), Path(program).resolve()):
            yield path.parent
            yield path.parent.parent


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    """The library with the signatures of ggml.h."""
    try:
        library = ctypes.CDLL(str(path))
        row_size, quantize = library.ggml_row_size, library.ggml_quantize_chunk
    except (OSError, AttributeError) as fault:
        raise UserError(
            f"llama.cpp's library {path} cannot be used: {fault}",
            hint=f"set {LLAMA_CPP_PATH} to a llama.cpp that runs here, or: {_HOW_TO_GET_ONE}",
        ) from fault
    row_size.argtypes, row_size.restype = [ctypes.c_int, ctypes.c_int64], ctypes.c_size_t
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    quantize.restype = ctypes.c_size_t
    return library


def _no_engine(type_name: str) -> UserError:
    return UserError(
        f"{type_name} needs an engine that makes K types, and none is installed",
        hint=_HOW_TO_GET_ONE,
    )


def _wrong_size(engine_name: str, what: str, found: int, expected: int) -> RunError:
    return RunError(
        f"{engine_name} gave {found:,} bytes for {what}, not {expected:,}",
        hint=_ANOTHER_ENGINE,
    )
