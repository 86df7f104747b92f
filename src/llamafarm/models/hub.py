"""Models of the Hugging Face Hub: from the local cache first; never pickle, never code."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError, RunError
from llamafarm.models.directory import (
    ADAPTER_CONFIG,
    check_model_directory,
    is_complete,
    pickled_weights,
)

# In the root of the repository only: sub-directories hold copies in other formats.
_WANTED = ("model*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_TIMEOUT_SECONDS = 10.0


class HubUnreachableError(ModelError):
    """The model is not on this machine, and nothing can be asked of the Hub."""


class HubUnknownError(ModelError):
    """The Hub has no model of this name, or does not show it to this user."""


def hub_model_directory(
    repo_id: str, *, revision: str | None, cache_dir: Path | None, allow_download: bool
) -> Path:
    """A directory of the local cache that holds the whole model, downloaded where that is allowed.

    Raises HubUnreachableError, HubUnknownError, or ModelError: gated, without safetensors, not a
    base model.
    """
    cached = _cached(repo_id, revision, cache_dir)
    if cached is not None:
        return cached
    if not allow_download:
        raise HubUnreachableError(
            f"{repo_id} is not on this machine yet, and nothing is downloaded now",
            hint=f"hf download {repo_id}, or run setup without --verify-only",
        )
    from huggingface_hub import HfApi, snapshot_download

    with _teaching_errors(repo_id, revision):
        info = HfApi().model_info(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        _check_file_list(repo_id, names)
        wanted = [name for name in names if "/" not in name and _matches(name, _WANTED)]
        path = snapshot_download(
            repo_id, revision=revision, cache_dir=cache_dir, allow_patterns=wanted
        )
    check_model_directory(Path(path))
    return Path(path)


def _cached(repo_id: str, revision: str | None, cache_dir: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(
            repo_id, "config.json", cache_dir=cache_dir, revision=revision
        )
    except HFValidationError as fault:
        raise ModelError(
            f"{repo_id} is neither a file or directory here nor a possible Hub id",
            hint="a Hub id is ORGANISATION/MODEL; a path starts with ./ or /",
        ) from fault
    # Not a string: unknown, or known not to exist.
    directory = Path(found).parent if isinstance(found, str) else None
    return directory if directory is not None and is_complete(directory) else None


def _check_file_list(repo_id: str, names: list[str]) -> None:
    """Refuse what cannot be used before gigabytes of it are downloaded."""
    page = f"https://huggingface.co/{repo_id}"
    if ADAPTER_CONFIG in names:
        raise ModelError(
            f"{repo_id} is a LoRA adapter, not a base model",
            hint=f"its page names the base to train from: {page}",
        )
    if any(_matches(name, ("model*.safetensors",)) for name in names):
        return
    pickles = [name for name in names if "/" not in name and _matches(name, _PICKLES)]
    ggufs = [name for name in names if name.endswith(".gguf")]
    if pickles:
        raise ModelError(
            f"{repo_id} has no safetensors weights", [pickled_weights(repo_id, pickles)]
        )
    if ggufs:
        raise ModelError(
            f"{repo_id} holds GGUF files only",
            hint=f"hf download {repo_id} {ggufs[0]} --local-dir ., then base_model: ./{ggufs[0]}",
        )
    raise ModelError(f"{repo_id} holds no model weights", hint=f"see {page}/tree/main")


@contextmanager
def _teaching_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors as hub

    # huggingface_hub changed its HTTP library twice; under this name each version holds that
    # library's base error.
    http_error: Any = hub.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except ModelError:
        raise
    except hub.GatedRepoError as fault:
        raise _gated(repo_id) from fault
    except hub.RevisionNotFoundError as fault:
        raise ModelError(
            f"{repo_id} has no revision {revision}",
            hint=f"its branches, tags and commits: https://huggingface.co/{repo_id}/commits/main",
        ) from fault
    except hub.RepositoryNotFoundError as fault:
        raise HubUnknownError(
            f"there is no model {repo_id} on the Hub, or it is private",
            hint="search it at https://huggingface.co/models; for a private one: hf auth login",
        ) from fault
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError, http_error, OSError) as fault:
        if getattr(fault, "errno", None) == errno.ENOSPC:
            raise RunError(
                f"the disk is full: {repo_id} could not be downloaded",
                hint="free some space, or choose another place: export HF_HOME=/path/with/room",
            ) from fault
        raise _unreachable(repo_id, fault) from fault


def _unreachable(repo_id: str, fault: Exception) -> HubUnreachableError:
    """Says why, and how to bring the model here by another way."""
    directory = "./" + repo_id.rsplit("/", 1)[-1]
    from huggingface_hub.errors import OfflineModeIsEnabled

    offline = isinstance(fault, OfflineModeIsEnabled)
    reason = "HF_HUB_OFFLINE is set" if offline else _one_line(fault)
    return HubUnreachableError(
        f"{repo_id} is not on this machine, and the Hub cannot be reached ({reason})",
        hint=f"where there is access: hf download {repo_id} --local-dir {directory}; "
        f"copy that directory here, then base_model: {directory}",
    )


def _gated(repo_id: str) -> ModelError:
    from huggingface_hub import get_token

    known = (
        "HF_TOKEN has to be of the account that accepted them" if get_token() else "hf auth login"
    )
    return ModelError(
        f"{repo_id} is gated: its owner asks every user to accept terms first",
        hint=f"accept them at https://huggingface.co/{repo_id}, then {known} (or HF_TOKEN=hf_…)",
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _one_line(fault: Exception) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
