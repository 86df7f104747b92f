"""Datasets of the Hugging Face Hub as records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from llamafarm.data.records import Item, Record
from llamafarm.data.request import HubDataset
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError


def hub_name(dataset: HubDataset) -> str:
    """As messages name it: `owner/name (config) [split]`."""
    config = f" ({dataset.config_name})" if dataset.config_name else ""
    return f"{dataset.name}{config} [{dataset.split}]"


def load_hub_dataset(dataset: HubDataset) -> Any:
    """The split, downloaded or from the local cache.

    Raises DataError that says how else to bring the rows.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return datasets.load_dataset(dataset.name, dataset.config_name, split=dataset.split)
    except ConnectionError as fault:
        raise _unreachable(dataset) from fault
    except (DatasetsError, OSError, ValueError, RuntimeError) as fault:
        raise _refused(dataset, str(fault)) from fault


def _unreachable(dataset: HubDataset) -> DataError:
    return DataError(
        f"the dataset {dataset.name} cannot be reached, and is not in the local cache",
        hint=(
            "where there is a network, save it as a file: "
            f'`python -c \'import datasets; datasets.load_dataset("{dataset.name}", '
            f'split="{dataset.split}").to_json("data.jsonl")\'`; then bring data.jsonl here and '
            "give it as --dataset data.jsonl"
        ),
    )


def _refused(dataset: HubDataset, reason: str) -> DataError:
    summary = f"the dataset {hub_name(dataset)} cannot be loaded: {reason.splitlines()[0]}"
    lowered = reason.lower()
    if "gated" in lowered:
        page = f"https://huggingface.co/datasets/{dataset.name}"
        hint = f"ask for access at {page}, make a token in your settings, and export HF_TOKEN=…"
    elif "split" in lowered:
        hint = "set dataset.train_split (and dataset.eval_split) to a split that the dataset has"
    elif "config name" in lowered or "builderconfig" in lowered:
        hint = "set dataset.dataset_config_name to one of the names above"
    else:
        hint = "check dataset.dataset_name; for a private dataset export HF_TOKEN=…"
    return DataError(summary, hint=hint)


def hub_rows(rows: Any, name: str) -> Iterator[Item]:
    """Records of a loaded split. Line = record number."""
    for number, fields in enumerate(rows, start=1):
        yield Record(RowRef(name, number), fields)


def hub_sha256(rows: Any) -> str:
    """SHA-256 over the rows of a split, as JSON lines."""
    digest = hashlib.sha256()
    for fields in rows:
        digest.update(json.dumps(fields, sort_keys=True, default=str).encode("utf-8") + b"\n")
    return digest.hexdigest()
