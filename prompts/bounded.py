"""Jinja2 that always comes back: templates of unknown origin with a bound on their steps and on every value they make.

Jinja2's sandbox keeps a template from Python, but not from `'x' * 10**10`, from four loops inside one another or from a
list that holds itself twice, again and again. So nothing is worked out at compile time, everything that can multiply is
looked at before it does, every new value is weighed (characters and elements, however deep), and every step and every
weight is charged to what one rendering may cost. There are loops and calls, but no `while`: what is left is finite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, MutableMapping, ValuesView
from functools import wraps
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.bccache import Bucket, BytecodeCache
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

LARGEST = 1 << 18  # characters and elements of one value
WORK = 1 << 22  # characters and elements of one rendering, a step counted as `STEP`: many times what a prompt takes
STEP = 16
PRODUCT = 1 << 24  # of all sizes and numbers handed to one filter or method
BITS = 1 << 12  # of a whole number
DIGITS = 100  # after the point, or before it, that a number is rounded to
KEPT = 256  # compiled templates
_NAMED_FIELD = re.compile(r"[1-9]\d{4}|%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")  # widths of 10,000 and more, computed widths
_NUMBER = re.compile(r"\d{1,4}")  # a width or precision, among others
_NO_MULTIPLIER = frozenset({"default", "d", "int", "float", "sum", "min", "max"})  # whose numbers are only values
_TO_DIGITS = frozenset({"round", "decimals", "signed"})
_STEPS, _WEIGHED, _TEXT = "counted steps", "weighed value", "weighed text"  # filters that no template may name


class TooMuchError(jinja2.TemplateError):
    """A template takes more steps, or makes a larger value, than any prompt needs."""


class _Compiled(BytecodeCache):
    """Templates as they were compiled, in this process: every command compiles the same few several times else."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], Any] = {}  # by file and digest of its text

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if len(self._code) >= KEPT:
            self._code.clear()
        self._code[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()  # for all environments: they differ in nothing that a template is compiled to


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with bounds; `start` begins a rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        """The options are Jinja2's; filters that are added later are bounded when `bound` is called."""
        super().__init__(
            **options,
            optimized=False,
            finalize=pass_context(lambda _, value: self._text(value)),
            bytecode_cache=_COMPILED,
        )
        del self.filters["random"]  # the same prompt, always
        self.work = WORK

    def bound(self) -> None:
        """Put bounds around all filters and tests that are there now."""
        self.filters = {name: self._guarded(name, function) for name, function in self.filters.items()}
        self.tests = {name: self._guarded(name, function, test=True) for name, function in self.tests.items()}
        self.filters |= {_STEPS: self._steps, _WEIGHED: self._weighed, _TEXT: self._text}

    def start(self) -> None:
        """Give the next rendering all of its work."""
        self.work = WORK

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%`, unless the result would be too large."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * right)
        elif operator == "%" and isinstance(left, str | bytes):
            self._charge(right, shown=True)
            _check_filled(left if isinstance(left, str) else left.decode("latin-1"), right)
        return self._weighed(super().call_binop(context, operator, left, right))

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What `map` makes of every value; not by filters that count, which would take a number for their charge."""
        if name in (_STEPS, _WEIGHED, _TEXT):
            raise jinja2.TemplateRuntimeError(f"No filter named {name!r}.")
        return super().call_filter(name, *args, **kwargs)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902
        """A method or macro, unless its arguments make it too much."""
        handed = (*args, *kwargs.values())
        for value in handed:
            __self._charge(value)
        inner = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        if isinstance(inner, BuiltinMethodType) and __obj is not safe_range:
            own = inner.__self__
            __self._charge(own)
            if isinstance(own, str) and inner.__name__ in ("format", "format_map"):
                __self._charge(handed, shown=True)
                _check_filled(own, handed)
            else:
                _check_sizes((own, *handed))
        return __self._weighed(super().call(__context, __obj, *args, **kwargs))

    def _load_template(self, name: str, globals: MutableMapping[str, Any] | None) -> jinja2.Template:
        """Every include costs what the file may write."""
        if self.loader is not None:
            self._spend(STEP + len(self.loader.get_source(self, name)[0]))
        return super()._load_template(name, globals)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The template with its loops counted and the values it puts together weighed."""
        return _Counting().visit(super()._parse(source, name, filename))

    def _guarded(self, name: str, function: Any, test: bool = False) -> Callable[..., Any]:
        own = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja2's context, or another of its own

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            handed = (*args[own:], *kwargs.values())
            for value in handed:
                self._charge(value, shown=not test)
            if name == "format":
                _check_filled(str(handed[0]), handed[1:])
            elif name == "sum" and any(isinstance(value, list | tuple) for value in handed[1:]):
                raise TooMuchError("sum adds numbers; lists are put together by +")
            elif name in _TO_DIGITS and any(isinstance(value, int) and abs(value) > DIGITS for value in handed[1:]):
                raise TooMuchError(f"a number is rounded to at most {DIGITS} digits")
            elif not test and name not in _NO_MULTIPLIER:
                _check_sizes(handed)
            made = function(*args, **kwargs)
            return self._weighed(list(self._steps(made)) if isinstance(made, Iterator) else made)

        return guarded

    def _steps(self, values: Iterable[Any], cost: int = STEP) -> Iterator[Any]:
        """The values one by one, each charged."""
        for value in values:
            self._spend(cost)
            yield value

    def _weighed(self, value: Any) -> Any:
        self._charge(value)
        return value

    def _text(self, value: Any) -> Any:
        """A value that becomes text. Functions don't: they would show where in memory they are."""
        self._charge(value, shown=True)
        return value

    def _charge(self, value: Any, shown: bool = False) -> None:
        self._spend(STEP + weight(value, shown))

    def _spend(self, cost: int) -> None:
        self.work -= cost
        if self.work < 0:
            raise TooMuchError(f"the template takes more steps than a prompt may ({WORK // STEP:,})")


class _Counting(NodeTransformer):
    """Puts filters around what can grow: no template can leave them out."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _STEPS, nodes.Const(STEP + written))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filtered(inner, _TEXT) for inner in node.nodes]
        return _filtered(node, _WEIGHED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, _WEIGHED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, _WEIGHED)
        return node

    def visit_List(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, _WEIGHED)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return node if node.ctx == "store" else self.visit_List(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        return self.visit_List(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Include(self, node: nodes.Node) -> nodes.Node:
        return node  # the file names it spells out are looked at as they stand

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _filtered(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def weight(value: Any, shown: bool = False) -> int:
    """Characters and elements of a value, however deep.

    Raises:
        TooMuchError: more than `LARGEST`, counted no further; or, where it may be shown as text, a function in it.
    """
    total, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if shown:
            _check_no_function(one)
        if isinstance(one, Namespace):
            one = one._Namespace__attrs  # what its text shows
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, dict):
            total += len(one)
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset | KeysView | ValuesView | ItemsView):
            total += len(one)
            waiting += one
        elif isinstance(one, int):
            _check_bits(one.bit_length())
        elif hasattr(type(one), "__len__") and not isinstance(one, Undefined):
            total += len(one)
        if total > LARGEST:
            raise TooMuchError(f"a value has more than {LARGEST:,} characters or elements")
    return total


def _check_sizes(handed: tuple[Any, ...]) -> None:
    """Refuse numbers and texts that would multiply to too much: `center(10**9)`, long replacements for every letter."""
    product = max(1, weight(handed[0]))  # what goes into a filter is no multiplier, though it be a number
    for value in handed[1:]:
        product *= max(1, abs(value) if isinstance(value, int) else weight(value))
    if product > PRODUCT:
        raise TooMuchError("a filter or method is asked for too much at once")


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(value, str | bytes | list | tuple) and weight(value) * times > LARGEST:
            raise TooMuchError(f"a value has more than {LARGEST:,} characters or elements")


def _check_bits(bits: int) -> None:
    if bits > BITS:
        raise TooMuchError(f"a number has more than {BITS:,} bits")


def check_format(text: str) -> None:
    """Refuse a format string that asks for a large or computed width; raises TooMuchError."""
    if _NAMED_FIELD.search(text):
        raise TooMuchError("a format asks for a width or precision that is too large, or computed")


def _check_filled(text: str, values: Any) -> None:
    """Refuse a format string whose fields together may be filled with too much; raises TooMuchError."""
    check_format(text)
    widest = max(map(int, _NUMBER.findall(text)), default=0)
    if (text.count("%") + text.count("{")) * (1 + widest + weight(values)) > PRODUCT:
        raise TooMuchError("a format has too many fields for what is put into them")


def _check_no_function(value: Any) -> None:
    if (callable(value) or type(value).__repr__ is object.__repr__) and not isinstance(value, Undefined):
        raise TooMuchError("a function is no text; call it")
