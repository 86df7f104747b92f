"""The model card: what a person needs to know who finds `final_model/` without the rest of the
run.
"""

from __future__ import annotations

import html
import json

from llamafarm.planning.plan import TrainingPlan
from llamafarm.redact import redact
from llamafarm.training.state import LoopState


def model_card(plan: TrainingPlan, state: LoopState) -> str:
    """README.md of the final model: Hugging Face's front matter, then data, settings and
    results.
    """
    source = plan.model.source
    # An absolute path is of no use to another machine: the Hub shows base_model as a link.
    base = source.requested if source.kind in ("local", "gguf") else source.name
    library = "transformers" if plan.adapter is None else "peft"
    tags = ["llamafarm"] + ([] if plan.adapter is None else ["lora"])
    front = [
        "---",
        f"base_model: {json.dumps(base, ensure_ascii=False)}",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]
    # A title is words: in a page that shows the card it must not become markup.
    title = html.escape(" ".join((plan.title or plan.strategy_id).split()), quote=False)
    return redact("\n".join([*front, "", f"# {title}", "", *_body(plan, state)]) + "\n")


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
