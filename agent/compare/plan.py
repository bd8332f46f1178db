"""The plan of a comparison: which arms, at which sparsities, from which seeds, and what may differ between them.

An arm is written `name`, `name:PROMPTS` (a prompt set, or a folder whose files replace those of the arm's own set), or
either with settings of its own after plus signs: `hybrid+temperature=0.3`, `evolution+fidelity=4096+offspring=6`. So
every ablation of the search is a comparison like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from self_pruner.agent.compare.kinds import kind_of
from self_pruner.agent.settings.arms import ARM_NAMES, ARMS, Arm
from self_pruner.agent.settings.meaning import meaning_of
from self_pruner.agent.settings.settings import IN_TIME, Settings, make_settings
from self_pruner.memory.errors import SettingsError, meant
from self_pruner.prompts.files import available_sets
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest

# What all arms must share, or what says where things are kept; neither can be set for a single arm.
SHARED = (
    *("model", "revision", "trust_remote_code", "device", "dtype", "arm", "sparsity", "params", "seed"),
    *("runs", "memory", "cache", "reporting_text", "reporting_tokens", "sequence_length", "prompts", "prompt_set"),
    *("remembered", "export", "latency_table", *IN_TIME),  # no times: arms are compared at sparsities
)
# What the elastic model and its measuring instruments are made from: runs that agree in these share one preparation.
PREPARED = (
    *("model", "revision", "trust_remote_code", "device", "dtype", "mlp_unit", "importance", "compensation"),
    *("target", "tensor_parallel", "engine", "vllm_python", "llama_python"),
    *("calibration", "fitness_text", "reporting_text", "calibration_sequences", "calibration_length"),
    *("sequence_length", "reporting_tokens", "final_tokens", "sensitivity_tokens", "cache"),
)
MOST_SEEDS = 1_000  # in a count


@dataclass(frozen=True)
class ArmSpec:
    """One arm as it was written, and what it means."""

    text: str
    arm: Arm
    overrides: dict[str, Any]
    base: Path = Path()  # the folder that relative paths in it are in

    @property
    def folder(self) -> str:
        """How the folders of its runs begin."""
        return re.sub(r"[^A-Za-z0-9.=+-]+", "_", self.text)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison."""

    spec: ArmSpec
    sparsity: float
    seed: int
    settings: Settings

    @property
    def slug(self) -> str:
        """Its folder's name: the arm, the sparsity in percent, the seed."""
        return f"{self.spec.folder}-{_in_percent(self.sparsity)}-seed{self.seed}"

    @property
    def meaning(self) -> str:
        """What its arm is, in words."""
        own = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in self.spec.overrides.items())
        return meaning_of(self.settings) + (f" ({own})" if own else "")

    def prompts(self, own: Path | None = None) -> str | None:
        """The digest of the prompt set that its brain reads; None where it asks none.

        Args:
            own: the copy that the run has of it; None before it has one.

        Raises:
            SettingsError: the set is not there.
            PromptError: a file of it cannot be read.
        """
        settings = self.settings
        if kind_of(self.spec.arm.name, settings.model_dump()) != "brain":
            return None
        return digest(PromptSet(settings.prompts_of_arm, own or settings.prompts))

    @property
    def preparation(self) -> tuple[Any, ...]:
        """What it needs prepared: equal for runs that can share it."""
        settings = self.settings
        own = (settings.fidelity[-1], settings.sensitivities > 0, settings.other_brain, settings.own_vllm)
        return (*(getattr(settings, name) for name in PREPARED), *own)


def parse_arms(texts: Sequence[str], places: Mapping[str, str] = MappingProxyType({})) -> list[ArmSpec]:
    """The arms in the order in which they are written.

    Args:
        texts: the arms.
        places: by arm the folder that relative paths in it are in; the working directory for others.

    Raises:
        SettingsError: an unknown arm, prompt set or setting, an arm named twice, or none at all.
    """
    words = [text.strip() for text in texts]
    if not any(words):
        raise SettingsError(f"--arm needs at least one of {', '.join(ARM_NAMES)}")
    for word in words:
        if words.count(word) > 1:
            raise SettingsError(f"--arm names {word!r} twice")
    arms = [parse_arm(word, Path(places.get(word, ""))) for word in words]
    folders: dict[str, str] = {}
    for arm in arms:
        if (other := folders.setdefault(arm.folder, arm.text)) != arm.text:
            raise SettingsError(f"--arm: {other!r} and {arm.text!r} would share the folder {arm.folder}: rename one")
    return arms


def parse_arm(text: str, base: Path = Path()) -> ArmSpec:
    """One arm; see `parse_arms`."""
    named, *settings = text.split("+")
    name, _, prompts = named.partition(":")
    if name not in ARMS:
        hint = meant(name, ARM_NAMES, after="") or "an arm whose settings have commas needs an --arm of its own"
        raise SettingsError(f"--arm: there is no arm {name!r}: {hint}; the arms are {', '.join(ARM_NAMES)}")
    arm = ARMS[name]
    overrides: dict[str, Any] = {}
    if prompts:
        if not arm.asks_brain:
            raise SettingsError(f"--arm: {name!r} reads no prompts, so {text!r} can't name any")
        if prompts in available_sets():
            overrides["prompt_set"] = prompts
        elif (base / prompts).is_dir():
            overrides["prompts"] = (base / prompts).resolve()
        else:
            sets = ", ".join(available_sets())
            raise SettingsError(f"--arm: {prompts!r} is no prompt set and no folder; the sets are {sets}")
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in Settings.model_fields:
            known = (field.replace("_", "-") for field in Settings.model_fields)
            hint = meant(key.replace("_", "-"), known, before=": ", after="")
            raise SettingsError(f"--arm: {setting!r} in {text!r} is no setting=value{hint}")
        if key in SHARED:
            raise SettingsError(f"--arm: {key.replace('_', '-')} is the same for all arms, so {text!r} can't set it")
        overrides[key] = _whole_numbers(value) if key == "fidelity" else value  # pydantic makes of it what it is
    return ArmSpec(text, arm, overrides, base)


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise SettingsError(f"--arm: {text!r} is not a list of whole numbers such as 1024,4096") from None


def plan(
    base: Settings, specs: Sequence[ArmSpec], sparsities: Sequence[float], seeds: Sequence[int]
) -> list[PlannedRun]:
    """Every run, closed forms first and only once a sparsity, then seed by seed, so that early results compare.

    Raises:
        SettingsError: settings that contradict each other, in the words of the command line, or two sparsities that
            differ by less than the name of a folder tells.
    """
    named: dict[str, float] = {}
    for sparsity in sparsities:
        if (other := named.setdefault(_in_percent(sparsity), sparsity)) != sparsity:
            raise SettingsError(f"--sparsity: {other} and {sparsity} would share folders: leave one of them out")
    closed = [spec for spec in specs if not spec.arm.searches]
    searching = [spec for spec in specs if spec.arm.searches]
    wanted = [(spec, sparsity, seed) for seed in seeds[:1] for sparsity in sparsities for spec in closed]
    wanted += [(spec, sparsity, seed) for seed in seeds for sparsity in sparsities for spec in searching]
    runs = []
    for spec, sparsity, seed in wanted:
        own = {"arm": spec.arm.name, "sparsity": sparsity, "params": None, "seed": seed}
        settings = make_settings(base.model_dump() | spec.overrides | own)
        runs.append(PlannedRun(spec, sparsity, seed, settings.anchored(spec.base)))
    return runs


def _in_percent(sparsity: float) -> str:
    return f"{100 * sparsity:g}"


def parse_sparsities(text: str) -> tuple[float, ...]:
    """Shares such as `0.2,0.3,0.5`.

    Raises:
        SettingsError: something else, or one of them twice.
    """
    try:
        shares = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise SettingsError(f"--sparsity: {text!r} is not a list of shares such as 0.2,0.3,0.5") from None
    if not all(0 < share < 1 for share in shares) or len(set(shares)) < len(shares):
        raise SettingsError(f"--sparsity takes different shares between 0 and 1, got {text}")
    return shares


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` for seeds 0 to 4, or a list such as `0,3,7`.

    Raises:
        SettingsError: something else, or a count that was meant as a seed.
    """
    try:
        numbers = tuple(int(word) for word in text.removesuffix(",").split(","))
    except ValueError:
        raise SettingsError(f"--seeds: {text!r} is neither a count such as 5 nor a list such as 0,3,7") from None
    if len(numbers) == 1 and "," not in text:
        if numbers[0] > MOST_SEEDS:
            raise SettingsError(
                f"--seeds: {text} is a count, of at most {MOST_SEEDS:,}; a single seed is written with a comma: {text},"
            )
        numbers = tuple(range(numbers[0]))
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise SettingsError(f"--seeds takes a count of at least 1 or different seeds from 0 up, got {text}")
    return numbers
