"""The reference of all keys as Markdown, made of the model and the key table.

`python -m llamafarm.strategy.keys_reference > docs/STRATEGY_KEYS.md` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence, Set

from llamafarm.strategy.fields import FieldSpec, find_spec, value_schema
from llamafarm.strategy.keys import CONFIG, Key, keys
from llamafarm.strategy.values import expected

_LEFT_OUT = "Left out: "
_INTRODUCTION = """\
# Strategy keys

Every key that a strategy file may hold, its values, what holds when it is left out, and what
becomes of it. A key that does not stand here is an error that names the nearest one. This page is
generated from the program (`python -m llamafarm.strategy.keys_reference`); a test compares the two.

Paths are those of the file, below the strategy's name; `config` stands for
`components.fine_tuner.config`. `--set` takes the same paths, with or without `config.`, and the
end of one where it is unambiguous (`r`). A value may hold `${VAR}` or `${VAR:-default}`; `$${` is
a literal `${`. A key whose value is `null` counts as left out. `extends: ID` inherits every key of
another strategy of the file.

Of two keys for the same value, the first one named in a row wins; a warning names both lines where
they differ. A flag wins over both, and the strategy over one that it extends.
"""
_TRAINING_PLACES = """\
All of these keys may also stand under `config.training`, or in `config` itself; `training_args`
wins.
"""
_PRECISION = """\
`fp16` and `bf16` (where `mixed_precision` may stand) set `training_args.mixed_precision`, which
wins over them. Both true is an error; one of them false, with nothing else asked for, is full
precision.
"""
_NATIVE = """\
A key of LLaMA-Factory 0.9.5 that has no counterpart here is passed on, said to have no effect, or
refused with the reason, before the first step: refused are those that would make the rows, their
mask, the vocabulary, the base weights, the evaluation or the saving something else, and those for
several devices, pictures, sound, serving and uploads. A key that it does not have is an error that
names the nearest one.
"""
_COPIES = (CONFIG + "training.", CONFIG)
_SECTIONS: tuple[tuple[str, str], ...] = (
    ("The strategy itself", ""),
    ("`base_model`", "base_model."),
    ("`method`", "method."),
    ("`hardware`", "hardware."),
    ("`training_args`", "training_args."),
    ("`dataset`", "dataset."),
    ("`data_preprocessing`", "data_preprocessing."),
    ("`prompt_template`", "prompt_template."),
    ("`export`", "export."),
    ("`monitoring`", "monitoring."),
)


def render_keys_reference() -> str:
    """The whole page."""
    prefix = f"{CONFIG}training_args."
    names = {row.name for row in keys() if row.path == prefix + row.name}
    rows = [row for row in keys() if not _is_copy(row, names)]
    parts = [_INTRODUCTION]
    for title, prefix in _SECTIONS:
        parts.append(f"## {title}\n")
        if prefix == "training_args.":
            parts.append(_TRAINING_PLACES)
        parts += [_table(_HEAD, _section_rows(rows, prefix)), ""]
    parts += ["### Precision in one word\n", _PRECISION]
    parts += ["## Only with `type: llamafactory`\n", _NATIVE]
    parts += [_table(("key", "is"), _backend_rows(rows)), ""]
    parts += ["## Accepted without effect\n", "Each is answered by one line.\n"]
    parts += [_table(("key", "why"), _notice_rows(rows)), "", "## Refused\n"]
    parts += [_table(("key", "why"), _refused_rows(rows))]
    return "\n".join(parts) + "\n"


def _is_copy(row: Key, names: Set[str]) -> bool:
    """Whether it is one of these training arguments in its second or third place."""
    elsewhere = any(row.path == place + row.name for place in _COPIES)
    return elsewhere and row.backend == "" and row.name in names


_HEAD = ("key", "values", "left out", "what it does", "also written as")


def _section_rows(table: Iterable[Key], prefix: str) -> Iterator[Sequence[str]]:
    rows = [row for row in table if row.status == "obeyed" and row.backend != "llamafactory"]
    for target in dict.fromkeys(row.target for row in rows):
        spec = find_spec(target)
        named = spec is not None and spec.is_mapping and not target.endswith("*")
        if spec is None or named or not _in_section(target, prefix):
            continue
        first, *others = _written(rows, target)
        also = ", ".join(f"`{path}`" for path in others)
        yield (f"`{first}`", _values(target, rows), *_left_out(spec), also)


def _in_section(target: str, prefix: str) -> bool:
    if prefix:
        return target.startswith(prefix)
    return not any(target.startswith(other) for _, other in _SECTIONS if other)


def _written(rows: Iterable[Key], target: str) -> list[str]:
    """The paths of a value, the one that wins first; names of one's own last."""
    paths = [_shown(row.path) for row in rows if row.target == target]
    if target.endswith("*"):
        special = (r for r in rows if r.target != target and r.target.startswith(target[:-1]))
        paths += [_shown(row.path) for row in special]
    return list(dict.fromkeys(paths))


def _shown(path: str) -> str:
    shown = path.replace(CONFIG, "config.") if path.startswith(CONFIG) else path
    return shown.replace("*", "NAME")


def _values(target: str, rows: Iterable[Key]) -> str:
    own = next((row for row in rows if row.target == target), None)
    if own is not None and own.conversion is not None:
        return own.conversion.takes
    spec = find_spec(target)
    return expected(value_schema(target), spec.description if spec else "")


def _left_out(spec: FieldSpec) -> tuple[str, str]:
    """What holds when it is left out, and what it does."""
    text, _, unset = spec.description.partition(_LEFT_OUT)
    if unset:
        return unset.rstrip("."), text.strip()
    default = spec.default
    if isinstance(default, bool):
        return str(default).lower(), text
    if default in ("", (), {}, None):
        return "nothing", text
    return f"{default:g}" if isinstance(default, float) else str(default), text


def _backend_rows(rows: Iterable[Key]) -> Iterator[Sequence[str]]:
    seen: dict[str, str] = {}
    for row in rows:
        path = _shown(row.path)
        if row.backend == "llamafactory" and not path.startswith("config.native."):
            meaning = row.text if row.status == "refused" else f"`{row.target}`"
            seen.setdefault(path, meaning)
    yield from ((f"`{path}`", meaning) for path, meaning in seen.items())
    yield ("`config.native.NAME`", "these keys too, and every other key of LLaMA-Factory 0.9.5")


def _notice_rows(rows: Iterable[Key]) -> Iterator[Sequence[str]]:
    seen: dict[str, str] = {}
    for row in rows:
        if row.status == "notice":
            beside = f" (beside {', '.join(sorted(row.beside))})" if row.beside else ""
            seen.setdefault(_shown(row.path), row.text + beside)
    return ((f"`{path}`", text) for path, text in seen.items())


def _refused_rows(rows: Iterable[Key]) -> Iterator[Sequence[str]]:
    for row in rows:
        if row.status == "refused" and not row.backend:
            yield (f"`{_shown(row.path)}: true`", row.text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


if __name__ == "__main__":
    sys.stdout.write(render_keys_reference())
