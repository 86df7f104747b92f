"""The model card: what a person needs to know who finds `final_model/` without the rest of the
run.

A short one is written with the model, so that it is never without; the report in Markdown takes its
place when the run has ended.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

from llamafarm.files import write_bytes_atomic
from llamafarm.models.source import ModelSource
from llamafarm.monitoring.report.content import content_of
from llamafarm.monitoring.report.markdown import render_markdown
from llamafarm.monitoring.run_record import RunRecord
from llamafarm.planning.plan import TrainingPlan
from llamafarm.redact import redact
from llamafarm.training.state import LoopState

_CARD = "README.md"


def model_card(plan: TrainingPlan, state: LoopState) -> str:
    """README.md of the final model: Hugging Face's front matter, then data, settings and
    results.
    """
    front = _front_matter(plan.model.source, is_adapter=plan.adapter is not None)
    # A title is words: in a page that shows the card it must not become markup.
    title = html.escape(" ".join((plan.title or plan.strategy_id).split()), quote=False)
    return redact("\n".join([*front, "", f"# {title}", "", *_body(plan, state)]) + "\n")


def card_of_run(record: RunRecord) -> str:
    """The same of a run that has ended, with everything that its report says."""
    settings = record.settings
    front = []
    if record.model and settings:
        front = [*_front_matter(record.model, is_adapter=settings.rank > 0), "", ""]
    return redact("\n".join(front) + render_markdown(content_of(record, "PATH")))


def write_card(record: RunRecord) -> Path | None:
    """Put it in place of the short one; None where there is no final model."""
    directory = record.root / "final_model"
    if not directory.is_dir():
        return None
    # Whoever looks into final_model never finds anything there but a whole model.
    write_bytes_atomic(directory / _CARD, card_of_run(record).encode(), stage_in=record.root)
    return directory / _CARD


def _front_matter(source: ModelSource, *, is_adapter: bool) -> list[str]:
    # An absolute path is of no use to another machine: the Hub shows base_model as a link.
    base = source.requested if source.kind in ("local", "gguf") else source.name
    tags = ["llamafarm", "lora"] if is_adapter else ["llamafarm"]
    return [
        "---",
        f"base_model: {json.dumps(base, ensure_ascii=False)}",
        f"base_model_relation: {'adapter' if is_adapter else 'finetune'}",
        f"library_name: {'peft' if is_adapter else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]


def _body(plan: TrainingPlan, state: LoopState) -> list[str]:
    what = "LoRA adapter" if plan.adapter else "fully fine-tuned model"
    step = state.best_step if plan.evaluation.load_best and state.best_step else state.step
    rows = [
        ("base model", f"{plan.model.source.requested} ({plan.model.shape.architecture})"),
        ("base weights, SHA-256", plan.model.source.fingerprint),
        ("data, SHA-256", plan.data_fingerprint),
        ("step", f"{step} of {state.step}"),
        (
            "eval loss",
            _number(state.best_eval_loss if step == state.best_step else state.eval_loss),
        ),
        ("eval loss of the base model", _number(state.base_eval_loss)),
        ("learning rate", f"{plan.optimizer.learning_rate:g}, {plan.optimizer.scheduler}"),
        ("effective batch", f"{plan.batch.effective_batch_size} conversations"),
        ("epochs", f"{state.epoch:.2f}"),
        ("longest conversation", f"{plan.max_length} tokens"),
        ("precision", f"{plan.model.dtype}, mixed precision {plan.device.mixed_precision}"),
        ("seed", str(plan.seed)),
    ]
    if plan.adapter:
        modules = ", ".join(plan.adapter.target_modules)
        rows.insert(
            2, ("adapter", f"r {plan.adapter.r}, alpha {plan.adapter.alpha:g}, on {modules}")
        )
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return [f"A {what}, trained with the strategy `{plan.strategy_id}`.", "", *table]


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
