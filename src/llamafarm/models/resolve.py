"""From what the user wrote as `base_model` to a local directory and its weights' fingerprint."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from llamafarm.errors import ModelError
from llamafarm.models.directory import check_model_directory
from llamafarm.models.fingerprint import weight_files, weights_fingerprint
from llamafarm.models.gguf_model import gguf_model_directory
from llamafarm.models.hub import HubUnknownError, HubUnreachableError, hub_model_directory
from llamafarm.models.packaged import (
    PACKAGED_MODEL_HUB_ID,
    PACKAGED_MODEL_NAME,
    find_packaged_gguf,
    packaged_model_directory,
)
from llamafarm.models.source import ModelSource
from llamafarm.strategy.model import BaseModelSpec

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?$")


def resolve_model(
    spec: BaseModelSpec,
    *,
    working_directory: Path,
    strategy_file: Path | None = None,
    allow_download: bool = True,
) -> ModelSource:
    """Bring the base model to this machine and name its weights.

    strategy_file: the file that `spec.id` was written in; None for a name given as a flag. Relative
    paths start beside that file first, then in the working directory. allow_download False: what is
    not here is an error. Raises ModelError, with how to get the model.
    """
    name = spec.id or PACKAGED_MODEL_NAME
    if name == PACKAGED_MODEL_NAME:
        return _packaged(name)
    path = _existing_path(name, working_directory, strategy_file)
    if path is not None:
        return _local(name, path)
    if _looks_like_a_path(name):
        raise _no_such_path(name, working_directory, strategy_file)
    cache_dir = Path(spec.cache_dir).expanduser() if spec.cache_dir else None
    try:
        directory = hub_model_directory(
            name, revision=spec.revision, cache_dir=cache_dir, allow_download=allow_download
        )
    except (HubUnreachableError, HubUnknownError) as fault:
        if isinstance(fault, HubUnreachableError) and _may_stand_in(spec):
            return _packaged(name, notice=_stand_in_notice(fault))
        raise _with_near_miss(fault, name, working_directory) from fault
    return ModelSource(name, name, "hub", directory, _fingerprint(directory))


def _packaged(requested: str, notice: str = "") -> ModelSource:
    directory = packaged_model_directory()
    return ModelSource(
        requested, PACKAGED_MODEL_NAME, "packaged", directory, _fingerprint(directory), notice
    )


def _may_stand_in(spec: BaseModelSpec) -> bool:
    """The packaged copy is of one model, as it is on its main branch."""
    return (
        spec.id == PACKAGED_MODEL_HUB_ID
        and spec.revision is None
        and find_packaged_gguf() is not None
    )


def _stand_in_notice(fault: HubUnreachableError) -> str:
    return (
        f"{fault.summary}; the packaged copy {PACKAGED_MODEL_NAME} stands in for it: the same "
        "model from 4-bit weights, so an adapter trained on it does not fit the Hub's"
    )


def _local(requested: str, path: Path) -> ModelSource:
    if path.is_dir():
        check_model_directory(path)
        return ModelSource(requested, str(path), "local", path, _fingerprint(path))
    if path.suffix.lower() != ".gguf":
        raise ModelError(
            f"{path} is a file, but not a .gguf",
            hint="name the directory that holds config.json and the weights",
        )
    directory = gguf_model_directory(path)
    return ModelSource(requested, str(path), "gguf", directory, _fingerprint(directory))


def _fingerprint(directory: Path) -> str:
    return weights_fingerprint(weight_files(directory))


def _starting_points(working_directory: Path, strategy_file: Path | None) -> tuple[Path, ...]:
    beside = (strategy_file.parent,) if strategy_file is not None else ()
    return (*beside, working_directory)


def _existing_path(name: str, working_directory: Path, strategy_file: Path | None) -> Path | None:
    """The first place where the name exists. An absolute one ignores the starting points."""
    for start in _starting_points(working_directory, strategy_file):
        path = start / Path(name).expanduser()
        if path.exists():
            return path.resolve()
    return None


def _looks_like_a_path(name: str) -> bool:
    return (
        name.startswith(("/", "./", "../", "~"))
        or name.endswith((".gguf", "/"))
        or not _HUB_ID.match(name)
    )


def _no_such_path(name: str, working_directory: Path, strategy_file: Path | None) -> ModelError:
    starts = _starting_points(working_directory, strategy_file)
    looked = list(dict.fromkeys(str(start / Path(name).expanduser()) for start in starts))
    near = next(filter(None, (_near_path(Path(place)) for place in looked)), "")
    return ModelError(
        f"the base model {name} does not exist (looked for {' and '.join(looked)})",
        hint=f"did you mean `{near}`?" if near else "a path, or a Hub id ORGANISATION/MODEL",
    )


def _near_path(missing: Path) -> str:
    """A name in the same directory that is spelled almost like this one."""
    if not missing.parent.is_dir():
        return ""
    names = [
        entry.name
        for entry in missing.parent.iterdir()
        if entry.is_dir() or entry.suffix == ".gguf"
    ]
    close = difflib.get_close_matches(missing.name, names, n=1)
    return str(missing.parent / close[0]) if close else ""


def _with_near_miss(fault: ModelError, name: str, working_directory: Path) -> ModelError:
    """The same error, with a local or packaged model's name that is spelled almost like this."""
    known = {PACKAGED_MODEL_NAME, PACKAGED_MODEL_HUB_ID}
    spelled = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.7)
    near = spelled[close[0]] if close else _near_path(working_directory / name)
    hint = f"did you mean `{near}`? If not, {fault.hint}" if near and near != name else fault.hint
    return ModelError(fault.summary, fault.problems, hint=hint)
