"""What is made of the result after training, and whether it can be: said before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.decision import Decision, Source
from llamafarm.errors import Problem
from llamafarm.planning.explain import asked, is_written, problem, warning, whereabouts
from llamafarm.planning.plan import ExportPlan
from llamafarm.strategy.model import Strategy

if TYPE_CHECKING:
    from llamafarm.export.route import ExportRoute

_OLLAMA, _GGUF = "export.to_ollama", "export.to_gguf"
_TYPE = "export.quantization"
# What only an export that was asked for can obey.
_SETTINGS = (_TYPE, "export.model_name", "export.system_prompt", "export.ollama_parameters")
_IN_A_MODELFILE = ("export.system_prompt", "export.ollama_parameters")


def choose_export(strategy: Strategy, output_dir: Path) -> tuple[ExportPlan | None, list[Decision]]:
    """The export that the strategy asks for, into the run directory; None without one."""
    export = strategy.export
    if not (export.to_ollama or export.to_gguf):
        return None, list(_without_effect(strategy, _SETTINGS, f"write {_OLLAMA} or {_GGUF}"))
    kind, path = ("ollama", _OLLAMA) if export.to_ollama else ("gguf", _GGUF)
    plan = ExportPlan(
        format="ollama" if export.to_ollama else "gguf",
        target=output_dir / kind,
        quantization=export.quantization,
        name=export.model_name or output_dir.name,
        name_is_given=export.model_name is not None,
        system_prompt=export.system_prompt,
        parameters=dict(export.ollama_parameters),
    )
    decisions = [asked(strategy, path, True, f"in {output_dir.name}/{kind} after training")]
    if is_written(strategy, _TYPE):
        decisions.append(asked(strategy, _TYPE, export.quantization))
    else:
        reason = "half the size of f16, next to no loss"
        decisions.append(Decision(_TYPE, export.quantization, "default", reason))
    if not export.to_ollama:
        decisions += _without_effect(
            strategy, _IN_A_MODELFILE, f"they stand in a Modelfile: {_OLLAMA}"
        )
    return plan, decisions


def route_decision(route: ExportRoute) -> Decision:
    """How the trained model would become a GGUF file, whether that was asked for or not."""
    value = {"own": "possible", "llama.cpp": "by llama.cpp's converter", "none": "not possible"}
    kind: Source = "warning" if route.kind == "none" else "detected"
    detail = f"{route.detail}; {route.hint}" if route.hint else route.detail
    return Decision("export.to_gguf", value[route.kind], kind, detail)


def export_problems(strategy: Strategy, route: ExportRoute) -> tuple[Problem, ...]:
    """An export that was asked for and cannot be made."""
    path = _OLLAMA if strategy.export.to_ollama else _GGUF
    wanted = strategy.export.to_ollama or strategy.export.to_gguf
    if not wanted or route.kind != "none":
        return ()
    return (problem(strategy, path, f"cannot be done: {route.detail}", route.hint),)


def _without_effect(strategy: Strategy, paths: tuple[str, ...], way: str) -> list[Decision]:
    lines = []
    for path in paths:
        if is_written(strategy, path):
            section, name = path.split(".")
            value = getattr(getattr(strategy, section), name)
            text = f"{whereabouts(strategy, path)} has no effect: {way}"
            lines.append(warning(path, value, text))
    return lines
