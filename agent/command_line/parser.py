"""How a command line is read: options are made from the settings, and whatever is wrong is answered in one sentence.

An option that is not given is not passed on, so that a command knows what was said from what is merely the default.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from self_pruner.agent.command_line.listeners import refused
from self_pruner.agent.settings.allowed import refusal
from self_pruner.agent.settings.panels import PANELS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import SettingsError, meant

ALL = tuple(Settings.model_fields)
ASIDE = "self_pruner.whole"  # in a context's meta: whether panels that are not shown by default are asked for


class Word(click.ParamType):
    """The text after an option, as `read` makes it; another option there means that the value was forgotten."""

    name = "text"

    def __init__(self, read: Callable[[str], Any]) -> None:
        """`read` raises ValueError with what is wrong."""
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or a sentence."""
        if not isinstance(value, str):  # a default
            return value
        if value.startswith("--"):
            self.fail(f"its value is missing before {value}", param, ctx)
        try:
            return self.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Command(click.Command):
    """A command whose options are settings, beside its own."""

    def __init__(
        self,
        *arguments: Any,
        settings: Sequence[str] = (),
        texts: Mapping[str, str] | None = None,
        brief: bool = False,
        **more: Any,
    ) -> None:
        """Take `settings` by their names.

        Args:
            arguments: of click.
            settings: names of settings.
            texts: help texts of those that mean something else here.
            brief: whether `--help` leaves some panels to `--help-all`.
            more: of click.
        """
        super().__init__(*arguments, **more)
        self.settings, self.brief = settings, brief
        self.params += [option(name, (texts or {}).get(name)) for name in settings]
        if brief:
            self.params.append(
                click.Option(
                    ["--help-all"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    callback=_help_all,
                    help="Show this and the settings left out here.",
                )
            )

    def get_short_help_str(self, limit: int = 0) -> str:
        """The first paragraph of the docstring, whole."""
        return str(self.help).partition("\n\n")[0]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave out the settings that are not given."""
        rest = super().parse_args(ctx, args)
        for name in self.settings:
            if ctx.params[name] is None:
                del ctx.params[name]
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then its settings, panel by panel."""
        options = [param for param in self.get_params(ctx) if not isinstance(param, click.Argument)]
        records = {param.name: param.get_help_record(ctx) for param in options}
        whole = not self.brief or ctx.meta.get(ASIDE, False)
        for panel in PANELS:
            names = [name for name in panel.__annotations__ if name in self.settings]
            if not names or not (panel.shown or whole):
                continue
            with formatter.section(str(panel.__doc__).rstrip(".")):
                formatter.write_dl([record for name in names if (record := records[name])])
        own = [record for name, record in records.items() if name not in self.settings and record]
        with formatter.section("Options"):
            formatter.write_dl(own)


PATH = Word(Path)
command = partial(click.command, cls=Command)
the_run = click.argument("path", type=PATH, metavar="RUN", help="its directory, runs/NAME")
consenting = click.option(
    "--yes", is_flag=True, help="a run from elsewhere may use what it names: programs, endpoints, files outside of it"
)


class CommandLine(click.Group):
    """All commands; without one, `run`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of that name, or a sentence with those like it."""
        found = super().get_command(ctx, cmd_name)
        if found is None:
            hint = meant(cmd_name, self.commands, 3, said=str) or f"commands are {', '.join(self.commands)}"
            raise SettingsError(f"there is no command {cmd_name!r}: {hint}")
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are defined."""
        return list(self.commands)

    def carry_out(self, arguments: Sequence[str]) -> int:
        """Carry out one command line; returns the exit status.

        Raises:
            SettingsError: an unknown command or option, or a value of the wrong kind.
            SelfPrunerError: whatever a person can act on.
        """
        words = list(arguments)
        if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
            words.insert(0, "run")
        with refused(words):
            try:
                with self.make_context("main.py", words) as ctx:
                    return int(self.invoke(ctx))
            except click.exceptions.Exit as ended:  # help or the version was asked for and is written
                return ended.exit_code
            except click.UsageError as error:
                refuse(error)


def refuse(error: click.UsageError) -> NoReturn:
    """Raise what click found as one sentence."""
    if isinstance(error, click.NoSuchOption):
        near = " or ".join(error.possibilities or ())
        fault = f"there is no option {error.option_name}" + (f": did you mean {near}?" if near else "")
    elif isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter) and error.param:
        fault = f"{error.param.opts[-1]}: {error.message.rstrip('.')}"
    else:
        fault = error.format_message().rstrip(".")
        fault = fault[:1].lower() + fault[1:]
    asked = error.ctx.command_path if error.ctx else "main.py"
    raise SettingsError(f"{fault} (python {asked} --help shows what is allowed)") from None


def option(name: str, text: str | None = None) -> click.Option:
    """The option of a setting, its description as its help; None where it is not given."""
    field = Settings.model_fields[name]
    kind, words = _plain(field.annotation), "--" + name.replace("_", "-")
    said = text or str(field.description)
    if kind is bool:
        said += "" if text else f" (default {'on' if field.default else 'off'})"
        return click.Option([f"{words}/--no-{words[2:]}"], default=None, help=said)
    if get_origin(kind) is Literal:
        said += f": {', '.join(map(str, get_args(kind)))}"
    if field.default is not None and text is None:
        shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        said += f" (default {shown})"
    if get_origin(kind) is tuple:
        return click.Option([words], type=Word(_numbers), metavar="N,N", help=said)
    if kind in (int, float):
        return click.Option([words], type=Word(partial(_number, words, kind, field)), metavar="X", help=said)
    return click.Option([words], type=Word(Path if kind is Path else str), metavar="X", help=said)


def candidate_name(text: str) -> str:
    """The id of a candidate, which cannot be empty."""
    if not text.strip():
        raise ValueError("it is empty; name a candidate, such as c12, or leave the option out")
    return text


def program_version() -> str:
    """The version that is installed."""
    try:
        return version("self-pruner")
    except PackageNotFoundError:
        return "not installed"


def _help_all(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        ctx.meta[ASIDE] = True
        click.echo(ctx.get_help())
        ctx.exit()


def _plain(annotation: Any) -> Any:
    """The type behind Optional and Annotated; str where there are several, for the settings to choose between."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation, *others = (kind for kind in get_args(annotation) if kind is not type(None))
        if others:
            return str
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _number(words: str, kind: type[int] | type[float], field: FieldInfo, text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{words}: {refusal(field, text)}") from None


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers such as 1024,4096") from None
