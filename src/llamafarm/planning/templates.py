"""Which chat template conversations are rendered with, and why."""

from __future__ import annotations

from llamafarm.data.prompt_format import (
    DEFAULT_PROMPT_FORMAT,
    chat_template_from_format,
    is_jinja,
)
from llamafarm.decision import Decision
from llamafarm.errors import StrategyError
from llamafarm.planning.explain import asked, notice, problem, warning
from llamafarm.strategy.model import Strategy

PATH = "prompt_template.format"
OVERRIDE = "prompt_template.override"


def choose_template(
    strategy: Strategy, own: str | None, *, tokenizer_adds_bos: bool
) -> tuple[str, list[Decision]]:
    """The Jinja template, with its decisions.

    own: the model's template; it is used unless the strategy overrides it. Raises StrategyError
    when `prompt_template.format` is given for a model that has one, or cannot be read.
    """
    written, override = strategy.prompt_template.format, strategy.prompt_template.override
    if written is None:
        return _without_format(strategy, own, tokenizer_adds_bos)
    if own is not None and not override:
        message = "this model has its own chat template, which it was taught to follow"
        hint = f"remove {PATH}, or write `override: true` beside it to use yours instead"
        raise StrategyError(
            "two chat templates are given", [problem(strategy, PATH, message, hint)]
        )
    kind = "a Jinja chat template" if is_jinja(written) else "a text with fields"
    decisions = [asked(strategy, PATH, kind)]
    if own is not None:
        text = "the model's own chat template is replaced: it was taught to follow that one"
        decisions.append(warning(PATH, kind, text))
    if is_jinja(written):
        return written, decisions
    return _converted(strategy, written, tokenizer_adds_bos), decisions


def _without_format(
    strategy: Strategy, own: str | None, adds_bos: bool
) -> tuple[str, list[Decision]]:
    decisions = []
    if strategy.prompt_template.override:
        text = f"{OVERRIDE} has no effect without {PATH}"
        decisions.append(warning(OVERRIDE, True, text))
    if own is not None:
        reason = "the template that the model was taught to follow"
        return own, [Decision(PATH, "the model's own", "detected", reason), *decisions]
    text = (
        "this base model has no chat template: questions and answers are marked with "
        f"`### Instruction:` and `### Response:`; write {PATH} for another form"
    )
    default = Decision(PATH, "instruction and response", "default", "the model has none of its own")
    template = chat_template_from_format(DEFAULT_PROMPT_FORMAT, write_bos=adds_bos)
    return template, [default, notice(PATH, "instruction and response", text), *decisions]


def _converted(strategy: Strategy, text: str, adds_bos: bool) -> str:
    try:
        return chat_template_from_format(text, write_bos=adds_bos)
    except StrategyError as error:
        faults = [problem(strategy, PATH, p.message, p.hint) for p in error.problems]
        raise StrategyError(error.summary, faults) from error
