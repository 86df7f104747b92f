"""`compare-backends`: one strategy planned for both fine-tuners, and both asked what they would
do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llamafarm.errors import Problem, StrategyError
from llamafarm.monitoring.events import Event, MessageEvent, WorkEvent
from llamafarm.readiness import plan_run

if TYPE_CHECKING:
    from llamafarm.strategy.model import Strategy
    from llamafarm.training.backends.llamafactory.compare import Compared


@dataclass(frozen=True, slots=True)
class BackendComparison:
    """Everything that was compared. version: of LLaMA-Factory."""

    strategy: str
    version: str
    rows: tuple[Compared, ...]

    @property
    def same(self) -> bool:
        """Whether both fine-tuners would do the same."""
        return all(row.same for row in self.rows)


def compare_backends(strategy: Strategy, emit: Callable[[Event], None]) -> BackendComparison:
    """Nothing is trained, and only temporary files are written. Raises UserError, RunError."""
    from llamafarm.training.backends.llamafactory.compare import (
        ask_llamafactory,
        ask_pytorch,
        compare_engines,
    )
    from llamafarm.training.backends.llamafactory.environment import find_environment

    other = strategy.model_copy(update={"backend": "llamafactory"})
    environment = find_environment()
    planned = plan_run(other, skip_bad_rows=False, allow_download=False, emit=emit)
    engine = planned.plan.llamafactory
    if engine is not None and (engine.stage == "dpo" or engine.method == "freeze"):
        what = "stage: dpo" if engine.stage == "dpo" else "method.type: freeze"
        raise StrategyError(
            f"{strategy.id} cannot be compared",
            [Problem(f"{what} is only known to `type: llamafactory`")],
        )
    emit(MessageEvent(level="info", text="asking LLaMA-Factory"))
    its = ask_llamafactory(
        environment,
        planned.plan,
        planned.data,
        planned.tokenizer,
        lambda what, done, total: emit(WorkEvent(what=what, done=done, total=total)),
    )
    # Afterwards: a device need not hold both models.
    emit(MessageEvent(level="info", text="asking the PyTorch fine-tuner"))
    own_plan = replace(planned.plan, backend="pytorch", llamafactory=None)
    own = ask_pytorch(own_plan, planned.data, planned.tokenizer)
    rows = compare_engines(own, its, planned.data)
    return BackendComparison(strategy.id, environment.version, rows)
