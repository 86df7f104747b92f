"""Tool calls and the descriptions of tools as rows hold them: objects, or JSON text of these.

Every function notes each fault with its path through `fault(path, message)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from llamafarm.data.json_reader import describe, strict_json
from llamafarm.data.rows import ToolCall

Fault = Callable[[str, str], None]
_EXPECTED = 'expected {"name": …, "arguments": {…}}'


def read_calls(value: object, path: str, fault: Fault) -> tuple[ToolCall, ...]:
    """The list under an OpenAI turn's `tool_calls`."""
    value = _from_json(value, path, fault)
    if not isinstance(value, list):
        if value is not None:
            fault(path, f"expected a list of tool calls, found {describe(value)}")
        return ()
    found = (_call(call, f"{path}[{i}]", fault) for i, call in enumerate(value))
    return tuple(call for call in found if call)


def read_call_turn(value: object, path: str, fault: Fault) -> tuple[ToolCall, ...]:
    """The value of a ShareGPT turn that calls tools: one call or a list of calls."""
    value = _from_json(value, path, fault)
    if isinstance(value, list) and value:
        return read_calls(value, path, fault)
    if isinstance(value, Mapping):
        call = _call(value, path, fault)
        return (call,) if call else ()
    if value is not None:
        fault(path, f"{_EXPECTED}, or a list of these, found {describe(value)}")
    return ()


def read_tools(value: object, path: str, fault: Fault) -> tuple[Mapping[str, object], ...]:
    """Descriptions of tools: a list of JSON objects, each as `{"type": "function", "function": …}`
    or the inner object alone, which is wrapped so.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    value = _from_json(value, path, fault)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        if value is not None:
            fault(path, f"expected a list of tools, found {describe(value)}")
        return ()
    found = (_tool(tool, f"{path}[{i}]", fault) for i, tool in enumerate(value))
    return tuple(tool for tool in found if tool)


def _tool(value: object, path: str, fault: Fault) -> Mapping[str, object] | None:
    tool = _from_json(value, path, fault)
    if not isinstance(tool, Mapping):
        if tool is not None:
            fault(path, f"expected an object that describes a tool, found {describe(tool)}")
        return None
    inner = tool.get("function")
    if inner is None and "name" in tool:
        tool = {"type": "function", "function": tool}
        inner = tool["function"]
    else:
        path = f"{path}.function"
    if not isinstance(inner, Mapping):
        fault(path, f"expected an object with name and parameters, found {describe(inner)}")
        return None
    _name(inner, path, fault)
    _check_json(tool, path, fault)
    return tool


def _call(value: object, path: str, fault: Fault) -> ToolCall | None:
    if not isinstance(value, Mapping):
        fault(path, f"expected a tool call, found {describe(value)}")
        return None
    kind = value.get("type")
    if kind not in (None, "function"):
        fault(f"{path}.type", f'expected "function", found {describe(kind)}')
        return None
    inner, inner_path = value.get("function"), f"{path}.function"
    if inner is None and "name" in value:
        inner, inner_path = value, path
    if not isinstance(inner, Mapping):
        fault(inner_path, f"{_EXPECTED}, found {describe(inner)}")
        return None
    number = value.get("id")
    if number is not None and not isinstance(number, str):
        fault(f"{path}.id", f"expected text, found {describe(number)}")
        return None
    name = _name(inner, inner_path, fault)
    arguments = _arguments(inner.get("arguments"), f"{inner_path}.arguments", fault)
    return ToolCall(name, arguments, number or "")


def _name(inner: Mapping[str, object], path: str, fault: Fault) -> str:
    name = inner.get("name")
    if isinstance(name, str) and name.strip():
        _check_json(name, f"{path}.name", fault)
        return name
    found = "an empty text" if isinstance(name, str) else describe(name)
    fault(f"{path}.name", f"expected the name of a tool, found {found}")
    return ""


def _arguments(value: object, path: str, fault: Fault) -> Mapping[str, object]:
    if value is None or (isinstance(value, str) and not value.strip()):
        fault(path, "is empty: a call without arguments has {}")
        return {}
    value = _from_json(value, path, fault)
    if not isinstance(value, Mapping):
        if value is not None:
            fault(path, f"expected a JSON object, found {describe(value)}")
        return {}
    _check_json(value, path, fault)
    return value


def _from_json(value: object, path: str, fault: Fault) -> object:
    """What a JSON text says; anything else as it is. None, with its fault noted, where the text is
    not JSON.
    """
    if not isinstance(value, str):
        if value is None:
            fault(path, "is null")
        return value
    try:
        found = strict_json(value)
    except json.JSONDecodeError as error:
        fault(path, f"not valid JSON: {error.msg} at column {error.colno}")
        return None
    except ValueError as error:
        fault(path, str(error))
        return None
    except RecursionError:
        fault(path, "nested too deeply to be read")
        return None
    if found is None:
        fault(path, "is null")
    return found


def _check_json(value: object, path: str, fault: Fault) -> None:
    """A chat template writes it as JSON, in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        fault(path, f"holds half of a character (\\u{half:04x} without its other half)")
    except (TypeError, ValueError, RecursionError) as error:
        fault(path, f"cannot be written as JSON: {error}")
