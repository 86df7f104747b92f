"""The demo: everything a first run needs, in the order a person would do it by hand.

Split the bundled medical questions, ask the base model, train it, ask again. It calls the same
verbs as the
commands; the folder it writes is its own, so it can be run as often as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm import api
from llamafarm.bundled import bundled_demos
from llamafarm.errors import UserError
from llamafarm.models.packaged import PACKAGED_MODEL_NAME
from llamafarm.monitoring.events import Sink

if TYPE_CHECKING:
    from llamafarm.data.datasplit import SplitResult
    from llamafarm.strategy.overrides import Override

DATASET = Path("datasets") / "medical" / "medical_qa.jsonl"
QUESTIONS = (
    "Why do doctors ask me to finish a course of antibiotics?",
    "What does it mean when blood pressure is written as two numbers?",
    "How can I help someone who has fainted?",
)
ANSWER_TOKENS = 120


@dataclass(frozen=True)
class DemoRequest:
    """What can be varied: a larger model, another strategy of the bundled file, any key of it."""

    strategy: str = "demo3_quick"
    base_model: str | None = None
    output: Path | None = None
    overrides: tuple[Override, ...] = ()
    questions: tuple[str, ...] = QUESTIONS


@dataclass(frozen=True)
class Exchange:
    """One question and what the model says before and after training."""

    question: str
    before: str
    after: str


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    split: SplitResult
    trained: api.TrainResult
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class DemoSteps:
    """Told as the demo goes on; each is called once, in this order."""

    on_split: Callable[[SplitResult], None]
    on_before: Callable[[Sequence[tuple[str, str]]], None]
    on_train: Callable[[], None]
    on_trained: Callable[[api.TrainResult], None]


def run_demo(request: DemoRequest, steps: DemoSteps, sinks: Sequence[Sink] = ()) -> DemoResult:
    """Raises LlamafarmError like the verbs it calls."""
    from llamafarm.strategy.overrides import Override

    demos = bundled_demos()
    if demos is None:
        raise UserError("the demo's data is not installed", hint="run the demo from a checkout")
    output = request.output or Path("fine_tuned_models") / request.strategy
    split = api.datasplit(demos / DATASET, output_dir=_data_directory(output))
    steps.on_split(split)

    base = request.base_model or PACKAGED_MODEL_NAME
    before = api.answers(base, request.questions, max_new_tokens=ANSWER_TOKENS)
    steps.on_before(list(zip(request.questions, before, strict=True)))

    fixed = [
        Override("dataset.train_file", str(split.train_file), "the demo's split"),
        Override("dataset.eval_file", str(split.eval_file), "the demo's split"),
        Override("training_args.output_dir", str(output), "the demo's folder"),
    ]
    if request.base_model:
        fixed.append(Override("base_model.id", request.base_model, "--base-model"))
    steps.on_train()
    trained = api.train(
        api.TrainRequest(
            strategy=request.strategy,
            strategy_file=demos / "strategies.yaml",
            overrides=(*fixed, *request.overrides),
            overwrite=True,
        ),
        sinks,
    )
    steps.on_trained(trained)
    after = api.answers(str(trained.run_dir), request.questions, max_new_tokens=ANSWER_TOKENS)
    exchanges = tuple(map(Exchange, request.questions, before, after))
    return DemoResult(split, trained, exchanges)


def _data_directory(output: Path) -> Path:
    """Beside the run, not in it: a run's directory holds what the run made."""
    directory = output.parent / f"{output.name}_data"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
