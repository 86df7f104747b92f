"""The rows to evaluate on: which file, and how a model's training would have made them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from llamafarm.data.request import DataRequest
from llamafarm.errors import DataError
from llamafarm.models.record import ModelRecord

_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """What is asked of every model: loss on all rows of a file, answers to the first
    `generated_rows` of them, of `max_new_tokens` at most.
    """

    dataset: Path
    generated_rows: int
    max_new_tokens: int = 256

    def rows(
        self, chat_template: str, record: ModelRecord, context: int | None, at_most: int | None
    ) -> DataRequest:
        """Same template, same system prompt, same length limit as in training.

        context: where the model ends; at_most: the limit of the model that this one is compared
        with.
        """
        limits = (record.max_length or _LONGEST, context, at_most)
        return DataRequest(
            train_location=self.dataset,
            eval_location=None,
            test_location=None,
            eval_wanted=False,
            eval_fraction=0.0,
            chat_template=chat_template,
            max_length=min(limit for limit in limits if limit),
            seed=0,
            system_prompt=record.system_prompt,
            shuffle=False,
        )


def find_dataset(dataset: Path, working_directory: Path, bundled_data: Path | None) -> Path:
    """The working directory first, then the bundled demo data by bare name."""
    from llamafarm.planning.locations import find_data_file

    found = find_data_file(str(dataset), (working_directory,), bundled_data)
    if (working_directory / dataset).is_dir():
        raise DataError(f"{dataset} is a directory", hint="name the file in it to measure on")
    if found is None:
        near = difflib.get_close_matches(
            dataset.name, [p.name for p in working_directory.iterdir()], n=1
        )
        hint = (
            f"did you mean {near[0]}?"
            if near
            else "give the path of a file with rows to evaluate on"
        )
        raise DataError(f"{dataset} does not exist", hint=hint)
    return found
