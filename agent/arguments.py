"""The command line, made from the settings: one option a field, its description as its help."""

from __future__ import annotations

import argparse
import types
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from self_pruner.agent.settings import IN_TIME, Settings, SettingsError

COMMANDS = (
    *("run", "compare", "resume", "report", "trace", "export", "verify", "evaluate", "tasks"),
    *("latency-table", "bench-shapes"),
)


class Parser(argparse.ArgumentParser):
    """Raises a sentence instead of printing a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise SettingsError; see `python main.py --help`."""
        raise SettingsError(f"{message} (python main.py --help shows what is allowed)")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options; `run` where no command is named.

    Raises:
        SettingsError: an unknown command or option, or a value of the wrong kind.
    """
    words = list(arguments)
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        near = get_close_matches(words[0], COMMANDS)
        meant = f"did you mean {' or '.join(near)}?" if near else f"commands are {', '.join(COMMANDS)}"
        raise SettingsError(f"there is no command {words[0]!r}: {meant}")
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")
    return _parser().parse_args(words)


def given(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names."""
    return {name: value for name, value in vars(namespace).items() if name in Settings.model_fields}


def _parser() -> Parser:
    parser = Parser(
        prog="main.py",
        description="A large language model that prunes itself. Without a command: run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Examples:\n  python main.py --sparsity 0.3\n  python main.py --model llama-2-70b --params 49B\n"
        "  python main.py resume runs/smollm2-135m-20260101-120000",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    run = commands.add_parser("run", help="prune a model (the default)", allow_abbrev=False)
    _add_settings(run)
    run.add_argument("--dry-run", action="store_true", help="say what the run would cost, and stop before it begins")
    compare = commands.add_parser("compare", help="several arms at equal cost", allow_abbrev=False)
    _add_settings(compare, without=("arm", "sparsity", "params", "seed", "memory", "latency_table", *IN_TIME))
    compare.add_argument(
        "--arm",
        action="append",
        default=[],
        dest="arms",
        metavar="A",
        help="an arm to compare: NAME, NAME:PROMPTS, NAME+SETTING=VALUE; given once for each",
    )
    compare.add_argument(
        "--arms",
        action="extend",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="several arms at once, where no setting of theirs has a comma",
    )
    compare.add_argument("--seeds", default="3", metavar="N", help="how many seeds, or which: 0,3,7 (default 3)")
    compare.add_argument("--sparsity", default="0.3", metavar="S,S", dest="sparsities", help="shares to remove")
    compare.add_argument(
        "--into", type=Path, help="folder of the comparison; where there is one already, it goes on and grows"
    )
    compare.add_argument(
        "--from",
        type=Path,
        action="append",
        default=[],
        dest="finished",
        metavar="FOLDER",
        help="another comparison with the same settings, a folder or its results.json: runs that are finished there "
        "count and are not run again; may be given several times",
    )
    _add_consent(compare)
    verify = commands.add_parser(
        "verify", help="compare what vLLM writes with an exported checkpoint, token by token", allow_abbrev=False
    )
    verify.add_argument("folder", type=Path, help="exported checkpoint")
    _add_settings(verify, only=("vllm_python", "tensor_parallel", "trust_remote_code"))
    evaluate = commands.add_parser(
        "evaluate",
        help="the seven tasks and perplexity of an exported checkpoint beside its dense model; it goes on where it was",
        allow_abbrev=False,
    )
    evaluate.add_argument("folder", type=Path, help="exported checkpoint, or the run that it is of")
    _add_settings(
        evaluate,
        only=("revision", "trust_remote_code", "device", "dtype", "task_rows", "task_data", "cache"),
    )
    evaluate.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        metavar="X",
        help="alias, hub id or local folder of the dense model (default: the one that the folder was cut from)",
    )
    evaluate.add_argument(
        "--perplexity-text",
        metavar="X",
        help="wikitext2 or a .txt/.jsonl file, read in full (default wikitext2, where it can be had)",
    )
    evaluate.add_argument(
        "--perplexity-length",
        type=int,
        metavar="N",
        help="tokens of a window (default: the sequence length of the run that made the folder)",
    )
    evaluate.add_argument("--batch", type=int, metavar="N", help="questions side by side (default 8, on a GPU 32)")
    evaluate.add_argument(
        "--dense",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the dense model beside it (on unless told otherwise)",
    )
    timing = (
        *("model", "revision", "device", "dtype", "mlp_unit", "target", "tensor_parallel", "seed", "cache"),
        *("latency_prompt", "latency_decode", "latency_batch", "latency_repeats"),
    )
    engine = ("engine", "vllm_python", "compensation")
    table = commands.add_parser(
        "latency-table", help="milliseconds of every width here, and how well they predict", allow_abbrev=False
    )
    _add_settings(table, only=(*timing, *engine, "sparsity", "params"))
    table.add_argument("--output", type=Path, help="file for a copy of it, for --latency-table elsewhere")
    shapes = commands.add_parser(
        "bench-shapes", help="speed-up of pruned shapes with random weights, also of giants", allow_abbrev=False
    )
    _add_settings(shapes, only=(*timing, *engine))
    shapes.add_argument("--params", required=True, metavar="N,N", dest="counts", help="parameters to keep: 49B,35B")
    shapes.add_argument("--layers", type=int, metavar="N", help="layers that are timed (default: what memory holds)")
    for name, text in (
        ("resume", "go on with a run or a comparison that was stopped or killed"),
        ("report", "write report.html anew and show the result"),
        ("trace", "show what was said and done, step by step"),
        ("export", "write the best profile of a run as a checkpoint"),
        ("tasks", "measure the seven zero-shot tasks for a finished run; run again, it goes on where it was"),
    ):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument("run", type=Path, help="run directory")
        if name in ("resume", "export", "tasks"):
            _add_consent(command)
        if name == "trace":
            command.add_argument("--step", type=int, help="show this step in full, with its prompt")
        if name == "tasks":
            command.add_argument(
                "--candidate", type=_name, help="id of a candidate to add (default: the models of the final table)"
            )
            _add_settings(command, only=("task_rows", "task_data"))
        if name == "export":
            command.add_argument(
                "--candidate", type=_name, help="id of the candidate (default: the one that was found)"
            )
            command.add_argument("--output", type=Path, required=True, help="folder or file to write, must not exist")
            command.add_argument(
                "--format",
                default="transformers",
                metavar="X",
                help="transformers (a folder) or gguf (a file, llama.cpp)",
            )
            command.add_argument(
                "--type", metavar="X", help="with --format gguf: f32, f16 or bf16 (default: as the weights are)"
            )
    return parser


def _add_consent(parser: argparse.ArgumentParser) -> None:
    text = "a run from elsewhere may use what it names: programs, endpoints, files outside of it"
    parser.add_argument("--yes", action="store_true", help=text)


def _add_settings(
    parser: argparse.ArgumentParser, without: Sequence[str] = (), only: Sequence[str] = tuple(Settings.model_fields)
) -> None:
    for name, field in Settings.model_fields.items():
        if name in without or name not in only:
            continue
        option = "--" + name.replace("_", "-")
        text = str(field.description).replace("%", "%%")
        kind = _plain(field.annotation)
        if field.default is not None and kind is not bool:
            shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
            text += f" (default {shown})"
        if kind is bool:
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text, dest=name
            )
        elif get_origin(kind) is tuple:
            parser.add_argument(option, type=_numbers, default=argparse.SUPPRESS, help=text, metavar="N,N", dest=name)
        elif get_origin(kind) is Literal:
            choices = ", ".join(map(str, get_args(kind)))
            parser.add_argument(option, default=argparse.SUPPRESS, help=f"{text}: {choices}", metavar="X", dest=name)
        else:
            caster = kind if kind in (int, float, Path) else str
            parser.add_argument(option, type=caster, default=argparse.SUPPRESS, help=text, metavar="X", dest=name)


def _plain(annotation: Any) -> Any:
    """The type behind Optional and Annotated."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 1024,4096") from None


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; name a candidate, such as c12, or leave the option out")
    return text


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("self-pruner")
    except PackageNotFoundError:
        return "not installed"
