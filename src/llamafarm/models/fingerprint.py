"""SHA-256 of weights, computed once per file: 16 GB are not read again at every start."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from llamafarm.cache import cache_root
from llamafarm.errors import ModelError
from llamafarm.files import write_json_atomic


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors files that transformers would load from a directory, in name order.

    Several are named by their index; without an index it is `model.safetensors`. Raises ModelError
    when the index is broken or names a file that is missing.
    """
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if single.is_file():
        return (single,)
    if not index.is_file():
        return ()
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        if wrong := [name for name in names if Path(name).name != name]:
            raise ValueError(f"it names {wrong[0]!r}, which is no file beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ModelError(
            f"{index} is not a safetensors index ({fault})", hint="download the model again"
        ) from fault
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise ModelError(
            f"{directory} holds only a part of its weights: {', '.join(missing)} of {len(names)} "
            "files missing",
            hint="download the model again; what is complete is kept",
        )
    return tuple(directory / name for name in names)


def weights_fingerprint(files: tuple[Path, ...]) -> str:
    """SHA-256 over the content of weight files; the same wherever the directory lies.

    One file: its own SHA-256, as the Hub shows it. Several: that of the lines `sha256sum` prints
    for them.
    """
    digests = {file.name: file_sha256(file) for file in sorted(files)}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of one file, remembered in the cache by path, size and time of its last change."""
    real = path.resolve()
    status = real.stat()
    key = {
        "path": str(real),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
    }
    note = (
        cache_root()
        / "fingerprints"
        / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    )
    known = _read_note(note)
    if {name: known.get(name) for name in key} == key and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Only speed is lost where the cache cannot be written.
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(note, {**key, "sha256": digest})
    return digest


def _read_note(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
