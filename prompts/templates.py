"""A prompt set: a flat folder of Jinja2 files, tried out before a run and frozen for as long as it lasts.

The files are data from a person, or from someone that person copied them from, so they render in Jinja2's sandbox and
never reach Python, and every file is read once, at the start: a template cannot open a path, and editing a file does
not change a run under way. An unknown name is an error with file and line (StrictUndefined), not an empty string.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import SecurityError

from self_pruner.memory.errors import meant
from self_pruner.prompts import variables as names
from self_pruner.prompts.bounded import BoundedEnvironment
from self_pruner.prompts.files import ENTRIES, SETTINGS, PromptError, Source, parse_settings, read_set
from self_pruner.prompts.sample import samples
from self_pruner.prompts.variables import SYSTEM_NAMES, TURN_NAMES, Variables

# What compiling a template or evaluating its expressions can raise, besides Jinja2's own errors.
_EXPRESSION_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
_COMPILER_ERRORS = (SyntaxError, MemoryError, AssertionError)

_MISSING_FIELD = re.compile(r"prompts\.variables\.(\w+) object' has no attribute '(\w+)'")
_MISSING_NAME = re.compile(r"^'(\w+)' is undefined$")


@dataclass(frozen=True, slots=True)
class Messages:
    """One turn's prompt: the part that is the same all run, and the part that is not."""

    system: str
    turn: str

    @property
    def text(self) -> str:
        """Both, as a person reads them."""
        return f"{self.system}\n\n{self.turn}"


class PromptSet:
    """The templates of `prompts/<name>/`, single files replaced by those of an override folder."""

    def __init__(self, name: str, overrides: Path | None = None) -> None:
        """Read the files; nothing is rendered yet (see `check`).

        Args:
            name: A folder beside this file.
            overrides: A folder whose files replace those of the set; None for none.

        Raises:
            SettingsError: No set has that name; close matches are named.
            SettingsError: `overrides` is not a folder with prompt files.
            PromptError: A file leads outside its folder, cannot be read, or `set.toml` is wrong.
        """
        self.name = name
        self._sources = read_set(name, overrides)
        settings = parse_settings(self._sources[SETTINGS])
        self.description, self.actions, self.hints = settings.description, settings.actions, settings.hints
        self._environment = _environment(_Loader(self._templates()))

    def render(self, variables: Variables) -> Messages:
        """One turn's prompt; raises PromptError with file and line."""
        system, turn = variables.for_system(), variables.for_turn()
        return Messages(system=self._render("system.j2", system), turn=self._render("turn.j2", turn))

    def check(self) -> None:
        """Try every file on made-up variables, so that a mistake is found before anything heavy runs.

        Raises:
            PromptError: With the file and line of the first mistake.
        """
        self._check_names()
        self._check_compiled()
        self._check_all_used()
        for variables in samples(self.actions):
            self.render(variables)

    def copy_to(self, folder: Path) -> None:
        """Write the exact files, all or none, so that `PromptSet(name, folder)` is this set again. Raises OSError."""
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, source in self._sources.items():
            (partial / name).write_text(source.text, encoding="utf-8")
        partial.replace(folder)  # refused where that is there and not empty

    @property
    def files(self) -> dict[str, str]:
        """The text of every file, by name."""
        return {name: source.text for name, source in sorted(self._sources.items())}

    def _templates(self) -> dict[str, Source]:
        return {name: source for name, source in self._sources.items() if name != SETTINGS}

    def _render(self, name: str, values: Mapping[str, Any]) -> str:
        self._environment.start()
        try:
            return self._environment.get_template(name).render(values).strip()
        except jinja2.TemplateError as error:
            self._raise_placed(name, error)
        except (*_EXPRESSION_ERRORS, *_COMPILER_ERRORS) as error:
            self._raise_placed(name, error)

    def _raise_placed(self, name: str, error: Exception) -> NoReturn:
        """Raise the error as one sentence with the file and line that caused it."""
        path, line = self._place(error)
        source = self._sources[name]
        allowed = SYSTEM_NAMES if name == "system.j2" else TURN_NAMES
        raise PromptError(path or source.path, line, _sentence(error, name, allowed)) from error

    def _place(self, error: Exception) -> tuple[Path | None, int | None]:
        """The innermost template line on the way to the error (Jinja2 rewrites tracebacks to template lines)."""
        if isinstance(error, jinja2.TemplateSyntaxError) and error.filename:
            return Path(error.filename), error.lineno
        paths = {str(source.path): source.path for source in self._sources.values()}
        path, line = None, None
        traceback = error.__traceback__
        while traceback is not None:
            here = paths.get(traceback.tb_frame.f_code.co_filename)
            if here is not None:
                path, line = here, traceback.tb_lineno
            traceback = traceback.tb_next
        return path, line

    def _parsed(self) -> Iterator[tuple[str, Source, nodes.Template]]:
        for name, source in self._templates().items():
            try:
                yield name, source, self._environment.parse(source.text, name, str(source.path))
            except (jinja2.TemplateSyntaxError, RecursionError) as error:
                self._raise_placed(name, error)

    def _check_names(self) -> None:
        """Find wrong names, private attributes and bad paths even in branches that no sample takes."""
        parsed = list(self._parsed())
        # An included file sees the loop and set variables of the file that includes it.
        stored = {n.name for _, _, tree in parsed for n in tree.find_all(nodes.Name) if n.ctx in ("store", "param")}
        for name, source, tree in parsed:
            allowed = SYSTEM_NAMES if name == "system.j2" else TURN_NAMES
            try:
                undeclared = meta.find_undeclared_variables(tree) - allowed - stored - self._environment.globals.keys()
            except jinja2.TemplateAssertionError as error:  # an unknown filter or test
                raise PromptError(source.path, error.lineno, _sentence(error, name, allowed)) from error
            for node in tree.find_all(nodes.Name):
                if node.name in undeclared:
                    raise PromptError(source.path, node.lineno, _unknown_name(node.name, name, allowed))
            for attribute in tree.find_all(nodes.Getattr):
                if attribute.attr.startswith("_"):
                    raise PromptError(source.path, attribute.lineno, _private(attribute.attr))
            for include in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
                for target in _constant_targets(include):
                    if target not in self._sources or target == SETTINGS:
                        raise PromptError(source.path, include.lineno, _not_in_set(target, self._templates()))

    def _check_compiled(self) -> None:
        """Find what parses and is more than Python compiles: loops in loops in loops."""
        for name, source in self._templates().items():
            try:
                self._environment.start()
                self._environment.get_template(name)
            except (RecursionError, *_COMPILER_ERRORS) as error:
                raise PromptError(source.path, None, _sentence(error, name, TURN_NAMES)) from error

    def _check_all_used(self) -> None:
        """A file that nothing includes is a misspelt override: say so rather than ignore it."""
        used = set(ENTRIES)
        for _, _, tree in self._parsed():
            targets = set(meta.find_referenced_templates(tree))
            used |= {target for target in targets if target is not None}
        for name, source in self._templates().items():
            if name not in used:
                hint = meant(name, ENTRIES, after="") or f"a set is made of {', '.join(ENTRIES)}"
                raise PromptError(source.path, None, f"no template includes this file; {hint}")


class _Strict(jinja2.StrictUndefined):
    """An undefined value that cannot be shown either, alone, inside a list or in a format string."""

    __slots__ = ()
    __repr__ = __format__ = jinja2.StrictUndefined.__str__  # type: ignore[assignment]


class _RefusedError(jinja2.TemplateError):
    """A template named a file it may not have. Not TemplateNotFound, which `ignore missing` would swallow."""


class _Loader(jinja2.BaseLoader):
    """Serves the files read at the start and nothing else."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, None]:
        source = self._sources.get(template)
        if source is None:
            raise _RefusedError(_not_in_set(template, self._sources))
        return source.text, str(source.path), None


def _environment(loader: jinja2.BaseLoader) -> BoundedEnvironment:
    """Jinja2 without access to Python: immutable sandbox, strict names, only `range` and `namespace` as functions."""
    environment = BoundedEnvironment(
        loader=loader, undefined=_Strict, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.globals = {name: environment.globals[name] for name in ("range", "namespace")}
    environment.filters |= {
        "decimals": _decimals,
        "signed": _signed,
        "percent": _percent,
        "widths": _widths,
        "oneline": _oneline,
    }
    environment.bound()
    return environment


def _decimals(value: float | None, digits: int = 3) -> str:
    """`0.8123` as `0.812`; None as `?`."""
    return "?" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 3) -> str:
    """`0.8123` as `+0.812`; None as `?`."""
    return "?" if value is None else f"{value:+.{digits}f}"


def _percent(share: float) -> str:
    """`0.3` as `30%`, `0.333` as `33.3%`."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def _widths(widths: tuple[int, ...]) -> str:
    """`[3,3,2]`: the way the brain has to write them."""
    return "[" + ",".join(map(str, widths)) + "]"


def _oneline(text: str, limit: int = 200) -> str:
    """Text of unknown origin as one short line that cannot spell a chat template's control token."""
    line = " ".join(text.split()).replace("<|", "< |").replace("|>", "| >")
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def _constant_targets(node: nodes.Node) -> Iterator[str]:
    """The file names an include or import spells out; computed names are seen when they are rendered."""
    template = getattr(node, "template", None)
    parts = template.items if isinstance(template, nodes.List | nodes.Tuple) else [template]
    for part in parts:
        if isinstance(part, nodes.Const) and isinstance(part.value, str):
            yield part.value


def _sentence(error: Exception, name: str, allowed: frozenset[str]) -> str:
    """What went wrong in words for a person who writes prompts, not Python."""
    text = str(getattr(error, "message", None) or error)
    if isinstance(error, SecurityError):
        return f"a template may not reach into Python ({text.rstrip('.')})"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"syntax error: {text.rstrip('.')}"
    if isinstance(error, RecursionError):
        return "the templates include one another without end, or an expression is nested too deep"
    if isinstance(error, _COMPILER_ERRORS):
        return f"the template cannot be compiled: {getattr(error, 'msg', None) or text or type(error).__name__}"
    if match := _MISSING_NAME.match(text):
        return _unknown_name(match[1], name, allowed)
    if match := _MISSING_FIELD.search(text):
        fields = getattr(names, match[1]).__dataclass_fields__
        return f"{match[1]} has no field {match[2]!r}{_choices(match[2], fields)}"
    return text.rstrip(".")


def _unknown_name(wrong: str, file: str, allowed: frozenset[str]) -> str:
    if wrong in TURN_NAMES:
        return f"{wrong!r} changes during a run, so {file} may not use it{_choices(wrong, allowed)}"
    return f"{wrong!r} is not a variable{_choices(wrong, allowed)}"


def _private(attribute: str) -> str:
    return f"a template may not reach into Python (attribute {attribute!r} is private)"


def _not_in_set(target: str, known: Mapping[str, Source]) -> str:
    parts = target.replace("\\", "/").split("/")
    if ".." in parts or target.startswith(("/", "\\")) or ":" in target:
        return f"{target!r} leads outside the prompt folder; a template may include only files of its own set"
    return f"there is no file {target!r} in this prompt set{_choices(target, known)}"


def _choices(wrong: str, allowed: Mapping[str, object] | frozenset[str]) -> str:
    return f"; {meant(wrong, allowed, after='? ')}allowed: {', '.join(sorted(allowed))}"
