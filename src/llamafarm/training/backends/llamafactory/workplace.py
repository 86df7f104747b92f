"""`llamafactory/` in a run directory: everything that its trainer is started on. All of it can be
made again; what a resume needs is in the checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.data.tokenized import PreparedData
from llamafarm.files import make_directory, write_json_atomic, write_text_atomic
from llamafarm.models.config import read_json, refuse_links_outside, without_forbidden_keys
from llamafarm.planning.plan import ModelPlan, TrainingPlan
from llamafarm.training.backends.llamafactory.rows import Side, unused_token, write_rows
from llamafarm.training.backends.llamafactory.translate import (
    EVAL,
    MODEL,
    OUTPUT,
    ROWS,
    TRAIN,
    arguments_of,
    dataset_info,
)

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+")
ARGUMENTS, JOB, LOG = "train.yaml", "job.json", "llamafactory.log"
RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The directory. Paths in its files start there."""

    root: Path

    @property
    def log(self) -> Path:
        """Everything that the process prints, of all starts of this run."""
        return self.root / LOG

    def clear(self) -> None:
        """For a new start; the log stays, and goes on."""
        make_directory(self.root)
        self.tidy()
        for side in (TRAIN, EVAL):
            (self.root / f"{side}.jsonl").unlink(missing_ok=True)

    def tidy(self) -> None:
        """What is large goes: all of it can be made again."""
        for name in (ROWS, OUTPUT, MODEL, RESUME):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for side in (TRAIN, EVAL):
            (self.root / f"{side}.arrow").unlink(missing_ok=True)
        (self.root / JOB).unlink(missing_ok=True)

    def drop_saved(self, keep: Path | None = None) -> None:
        """The trainer's own checkpoints, once ours are whole. keep: one that is not, yet; by its
        name, since the trainer may know this directory by another path (a link leads to it).
        """
        for path in (self.root / OUTPUT).glob("checkpoint-*"):
            if keep is None or path.name != keep.name:
                shutil.rmtree(path, ignore_errors=True)

    def write_model(self, model: ModelPlan, tokenizer: Any) -> None:
        """The base model as this project reads it: a configuration that names no code and the type
        that is planned, the tokenizer, and links to the weights, which are safetensors only.
        """
        source, target = model.source.directory, self.root / MODEL
        refuse_links_outside(source)
        make_directory(target)
        tokenizer.save_pretrained(target)
        config = without_forbidden_keys(read_json(source / "config.json"))
        write_json_atomic(target / "config.json", _with_dtype(config, model.dtype))
        for file in sorted(source.iterdir()):
            if file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json"):
                (target / file.name).symlink_to(file.resolve())

    def pad_with(self, tokenizer: Any, token: int | None) -> None:
        """Continued pre-training leaves the padding token out of the loss, wherever it stands: one
        that ends texts would not be learnt. token: one that no row has; None: there is none.
        """
        if token is None:
            return
        file = self.root / MODEL / "tokenizer_config.json"
        config = read_json(file) | {"pad_token": tokenizer.convert_ids_to_tokens(token)}
        write_json_atomic(file, config)

    def write_arguments(self, arguments: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """train.yaml and dataset_info.json."""
        write_text_atomic(self.root / ARGUMENTS, arguments_text(arguments))
        write_json_atomic(self.root / "dataset_info.json", info)

    def write_job(self, **values: str | int | bool) -> None:
        """What `inside.py` is to do with it."""
        write_json_atomic(self.root / JOB, {"arguments": ARGUMENTS, **values})

    def put_back(self, checkpoint: Path, names: Mapping[str, str]) -> str:
        """A verified checkpoint as the trainer had written it; its path. names: in the checkpoint,
        and its own.
        """
        place = f"{RESUME}/{checkpoint.name}"
        target = self.root / place
        make_directory(target)
        for name, own_name in names.items():
            with contextlib.suppress(FileExistsError):
                _link(checkpoint / name, target / own_name)
        return place


def fill_workplace(
    place: Workplace,
    plan: TrainingPlan,
    tokenizer: Any,
    sides: Mapping[str, Side],
    *,
    resume: str = "",
    on_rows: Callable[[int], None] = lambda done: None,
) -> None:
    """Model, arguments and rows of a plan. sides: by TRAIN and EVAL; resume: what `put_back` gave;
    on_rows: takes the rows written, and what it raises ends this. Raises OSError.
    """
    place.write_model(plan.model, tokenizer)
    whole = plan.llamafactory is not None and plan.llamafactory.stage == "pt"
    if whole:
        place.pad_with(tokenizer, unused_token(sides, plan.model.shape.vocab_size))
    place.write_arguments(
        arguments_of(plan, has_eval=EVAL in sides, resume_from=resume),
        dataset_info(plan, has_eval=EVAL in sides),
    )
    write_rows(
        place.root,
        sides,
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        on_rows,
        whole=whole,
    )


def sides_of(data: PreparedData, *, has_eval: bool) -> dict[str, Side]:
    """The rows of a run by TRAIN and EVAL."""
    sides: dict[str, Side] = {TRAIN: data.train}
    if has_eval and data.eval is not None:
        sides[EVAL] = data.eval
    return sides


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """YAML that every parser reads alike: strings are quoted where they could be something else."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Of YAML 1.1, which takes 1e-5 for a text."""

    # Numbers of YAML 1.2, so that a text like one is quoted.
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    text: str = yaml.dump(
        _plain(dict(arguments)), Dumper=Dumper, sort_keys=False, allow_unicode=True
    )
    return text


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has, and numbers as YAML 1.1 knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """At any depth: composite models name it for each part."""
    changed = {
        key: _with_dtype(value, dtype) if isinstance(value, dict) else value
        for key, value in config.items()
        if key != "torch_dtype"
    }
    return changed | ({"dtype": dtype} if "model_type" in config or "dtype" in config else {})


def _link(source: Path, target: Path) -> None:
    """Without a second copy where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
