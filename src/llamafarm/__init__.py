"""LlamaFarm training: describe a fine-tuning run in one YAML strategy, and get an evaluated model.

The verbs of the command line are functions here: `from llamafarm import train, TrainRequest`.
Nothing heavy is imported until one of them is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamafarm.api import (
        ConvertRequest,
        InspectRequest,
        PrepareRequest,
        RecommendRequest,
        TrainRequest,
        chat,
        compare_runs,
        convert,
        dashboard,
        datasplit,
        doctor,
        evaluate,
        evaluate_tasks,
        generate,
        info,
        inspect,
        list_strategies,
        prepare_data,
        recommend,
        report,
        runs,
        schema,
        setup,
        train,
    )

__all__ = [
    "ConvertRequest",
    "InspectRequest",
    "PrepareRequest",
    "RecommendRequest",
    "TrainRequest",
    "chat",
    "compare_runs",
    "convert",
    "dashboard",
    "datasplit",
    "doctor",
    "evaluate",
    "evaluate_tasks",
    "generate",
    "info",
    "inspect",
    "list_strategies",
    "prepare_data",
    "recommend",
    "report",
    "runs",
    "schema",
    "setup",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a verb when it is first asked for."""
    if name in __all__:
        return getattr(import_module("llamafarm.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
