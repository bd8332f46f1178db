"""The model card: dense, uniform and found side by side, how to load the checkpoint and how to make it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from self_pruner.memory.profile import Profile
from self_pruner.tools.export.serving import Serving
from self_pruner.tools.profiles.space import Space

if TYPE_CHECKING:  # it takes a second to load, and tables of a card need none of it
    from huggingface_hub import ModelCard

TEMPLATE = Path(__file__).with_name("card.md.j2")
Result = Literal["found", "found, recalibrated"]
_ENGINES: dict[Serving, str] = {
    "transformers": "vLLM, through its transformers backend, with this folder's code",
    "vllm": "vLLM, through its transformers backend, with this folder's code",
    "vllm-native": "vLLM, with its own class DeciLM; the folder's code is read for its config alone",
    "uniform": "vLLM, with its own class of this family",
}
EVALUATION_BEGIN, EVALUATION_END = "<!-- evaluation -->", "<!-- /evaluation -->"
LOADING = "## How to load it\n"
UNMEASURED, MEASURED = "task accuracy and safety behaviour were not", "safety behaviour was not"
_TRUST = ", trust_remote_code=True"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class CardRow:
    """One model of the comparison; None is shown as not measured."""

    name: str  # dense, uniform, the best baseline, found; found, recalibrated
    parameters: int
    kl: float | None = None  # from the dense model, nats a token
    perplexity: float | None = None
    prefill_ms: float | None = None  # the whole prompt
    decode_ms: float | None = None  # a token
    tokens_per_second: float | None = None  # while decoding


@dataclass(frozen=True, slots=True)
class CardTasks:
    """The models on zero-shot tasks, as text."""

    header: tuple[str, ...]  # the first column has no name
    rows: tuple[tuple[str, ...], ...]
    measured_on: str  # a sentence: harness, rows, metrics


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Everything the card states that the tensors do not."""

    base_model: str  # hub id, or the name of a folder
    family: str  # llama, mistral, qwen2, qwen3
    sparsity: float | None  # asked for, share of decoder-block parameters; None where a time alone was asked for
    rows: tuple[CardRow, ...]
    measured_on: str  # text, tokens and sequence length of KL and perplexity
    command: str  # the exact command line
    brain: str | None = "the target model"  # what made the decisions; None where no brain was asked
    license: str | None = None  # hub identifier of the base model's licence, None if unknown
    latency_setting: str | None = None  # device, batch, prompt and decoded tokens
    calibration: str = ""  # text, tokens, digest
    compensation: str = "none"
    exported: Result = "found"  # which row is the checkpoint
    settings: Mapping[str, object] = field(default_factory=dict)  # resolved, seeds among them
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""  # of the base model's weights
    tasks: CardTasks | None = None  # None where they were not measured
    serving: Serving = "transformers"
    tensor_parallel: int = 1  # devices that share a layer
    again: str = ""  # what it takes to make the same again
    time: str = ""  # asked for, in words
    candidate: str | None = None  # of the search, where this is another one than it found
    tokenizer_code: bool = False  # whether the tokenizer brings code of its own
    local: bool = False  # the base model is a folder of the machine that made this: its name helps nobody to find it


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "cell": _cell, "fence": _fence}
    return environment.get_template(TEMPLATE.name)


def model_card(facts: CardFacts, profile: Profile, space: Space) -> ModelCard:
    """The card of the checkpoint that `profile` makes; its header is what the hub reads."""
    from huggingface_hub import ModelCard, ModelCardData

    brings_code = facts.serving != "uniform" or facts.tokenizer_code
    page = _template().render(
        facts=facts,
        asked=_asked(facts),
        whom="found" if facts.candidate is None else f"candidate {facts.candidate}",
        trust=_trust(facts.serving),
        tokenizer_trust=_TRUST if brings_code else "",
        engine=_ENGINES[facts.serving],
        serve=serve_command(facts.serving, facts.tensor_parallel, facts.tokenizer_code),
        rows=facts.rows,
        profile=profile,
        space=space,
        groups=[groups for groups, _ in space.sizes(profile)],
        dense_groups=space.n_groups * space.attention_unit,
        channels=[channels for _, channels in space.sizes(profile)],
        dense_channels=space.n_blocks * space.mlp_unit,
        parameters=space.params(profile),
        dense_parameters=space.dense_params,
        reached=space.sparsity(profile),
    )
    # The header is written by the hub's own class, so a name with a colon or a quote cannot break the YAML.
    data = ModelCardData(
        license=facts.license,
        base_model=facts.base_model if _HUB_ID.fullmatch(facts.base_model) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["self-pruner", "structured-pruning", *(["custom_code"] if brings_code else []), facts.family],
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{page}")


def with_evaluation(page: str, table: CardTasks, command: str) -> str:
    """A card with the table of `main.py evaluate`, in the place of an earlier one or before how to load the model."""
    lines = [
        EVALUATION_BEGIN,
        "## This folder beside the dense model",
        "",
        f"| {' | '.join(map(_cell, table.header))} |",
        f"| ---{' | ---:' * (len(table.header) - 1)} |",
        *(f"| {' | '.join(map(_cell, row))} |" for row in table.rows),
        "",
        _cell(table.measured_on),
        "",
        _fence(command, "sh"),
        EVALUATION_END,
        "",
        "",
    ]
    section = "\n".join(lines)
    page = page.replace(UNMEASURED, MEASURED)
    before, begin, rest = page.partition(EVALUATION_BEGIN)
    if begin and EVALUATION_END in rest:
        return before + section + rest.partition(EVALUATION_END)[2].lstrip("\n")
    before, heading, rest = page.partition(LOADING)
    return before + section + heading + rest if heading else f"{page.rstrip()}\n\n{section}"


def load_call(folder: str, serving: Serving) -> str:
    """The call of transformers that loads a checkpoint which is made to be served so."""
    return f"AutoModelForCausalLM.from_pretrained({folder!r}{_trust(serving)})"


def _asked(facts: CardFacts) -> str:
    """The share of parameters or the time that the result was to have, or both."""
    share = "" if facts.sparsity is None else f"{100 * facts.sparsity:.2f}%"
    return " and ".join(filter(None, (share, facts.time)))


def _trust(serving: Serving) -> str:
    """The argument without which transformers refuses a checkpoint that brings code of its own."""
    return "" if serving == "uniform" else _TRUST


def serve_command(serving: Serving, tensor_parallel: int = 1, tokenizer_code: bool = False) -> str:
    """How vLLM serves a checkpoint in the folder one is in."""
    words = ["vllm serve ."]
    if serving != "uniform" or tokenizer_code:
        words.append("--trust-remote-code")
    if serving in ("transformers", "vllm"):
        words.append("--model-impl transformers")
    if tensor_parallel > 1:
        words.append(f"--tensor-parallel-size {tensor_parallel}")
    return " ".join(words)


def _number(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:,.{digits}f}"


def _cell(text: str) -> str:
    """Text inside a table row or a sentence: one line, no column of its own."""
    return " ".join(text.split()).replace("|", "\\|")


def _fence(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
