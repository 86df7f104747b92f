"""The sandbox of chat templates: they reach nothing, and cost neither time nor memory without end.

It is the immutable sandbox of the transformers library, with its filters and globals, so that what
is trained on is what serving renders. What makes a value larger is checked before it is done, every
loop and call counts, and what would be neither bounded nor of use to a chat template is left out.
A bound is an error, never a shorter text.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime
from itertools import chain, compress, islice, repeat
from string import Formatter
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import _GroupTuple
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

MAX_TEMPLATE_CHARACTERS = 100_000
# Of one value and of the whole text, beside what the conversation itself allows.
MAX_CHARACTERS = 4_000_000
MAX_CHARACTERS_PER_CHARACTER = 16
# Processor time of this thread: a machine that sleeps or is busy makes no template slow.
MAX_SECONDS = 5.0
_MAX_BITS = 10_000
# Digits of a text that becomes a number, where Python itself has no bound on them.
_MAX_DIGITS = 2_000
# More than a float has of them.
_MAX_DECIMALS = 400
# Of one search that may compare every character of a text with every one that is sought.
_MAX_COMPARISONS = 50_000_000
_MAX_DATE_FORMAT = 1_000
# Loop steps, calls and other operations between two looks at the clock.
_PACE = 16
# What is as much work as one step, where characters are made.
_CHARACTERS_A_STEP = 100_000
_BATCH = 32
# Operands of one `+` that may be as large as a value.
_OPERANDS = 2
# What an element of a list weighs besides its content, in characters.
_ELEMENT = 8
# What it costs to look up an attribute of one, in the same measure.
_LOOKED_UP = 64
_VALUES: type = type({}.values())
_CONTAINERS = frozenset(
    {
        list,
        tuple,
        dict,
        set,
        frozenset,
        type({}.keys()),
        type({}.items()),
        _VALUES,
        Markup,
        _GroupTuple,
    }
)
_NUMBER = re.compile(r"\d+")
_GIVEN_WIDTH = re.compile(r"%[^%a-zA-Z]*\*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No chat template needs them; their time or their result is not bounded by what they are given.
_LEFT_OUT_FILTERS = _words(
    "batch center filesizeformat forceescape pprint random slice striptags truncate urlencode "
    "urlize wordwrap xmlattr"
)
_LEFT_OUT_GLOBALS = frozenset({"lipsum"})
# The name of a filter that no template can write.
_STEPS, _HELD, _TICK, _SAID = " steps", " held", " tick", " said"
# The others tick: those with a bound by themselves.
_CHEAP_FILTERS = _words("abs count d default first last length")
# They do something for every item that they are given.
_FILTERS_OF_ITEMS = _words("list map max min reject rejectattr select selectattr unique")
_LINEAR_TESTS = _words("lower upper")
_METHODS: Mapping[type, frozenset[str]] = {
    str: _words(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit "
        "isidentifier islower isnumeric isprintable isspace istitle isupper lower lstrip partition "
        "removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines "
        "startswith strip swapcase title upper"
    ),
    dict: _words("copy get items keys values"),
    list: _words("copy count index"),
    tuple: _words("count index"),
    float: frozenset({"is_integer"}),
    int: frozenset({"bit_length"}),
}


class TemplateLimitError(TemplateError):
    """A template that would cost more than a conversation is worth."""


class BoundedContext(Context):
    """What one rendering has used up. Class attributes are what it starts with."""

    _left = _PACE
    _made = 0
    _ends_at: float | None = None
    _most: int | None = None

    def tick(self, steps: int = 1) -> None:
        """Count operations, and look at the clock now and then."""
        self._left -= steps
        if self._left < 0:
            self._look_at_clock()

    def steps(self, items: Any) -> Any:
        """The items of a loop, counted."""
        try:
            length = len(items)
        except TypeError:
            length = _PACE + 1
        if length > _PACE:
            return compress(items, chain.from_iterable(self._paces()))
        self._left -= length
        if self._left < 0:
            self._look_at_clock()
        return items

    def each(self, items: Any) -> Any:
        """The items of a filter: what is done for one of them may take long."""
        if not isinstance(items, Iterable) or (isinstance(items, Sized) and not items):
            return items
        return self._watched(items)

    def _watched(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._look_at_clock()
            yield item

    def _paces(self) -> Iterator[Iterator[bool]]:
        while True:
            self._look_at_clock()
            yield repeat(True, _PACE)

    def _look_at_clock(self) -> None:
        now = time.thread_time()
        if self._ends_at is None:
            self._ends_at = now + MAX_SECONDS
        elif now > self._ends_at:
            raise TemplateLimitError(
                f"it takes more than {MAX_SECONDS:g} seconds for one conversation"
            )
        self._left = _PACE

    def allow(self, characters: int) -> None:
        """Raises TemplateLimitError where one value would be longer than this conversation
        allows.
        """
        if characters > MAX_CHARACTERS and characters > self._limit():
            raise TemplateLimitError(
                f"it makes more than {self._limit():,} characters of one conversation"
            )

    def make(self, characters: int) -> None:
        """Allow a value of this size; making it takes its time."""
        self.tick(1 + characters // _CHARACTERS_A_STEP)
        self.allow(characters)

    def spend(self, characters: int) -> None:
        """Count what is made on the way, and refuse as `allow` does when it is too much in all."""
        self._made += characters
        self.allow(self._made)

    def held(self, value: Any) -> Any:
        """The value, when it is not too large to be kept."""
        self._left -= 1
        if self._left < 0:
            self._look_at_clock()
        kind = type(value)
        if kind is str:
            if len(value) > MAX_CHARACTERS:
                self.allow(len(value))
        elif kind in _CONTAINERS:
            self.allow(_weight(value, max(MAX_CHARACTERS, self._most or 0)))
        return value

    def ticked(self, value: Any) -> Any:
        """The value; making it took its time."""
        self._left -= 1
        if self._left < 0:
            self._look_at_clock()
        return value

    def said(self, value: Any) -> str:
        """What is written into a value."""
        text = value if type(value) is str else str(value)
        self._made += len(text)
        if self._made > MAX_CHARACTERS:
            self.allow(self._made)
        return text

    def text(self, chunks: Iterator[str]) -> str:
        """All that the template writes."""
        made = list(islice(chunks, _BATCH))
        text = "".join(made)
        self.allow(len(text))
        if len(made) < _BATCH:
            return text
        parts, size = [text], len(text)
        while made := list(islice(chunks, _BATCH)):
            parts.append("".join(made))
            size += len(parts[-1])
            self.allow(size)
        return "".join(parts)

    def derived(self, locals: dict[str, Any] | None = None) -> BoundedContext:  # noqa: A002
        """Of a scoped block: it uses up the same."""
        inner: Any = super().derived(locals)
        inner.tick, inner.spend = self.tick, self.spend
        inner._look_at_clock = self._look_at_clock
        return inner  # type: ignore[no-any-return]  # jinja2 gives the same class

    def _limit(self) -> int:
        if self._most is None:
            given = [self.parent.get("messages"), self.parent.get("tools")]
            weight = _weight(given, None)
            self._most = MAX_CHARACTERS + MAX_CHARACTERS_PER_CHARACTER * weight
        return self._most


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of another environment, with bounds."""

    context_class = BoundedContext
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, like: Any) -> None:
        super().__init__(
            trim_blocks=like.trim_blocks,
            lstrip_blocks=like.lstrip_blocks,
            keep_trailing_newline=like.keep_trailing_newline,
            extensions=[type(extension) for extension in like.extensions.values()],
            # Its time grows with the third power of an expression's length.
            optimized=False,
        )
        self.filters.update(like.filters)
        self.globals.update(like.globals)
        for name in _LEFT_OUT_FILTERS:
            self.filters.pop(name, None)
        for name in _LEFT_OUT_GLOBALS:
            self.globals.pop(name, None)
        self.globals["strftime_now"] = _strftime_now
        self.globals["namespace"] = _unprinted(like.globals["namespace"])
        for name, bound in _BOUNDS.items():
            self.filters[name] = _bounded(self.filters[name], bound)
        for name in _FILTERS_OF_ITEMS:
            self.filters[name] = _watching(self.filters[name])
        self.filters |= {
            _STEPS: pass_context(BoundedContext.steps),
            _HELD: pass_context(BoundedContext.held),
            _TICK: pass_context(BoundedContext.ticked),
            _SAID: pass_context(BoundedContext.said),
        }

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        bounded = _Bounds().visit(source)
        bounded.set_environment(self)
        return super()._generate(bounded, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**` and `%`: a few characters of them make gigabytes."""
        bounds: Any = context
        bounds.make(_binop_size(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call_filter(self, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """What `map` does to an item; the results may all be kept."""
        made = super().call_filter(name, value, *args, **kwargs)
        context: Any = kwargs.get("context")
        if context is not None:
            context.spend(_weight(made, MAX_CHARACTERS))
        return made

    # As the method that it overrides: no name of a parameter may be a keyword of the call.
    def call(__self, __context: Any, __callable: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Macros, methods and functions. Methods of texts and containers: those that are known."""
        __context.ticked(__callable)
        kind = type(__callable)
        if kind is BuiltinMethodType or kind is _Format:
            # What jinja2 passes to functions that ask for the context: these do not.
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            if kind is _Format:
                return __callable.fill(__context, args, kwargs)
            return _call_method(__context, __callable, args, kwargs)
        if len(args) + len(kwargs) == 1:
            __context.held(args[0] if args else next(iter(kwargs.values())))
        elif args or kwargs:
            __context.held((*args, *kwargs.values()))
        is_dict = __callable is __self.globals.get("dict")
        if args and is_dict and not isinstance(args[0], Mapping):
            args = (_mapping(__context.each(args[0])), *args[1:])
        if kind is LoopContext and args:
            args = (__context.steps(args[0]), *args[1:])
        return __context.held(super().call(__context, __callable, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        """`"…".format`: its widths count. Every attribute that is read comes here."""
        kind = type(value)
        if kind is not BuiltinMethodType and kind is not MethodType:
            return None
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else _Format(value.__self__, wrapped)


class _Format:
    """`"…".format` or `"…".format_map` of one text."""

    def __init__(self, text: str, wrapped: Callable[..., str]) -> None:
        self._text = text
        self._wrapped = wrapped

    def fill(self, context: BoundedContext, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The text with its fields filled in."""
        fields = [
            spec or "" for _, name, spec, _ in Formatter().parse(self._text) if name is not None
        ]
        if any("{" in spec for spec in fields):
            raise SecurityError("a field inside the format of a field is not offered here")
        longest = _weight([args, kwargs], MAX_CHARACTERS)
        widths = sum(_numbers(spec) for spec in fields)
        context.make(len(self._text) + widths + len(fields) * longest)
        filled: str = context.held(self._wrapped(*args, **kwargs))
        return filled


class _Bounds(NodeTransformer):
    """Puts the checks into a parsed template: where it loops, keeps a value, or writes into one."""

    def __init__(self) -> None:
        self._is_kept = False

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        made: nodes.For = self._inside(node, kept=node.recursive)
        made.iter = _filter(_STEPS, made.iter)
        return made

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        children = [self._summed(child) for child in node.nodes]
        node.nodes = [_filter(_SAID, child) for child in children] if self._is_kept else children
        return node

    def _keeping(self, node: nodes.Node) -> nodes.Node:
        """What is written inside becomes a value."""
        made: nodes.Node = self._inside(node, kept=True)
        return made

    visit_Macro = visit_CallBlock = visit_FilterBlock = _keeping  # noqa: N815
    visit_AssignBlock = visit_Block = _keeping  # noqa: N815

    def _inside(self, node: Any, *, kept: bool) -> Any:
        before, self._is_kept = self._is_kept, self._is_kept or kept
        made = self.generic_visit(node)
        self._is_kept = before
        return made

    def visit_Add(self, node: nodes.Add) -> nodes.Node:  # noqa: N802
        return _filter(_HELD, self._summed(node))

    visit_Concat = visit_Add  # noqa: N815

    def _summed(self, node: Any) -> Any:
        """Sums with a check after every few operands, and none at the end."""
        if isinstance(node, nodes.Concat):
            operands = [self.visit(child) for child in node.nodes]
            return self._folded(operands, lambda parts: nodes.Concat(parts), node.lineno)
        if not isinstance(node, nodes.Add):
            return self.visit(node)
        last: Any = node
        operands = []
        while isinstance(last, nodes.Add):
            operands.append(self.visit(last.right))
            last = last.left
        operands.append(self.visit(last))
        return self._folded(operands[::-1], _added, node.lineno)

    def _folded(
        self, operands: list[Any], join: Callable[[list[Any]], nodes.Node], line: int
    ) -> nodes.Node:
        parts: list[Any] = []
        large = 0
        for operand in operands:
            is_large = not isinstance(operand, nodes.Const)
            if is_large and large == _OPERANDS:
                parts, large = [_filter(_HELD, _at(line, join(parts)))], 1
            parts.append(operand)
            large += is_large
        return _at(line, join(parts))

    def _literal(self, node: Any) -> nodes.Node:
        """A list, tuple or mapping that is made of other values."""
        made = self.generic_visit(node)
        stored = getattr(node, "ctx", "load") != "load"
        return made if stored or _is_constant(node) else _filter(_HELD, made)

    visit_List = visit_Tuple = visit_Dict = _literal  # noqa: N815

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        made = self.generic_visit(node)
        if node.node is None or node.name in _CHEAP_FILTERS or node.name in _BOUNDS:
            return made
        return _filter(_HELD if node.name in ("list", "string") else _TICK, made)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        made = self.generic_visit(node)
        return _filter(_TICK, made) if isinstance(node.arg, nodes.Slice) else made

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Two long texts take their time; a long one and a constant only where one is sought."""
        made = self.generic_visit(node)
        if len(node.ops) > 1:
            for operand in node.ops:
                operand.expr = _filter(_TICK, operand.expr)
            return _filter(_TICK, made)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        seeks = any(operand.op in ("in", "notin") for operand in node.ops)
        constants = sum(_is_constant(side) for side in sides)
        is_short = isinstance(node.ops[-1].expr, nodes.List | nodes.Tuple)
        is_cheap = constants and (not seeks or is_short)
        return made if is_cheap else _filter(_TICK, made)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        made = self.generic_visit(node)
        return _filter(_TICK, made) if node.args or node.name in _LINEAR_TESTS else made


def _filter(name: str, node: Any) -> nodes.Filter:
    made = nodes.Filter(node, name, [], [], None, None)
    made.lineno = node.lineno
    return made


def _at(line: int, node: nodes.Node) -> nodes.Node:
    """set_lineno, for one node: that method visits all below it, whatever they have."""
    node.lineno = line
    return node


def _added(operands: list[Any]) -> nodes.Node:
    made: nodes.Node = operands[0]
    for operand in operands[1:]:
        made = _at(operand.lineno, nodes.Add(made, operand))
    return made


def _is_constant(node: nodes.Node) -> bool:
    """Whether all in a visited node is written out; what holds a value has a check around it."""
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict | nodes.Pair):
        return all(_is_constant(child) for child in node.iter_child_nodes())
    return isinstance(node, nodes.Const)


def _call_method(
    context: BoundedContext, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    owner, name = method.__self__, method.__name__
    if isinstance(owner, str) and name in _SEARCHES and args:
        _check_search(owner, args[0])
    if name in _METHODS.get(type(owner), ()) or (isinstance(owner, str) and name in _METHODS[str]):
        return method(*args, **kwargs)
    if isinstance(owner, str) and name in _TEXT_METHODS:
        context.make(_TEXT_METHODS[name](owner, *args, **kwargs))
        return context.held(method(*args, **kwargs))
    if isinstance(owner, datetime) and name == "strftime" and _is_date_format(args):
        return method(*args, **kwargs)
    raise SecurityError(f"the method {name} of {type(owner).__name__} is not offered here")


def _mapping(pairs: Iterable[Any]) -> dict[Any, Any]:
    """As `dict` makes it, but pair by pair: keys may be chosen so that each one is compared with
    all others.
    """
    made = {}
    for key, value in pairs:
        made[key] = value
    return made


def _is_date_format(args: Sequence[Any]) -> bool:
    return len(args) == 1 and isinstance(args[0], str) and len(args[0]) <= _MAX_DATE_FORMAT


def _strftime_now(format: str) -> str:  # noqa: A002
    """As that of the transformers library: today's date."""
    if not _is_date_format([format]):
        raise SecurityError(f"a date format of more than {_MAX_DATE_FORMAT:,} characters")
    return datetime.now().strftime(format)


def _unprinted(namespace: Any) -> Any:
    """A namespace that does not write out what it holds: two that hold each other a few times
    would never end.
    """

    class Namespace(namespace):  # type: ignore[misc]  # jinja2 names it at run time
        def __repr__(self) -> str:
            return "<namespace>"

    return Namespace


def _bounded(original: Any, bound: Callable[..., int]) -> Any:
    """The filter, with a bound on its result, in characters, that is checked before it is made."""
    do = _with_context(original)

    @pass_context
    def apply(context: BoundedContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        context.tick()
        if not isinstance(value, Sized):
            value = list(context.each(value)) if isinstance(value, Iterable) else value
        context.make(bound(value, *args, **kwargs))
        result = do(context, value, *args, **kwargs)
        context.spend(len(result) if isinstance(result, str) else _ELEMENT)
        return result

    return apply


def _watching(original: Any) -> Any:
    """The filter, with a look at the clock for each item that it is given."""
    do = _with_context(original)

    @pass_context
    def apply(context: BoundedContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        return do(context, context.each(value), *args, **kwargs)

    return apply


def _with_context(original: Any) -> Callable[..., Any]:
    """A filter with what it asks jinja2 for, taken from a context that is given first."""
    from jinja2.utils import _PassArg

    wants = _PassArg.from_obj(original)

    def do(context: BoundedContext, *args: Any, **kwargs: Any) -> Any:
        if wants is not None:
            given = {
                _PassArg.context: context,
                _PassArg.eval_context: context.eval_ctx,
                _PassArg.environment: context.environment,
            }[wants]
            args = (given, *args)
        return original(*args, **kwargs)

    return do


def _replaced_size(text: Any, old: Any, new: Any, count: Any = None) -> int:
    whole = str(text)
    return len(whole) + whole.count(str(old)) * len(str(new))


def _indented_size(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    whole = str(text)
    step = len(width) if isinstance(width, str) else int(width)
    return len(whole) + (whole.count("\n") + len(whole.splitlines()) + 1) * step


def _joined_size(items: Any, d: Any = "", *_: Any, **__: Any) -> int:
    return _weight(items, None) + len(items) * len(str(d))


def _percent_size(text: Any, *args: Any, **kwargs: Any) -> int:
    """Of `text % args`: every field may be the longest of what is given, and as wide as it says."""
    form = str(text)
    if _GIVEN_WIDTH.search(form):
        raise SecurityError("a width that is given as a value is not offered here")
    longest = _weight([args, kwargs], MAX_CHARACTERS)
    return len(form) + _numbers(form) + form.count("%") * longest


def _json_size(
    value: Any,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: Any = False,
) -> int:
    """What indentation and separators may add; what else is written is as long as the value."""
    step = len(indent) if isinstance(indent, str) else int(indent or 0)
    if not (step or separators):
        return 0
    text = json.dumps(value)
    depth = text.count("{") + text.count("[")
    count = depth + text.count(",") + text.count(":")
    apart = len(str(separators)) if separators else 0
    size = len(text) + count * (apart + depth * step)
    return size if size <= MAX_CHARACTERS else count * (apart + _depth(value) * step)


def _summed_size(items: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, int | float):
        raise SecurityError("only numbers can be summed here")
    return _ELEMENT


def _sorted_size(
    items: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> int:
    """What is compared: as many attributes of every item as are named."""
    length = len(items) if isinstance(items, Sized) else 0
    looked_up = 0 if attribute is None else _LOOKED_UP * length
    return max(_weight(items, MAX_CHARACTERS), looked_up) * _parts(attribute)


def _grouped_size(
    items: Any, attribute: Any, default: Any = None, case_sensitive: Any = False
) -> int:
    length = len(items) if isinstance(items, Sized) else 0
    compared = _sorted_size(items, attribute=attribute)
    return compared + _weight(default, MAX_CHARACTERS) * length


def _parts(attribute: Any) -> int:
    return 1 + attribute.count(",") + attribute.count(".") if isinstance(attribute, str) else 1


def _rounded_size(value: Any, precision: Any = 0, method: Any = "common") -> int:
    if isinstance(precision, int) and abs(precision) > _MAX_DECIMALS:
        raise TemplateLimitError(f"it rounds to more than {_MAX_DECIMALS} decimals")
    return _ELEMENT


def _integer_size(value: Any, default: Any = 0, base: Any = 10) -> int:
    if base != 10 and isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise TemplateLimitError(f"it makes a number of more than {_MAX_DIGITS:,} digits")
    return _ELEMENT


def _trimmed_size(value: Any, chars: Any = None) -> int:
    whole = str(value)
    _check_search(whole, chars)
    return len(whole)


def _check_search(text: str, sought: Any) -> None:
    if isinstance(sought, str) and len(text) * len(sought) > _MAX_COMPARISONS:
        raise TemplateLimitError(
            f"it may compare more than {_MAX_COMPARISONS:,} characters in one search"
        )


def _escaped_size(text: Any) -> int:
    return 5 * len(str(text))


_BOUNDS: Mapping[str, Callable[..., int]] = {
    "e": _escaped_size,
    "escape": _escaped_size,
    "format": _percent_size,
    "groupby": _grouped_size,
    "indent": _indented_size,
    "int": _integer_size,
    "join": _joined_size,
    "replace": _replaced_size,
    "round": _rounded_size,
    "sort": _sorted_size,
    "sum": _summed_size,
    "tojson": _json_size,
    "trim": _trimmed_size,
}
# Methods of texts that search from the end, or for any of some characters: Python's own take the
# product of both lengths.
_SEARCHES = _words("lstrip rfind rindex rpartition rsplit rstrip strip")


def _padded_size(text: str, width: Any, *_: Any) -> int:
    return max(len(text), int(width))


def _tabbed_size(text: str, tabsize: Any = 8) -> int:
    return len(text) + text.count("\t") * int(tabsize)


def _text_joined_size(separator: str, items: Any) -> int:
    if not isinstance(items, Sized):
        raise SecurityError("join takes a list here")
    return _joined_size(items, separator)


_TEXT_METHODS: Mapping[str, Callable[..., int]] = {
    "center": _padded_size,
    "expandtabs": _tabbed_size,
    "join": _text_joined_size,
    "ljust": _padded_size,
    "replace": lambda text, old, new, count=-1: _replaced_size(text, old, new),
    "rjust": _padded_size,
    "zfill": _padded_size,
}


def _binop_size(operator: str, left: Any, right: Any) -> int:
    """Characters of the result, at most. Raises TemplateLimitError for numbers without end."""
    if operator == "%":
        if not isinstance(left, str):
            return 0
        return _percent_size(left, *(right if isinstance(right, tuple) else (right,)))
    if isinstance(left, int) and isinstance(right, int):
        bits = (
            left.bit_length() * max(right, 0)
            if operator == "**"
            else left.bit_length() + right.bit_length()
        )
        if bits > _MAX_BITS:
            raise TemplateLimitError(f"it makes a number of more than {_MAX_BITS:,} bits")
        return 0
    times, value = (left, right) if isinstance(left, int) else (right, left)
    if operator == "*" and isinstance(times, int) and isinstance(value, str | list | tuple):
        return max(times, 0) * (_weight(value, None) + 1)
    return 0


def _numbers(text: str) -> int:
    """The sum of all numbers in a format, widths among them; one of many digits is large enough."""
    return sum(int(digits[:12]) for digits in _NUMBER.findall(text))


def _weight(value: Any, limit: int | None) -> int:
    """Characters of a value written out, about, with what it holds twice counted twice. Beyond the
    limit it is not looked at any further.
    """
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is str or kind is Markup:
            total += len(item)
        elif kind is dict:
            total += 2 * _ELEMENT * len(item)
            if limit is None or total <= limit:
                waiting.extend(item)
                waiting.extend(item.values())
        elif kind in _CONTAINERS:
            total += _ELEMENT * len(item)
            if limit is None or total <= limit:
                waiting.extend(item)
        elif kind is int:
            total += 1 + item.bit_length() // 3
        else:
            total += _ELEMENT
        if limit is not None and total > limit:
            return total
    return total


def _depth(value: Any) -> int:
    """How deep the values of a value lie."""
    deepest = 0
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict):
            waiting.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list | tuple):
            waiting.extend((inner, depth + 1) for inner in item)
    return deepest
