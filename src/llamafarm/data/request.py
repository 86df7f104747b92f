"""What is to be read, and how it is to become tokens: decided by planning, carried out by data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llamafarm.strategy.model import DataFormat


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A split of a dataset of the Hub."""

    name: str
    config_name: str | None
    split: str


DataLocation = Path | HubDataset

Answers = Literal["chosen", "paired", "rejected"]
"""Of rows with two answers. paired: the chosen ones, of rows that all have two."""


@dataclass(frozen=True, slots=True)
class WeightedFile:
    """One file of a mixture. weight: how often each of its rows counts in an epoch; 0.5 draws half
    of them.
    """

    path: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Mixture:
    """Several files that are trained on together."""

    files: tuple[WeightedFile, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Without the weights."""
        return tuple(file.path for file in self.files)


TrainLocation = DataLocation | Mixture


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Everything that decides which tokens are trained; its hash with the files' bytes names the
    cache entry.

    eval_location None: eval_fraction of the training rows is split off (0 < eval_fraction < 1), or
    exactly eval_rows of them; eval_auto: the share follows from the number of rows; stable_split:
    by content. max_length: hard limit in tokens; chat_template: Jinja text, used for every
    conversation; mask_history: only the last answer of a conversation is trained. eval_wanted
    False: no evaluation set at all (eval_strategy "no").
    """

    train_location: TrainLocation
    eval_location: DataLocation | None
    test_location: DataLocation | None
    eval_wanted: bool
    eval_fraction: float
    chat_template: str
    max_length: int
    seed: int
    data_format: DataFormat = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    system_prompt: str | None = None
    max_samples: int | None = None
    shuffle: bool = True
    skip_bad_rows: bool = False
    remove_duplicates: bool = False
    filter_empty: bool = False
    remove_patterns: tuple[str, ...] = ()
    max_input_length: int | None = None
    max_output_length: int | None = None
    group_by: str | None = None
    stratify_by: str | None = None
    num_workers: int = 1
    roles: Mapping[str, str] = field(default_factory=dict)
    mask_history: bool = False
    stable_split: bool = False
    eval_rows: int | None = None
    eval_auto: bool = False
    answers: Answers = "chosen"
