"""A tokenizer's chat template, rendered within bounds: a template of unknown origin may raise, loop or not parse.

transformers renders it in Jinja2's sandbox, without a bound on time or memory. Here it is rendered with the bounds of
prompts, and with all that transformers gives a template, except the day's date: the same run makes the same prompts
tomorrow. One that cannot take a short conversation is not used at all, which is found out before anything heavy.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from self_pruner.prompts.bounded import BoundedEnvironment, check_format

TODAY = datetime(2025, 1, 1)  # what a template that asks is told
LARGEST_TEMPLATE = 1 << 18  # characters
SYSTEM, USER = "You prune a model.", "Which layer comes next?"

# What compiling and rendering can raise.
_FAULTS = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError),
    *(RecursionError, SyntaxError, MemoryError, AssertionError),
)


class ChatTemplateError(jinja2.TemplateError):
    """The template does not take this conversation; the message is one line."""


def applied(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    """The text of a conversation up to where the reply begins, by the tokenizer's chat template.

    Models that think by themselves are asked not to: the grammar has its own thought.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        turns: {"role", "content"}, first to last.

    Raises:
        ChatTemplateError: the template raises, takes too long, does not parse, or is none.
    """
    template, special = _of(tokenizer)
    return _rendered(template, special, turns)


def unusable(tokenizer: Any) -> str | None:
    """Why the tokenizer's chat template cannot be used, in words; None where it can, or where there is none.

    Whether it takes a turn of the system is another matter: many don't.
    """
    if not tokenizer.chat_template:
        return None
    try:
        template, special = _of(tokenizer)
    except ChatTemplateError as error:
        return str(error)
    return _unusable(template, json.dumps(special, default=str))


def _of(tokenizer: Any) -> tuple[str, dict[str, Any]]:
    """A tokenizer's template, and the special tokens it may name."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # it has several, and none is the default
        raise ChatTemplateError("the tokenizer has no default template") from error
    if not isinstance(template, str) or len(template) > LARGEST_TEMPLATE:
        raise ChatTemplateError(f"a template is a text of at most {LARGEST_TEMPLATE:,} characters")
    return template, dict(tokenizer.special_tokens_map)


def takes_system(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template, one that can be used, says what a turn of the system says.

    Some refuse such a turn, and some leave it out without a word.
    """
    template, special = _of(tokenizer)
    return _fault(template, json.dumps(special, default=str), system=True) is None


def _unusable(template: str, special: str) -> str | None:
    if _fault(template, special, system=True) is None:
        return None
    return _fault(template, special, system=False)


@lru_cache(maxsize=16)
def _fault(template: str, special: str, system: bool) -> str | None:
    """Why the template does not take a short conversation, with a turn of the system or without; None where it does."""
    turns = [{"role": "user", "content": f"{SYSTEM}\n\n{USER}"}]
    if system:
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
    try:
        text = _rendered(template, json.loads(special), turns)
    except ChatTemplateError as error:
        return str(error)
    return None if SYSTEM in text and USER in text else "it leaves out what it is told"


def _rendered(template: str, special: dict[str, Any], turns: list[dict[str, str]]) -> str:
    names: dict[str, Any] = {"messages": turns, "tools": None, "documents": None}
    names |= {"add_generation_prompt": True, "enable_thinking": False}
    try:
        environment, compiled = _compiled(template)
        environment.start()
        return compiled.render(special | names)
    except _FAULTS as error:
        reason = "it calls itself without end" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ChatTemplateError(reason[:200] or type(error).__name__) from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> tuple[BoundedEnvironment, jinja2.Template]:
    environment = _environment()
    return environment, environment.from_string(template)


def _environment() -> BoundedEnvironment:
    """What transformers gives a template, within bounds."""
    environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.bound()
    del environment.globals["lipsum"]  # draws at random
    environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime}
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what an assistant said, for training; here it is as if it were not there."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime(form: str) -> str:
    check_format(form)
    return TODAY.strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers has it: Jinja2's own writes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
