"""Strategy files that nobody would write: each is taken or refused in words, and soon.

Two makers, each deterministic by the number of a case: one writes documents from the table of keys,
right and wrong; one damages bytes of files that are right.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from llamafarm.errors import StrategyError
from llamafarm.strategy.describe import describe_values
from llamafarm.strategy.dump import to_yaml
from llamafarm.strategy.fields import Schema, value_schema
from llamafarm.strategy.keys import Key, keys
from llamafarm.strategy.loader import load_strategy, load_strategy_file
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.overrides import parse_set
from tests.faults.campaign.row import Case, Form, Row

COUNTS: Mapping[Form, int] = {"short": 1_000, "long": 100_000}
# Of processor time: a busy machine makes nothing hang.
LONGEST_SECONDS = 2.0
_ENVIRON = {"X": "x", "NUMBER": "3", "EMPTY": ""}
_APART = {"origins", "notices", "file"}
_ROOT = Path(__file__).parents[3]
_SOURCES = (
    *sorted((_ROOT / "tests/strategy/examples").glob("*.yaml")),
    _ROOT / "demos/strategies.yaml",
)
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**70), 10**400, 0.0, -0.5, 1e-300, 1e300,
    float("inf"), float("-inf"), float("nan"), "", " ", "no", "off", "yes", "auto", "all", "none",
    "null", "~", "2e-4", "1e5", "5-10", "10 - 20", "0x1f", "0o17", "017", "1_000", "1:30:00",
    "2024-01-01", "${X}", "${NUMBER}", "${EMPTY}", "${UNSET}", "${UNSET:-7}", "${", "$${X}", "${X",
    "bf16", "lora", "steps", "../../x", "/etc/passwd", "a" * 3000, "é\u2028\u0085", "\U0001f600",
    "a\nb", "- a", "a: b", "#", "&a", "*a", "!x", "%", "@", "`", "'", '"', "<<", [], {}, [[]],
    [None], [1, "a", None], {"a": None}, {"": 1}, {"a": {"b": {"c": [1]}}}, [{}],
    ["q_proj", "v_proj"],
)  # fmt: skip
_BYTES = (
    b"\0", b"\t", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b":", b": ", b"- ", b"[",
    b"]", b"{", b"}", b"&a ", b"*a ", b"<<: ", b"!!python/name:os.system ", b"|", b">", b"'", b'"',
    b"#", b"%", b"---\n", b"...\n", b"${", b"${X}", b"\\", b"? ", b"9" * 50, b"null", b"~",
    b"\xc2\x85",
)  # fmt: skip


class _Hang(BaseException):
    """Not an Exception: nothing that is tested may catch it."""


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """Every other case is written from the table, every other one damaged."""
    file = workdir / "fuzz.yaml"
    for number in range(COUNTS[form]):
        make = _written if number % 2 == 0 else _damaged
        draw = random.Random(f"{make.__name__} {number}")
        content = make(draw)
        settings = _settings(draw) if draw.random() < 0.2 else ()
        file.write_bytes(content)
        fault = check(file, settings)
        yield Case(f"{make.__name__.strip('_')} {number}", not fault, fault)


def check(file: Path, settings: tuple[str, ...] = ()) -> str:
    """What is wrong with how this file is taken; nothing when it is right."""
    try:
        with _at_most(LONGEST_SECONDS):
            return _taken(file, settings)
    except _Hang:
        return f"more than {LONGEST_SECONDS:g} seconds"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def _taken(file: Path, settings: tuple[str, ...]) -> str:
    try:
        found = load_strategy_file(file, environ=_ENVIRON)
    except StrategyError as error:
        return _unclear(error, file)
    for name in (None, "s", *(entry.id for entry in found.entries)):
        try:
            overrides = [parse_set(setting) for setting in settings]
            strategy = load_strategy(file, name, overrides, environ=_ENVIRON)
        except StrategyError as error:
            fault = _unclear(error, file)
        else:
            describe_values(strategy)
            fault = _changed(strategy, file)
        if fault:
            return f"{name}: {fault}"
    return ""


def _unclear(error: StrategyError, file: Path) -> str:
    """A refusal names the file's line, or the key, or at least the strategies that there are."""
    text = error.render()
    if error.exit_code != 2 or len(text) > 100_000:
        return f"exit code {error.exit_code}, {len(text)} characters"
    named = [
        p for p in error.problems if p.path or re.search(r":\d+$", p.where) or "--set" in p.where
    ]
    if len(named) < len(error.problems) or (not error.problems and str(file) not in text):
        return f"neither a key nor a line: {text[:200]}"
    return ""


def _changed(strategy: Strategy, file: Path) -> str:
    again = file.with_name("again.yaml")
    again.write_text(to_yaml(strategy, environ={}), encoding="utf-8")
    try:
        loaded = load_strategy(again, strategy.id, environ={})
    except StrategyError as error:
        return f"what is written of it is refused: {error.render()[:300]}"
    one, other = (s.model_dump(exclude=_APART) for s in (strategy, loaded))
    # A number that is none is not equal to itself.
    if repr(one) != repr(other):
        different = [key for key in one if repr(one[key]) != repr(other[key])]
        return f"what is written of it loads as another: {different}"
    return ""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _written(draw: random.Random) -> bytes:
    """A document from the table of keys: a container, some strategies, values that fit and not."""
    ids = draw.sample(
        ["s", "base", "other", "version", "components", "1", "no", "é"], draw.randint(1, 3)
    )
    strategies = {name: _strategy(draw, ids) for name in ids}
    document: Any = strategies
    match draw.randrange(8):
        case 0:
            document = {"version": draw.choice(["2.0", 2, "3", None]), "strategies": strategies}
        case 1:
            document = {
                "strategies": [{"name": name, **block} for name, block in strategies.items()]
            }
        case 2:
            document = {
                **strategies,
                "cloud_api": draw.choice(_ODD),
                "strategies": draw.choice(_ODD),
            }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=draw.random() < 0.9)
    return _retouched(text, draw).encode("utf-8", "surrogatepass")


def _strategy(draw: random.Random, ids: list[str]) -> dict[str, Any]:
    strategy: dict[str, Any] = {"components": {"fine_tuner": {"config": {}}}}
    usable = [key for key in keys() if key.status != "structure"]
    for key in draw.sample(usable, draw.randint(0, 10)):
        _put(strategy, key, draw)
    fine_tuner = strategy["components"].get("fine_tuner")
    if isinstance(fine_tuner, dict) and draw.random() < 0.7:
        fine_tuner["type"] = draw.choice(["pytorch", "pytorch", "llamafactory", "other", None])
    if draw.random() < 0.2:
        strategy["extends"] = draw.choice([*ids, "nobody", None, ["s"]])
    return strategy


def _put(strategy: dict[str, Any], key: Key, draw: random.Random) -> None:
    block = strategy
    path = key.path.replace("*", draw.choice(["own", "role", "", "a.b"]))
    *parents, last = path.split(".")
    for parent in parents:
        inner = block.setdefault(parent, {})
        if not isinstance(inner, dict):
            return
        block = inner
    if draw.random() < 0.1:
        last = draw.choice(
            [last[:-1], last + "s", last.upper(), last.replace("_", "-"), last + " "]
        )
    block[last] = _value(key, draw)


def _value(key: Key, draw: random.Random) -> Any:
    if draw.random() < 0.3:
        return draw.choice(_ODD)
    try:
        schema = value_schema(key.target.replace("*", "own"))
    except (KeyError, AttributeError):
        return draw.choice(_ODD)
    return _fitting(schema, draw)


def _fitting(schema: Schema, draw: random.Random) -> Any:
    if "enum" in schema:
        return draw.choice(schema["enum"])
    if "anyOf" in schema:
        return _fitting(draw.choice(schema["anyOf"]), draw)
    match schema.get("type"):
        case "boolean":
            return draw.random() < 0.5
        case "integer":
            return max(schema.get("minimum", 0), 1) + draw.choice([0, 1, 7, 100])
        case "number":
            return draw.choice([0.1, 0.5, 1, 2e-4, 3])
        case "array":
            return [_fitting(schema.get("items", {}), draw) for _ in range(draw.randint(0, 3))]
        case "object":
            inner = schema.get("additionalProperties")
            inner = inner if isinstance(inner, dict) else {}
            return {draw.choice("abc"): _fitting(inner, draw) for _ in range(draw.randint(0, 2))}
        case "string":
            return draw.choice(["x", "data.jsonl", "q8_0", "cosine", "org/model", "a: b", "${X}"])
    return draw.choice(_ODD)


def _retouched(text: str, draw: random.Random) -> str:
    """What a person does to a file besides: quotes, comments, anchors, lines twice."""
    lines = text.splitlines()
    for _ in range(draw.choice([0, 0, 1, 3])):
        at = draw.randrange(len(lines)) if lines else 0
        match draw.randrange(7):
            case 0:
                lines[at:at] = lines[at : at + draw.randint(1, 4)]
            case 1:
                del lines[at : at + 1]
            case 2:
                lines[at : at + 1] = [f"{line}  # a remark" for line in lines[at : at + 1]]
            case 3:
                lines[at : at + 1] = [" " + line for line in lines[at : at + 1]]
            case 4:
                lines[at : at + 1] = [line.replace(": ", ": &a ", 1) for line in lines[at : at + 1]]
            case 5:
                lines.append("more: *a")
            case 6:
                lines[at : at + 1] = [line.replace("'", '"') for line in lines[at : at + 1]]
    return "\n".join(lines) + draw.choice(["\n", "", "\r\n", "\n\n\n"])


def _damaged(draw: random.Random) -> bytes:
    """A file that is right, with some of its bytes gone, changed, moved or repeated."""
    made = bytearray(draw.choice(_SOURCES).read_bytes())
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(made) + 1)
        length = draw.choice([1, 1, 2, 8, 60, 700])
        match draw.randrange(6):
            case 0:
                made[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del made[at : at + length]
            case 2:
                made[at:at] = made[at : at + length]
            case 3:
                made[at:at] = draw.choice(_BYTES)
            case 4:
                moved = made[at : at + length]
                del made[at : at + length]
                to = draw.randrange(len(made) + 1)
                made[to:to] = moved
            case 5:
                if draw.random() < 0.2:
                    del made[at:]
    return bytes(made)


def _settings(draw: random.Random) -> tuple[str, ...]:
    names = [key.target or key.path for key in keys()]
    paths = [*names, *(name.rsplit(".", 1)[-1] for name in names), "backend", "x", "", "a.b.c"]
    values = [str(value) for value in _ODD]
    return tuple(f"{draw.choice(paths)}={draw.choice(values)}" for _ in range(draw.randint(1, 3)))


ROW = Row(
    key="fuzz",
    fault="fuzzed strategies (grammar and bytes)",
    passes_when="no traceback, no hang over 2 s, exit 2, key or line named, and what is accepted "
    "is written and read again as the same",
    cases=cases,
)
