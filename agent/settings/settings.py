"""Every knob of a run, in one place: checked once at the door, frozen afterwards, written to `settings.toml`.

The fields are in `panels.py`, panel by panel; here is what must agree among them, and what follows from them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from self_pruner.agent.settings.allowed import refusal
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.former import without_former
from self_pruner.agent.settings.panels import (
    BRAINS,
    CONTROLS,
    HYPOTHESES,
    PLAN_FIELDS,
    Amounts,
    Asking,
    Budget,
    Cutting,
    Deciding,
    Ending,
    Model,
    Places,
    Result,
    Searching,
    ServedBy,
    Telemetry,
    Texts,
    Timing,
    fields_of_plan,
)
from self_pruner.memory.errors import SettingsError
from self_pruner.memory.paths import expanded
from self_pruner.tools.models.aliases import anchored
from self_pruner.tools.profiles.budget import parse_params
from self_pruner.tools.profiles.shifts import LINE
from self_pruner.tools.text.local import anchored_text

IN_TIME = ("speedup", "latency_ms")  # budgets in time; a latency table tells what they mean
DEFAULT_SPARSITY = 0.2  # where no budget is given
THOUGHT_TOKENS = 32  # before each call of a brain that is large enough to think, where nothing else is asked for
THINKS_FROM = 1_000_000_000  # parameters of a brain; smaller ones write little sense before a call
SENSITIVITY_WINDOWS = 4  # measurements of first-order sensitivities before their text begins anew


class Settings(
    Telemetry,
    Timing,
    Searching,
    Asking,
    Amounts,
    Cutting,
    Places,
    Result,
    Ending,
    Deciding,
    Texts,
    ServedBy,
    Budget,
    Model,
):
    """The settings of one run; the panels are named from the last to the first, as pydantic takes their fields."""

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, values: Any) -> Any:
        """What one setting says of another that is not given.

        Layers of one width leave so few profiles that all are measured; an endpoint is there to be asked.
        """
        if isinstance(values, dict) and values.get("target") == "uniform":
            values = {"arm": "uniform", **values}
        if isinstance(values, dict) and values.get("brain_url") is not None:
            values = {"brain": "vllm", **values}
        return values

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.target == "uniform" and self.arm != "uniform":
            raise ValueError(
                f"--target uniform leaves so few profiles that --arm uniform measures all of them: {self.arm} has "
                "nothing to search"
            )
        if self.brain_url is not None and self.brain != "vllm":
            raise ValueError(f"--brain-url is where --brain vllm is asked, and --brain {self.brain} is asked here")
        if self.brain_url is not None:
            _check_address(self.brain_url)
        if self.brain_quantization is not None and (self.brain_url is not None or self.brain not in ("vllm", "self")):
            raise ValueError("--brain-quantization is for a vLLM of the run's own: --brain vllm without --brain-url")
        if self.brain_model is not None and self.brain_url is None:
            raise ValueError("--brain-model is what --brain-url serves: give both")
        if self.otel_content and not self.otel:
            raise ValueError("--otel-content says what --otel sends: give both or neither")
        if self.tensor_parallel > 1 and self.target == "transformers":
            raise ValueError("--tensor-parallel is for --target vllm, vllm-native or uniform")
        if self.ray_address is not None and self.workers == 1:
            raise ValueError("--ray-address is for several workers, and --workers 1 computes in this process")
        if (self.ray_address is not None or self.workers not in (1, "auto")) and self.device.startswith("cuda:"):
            raise ValueError(f"--device {self.device} is one GPU, and workers have one each: give --device cuda")
        if self.sparsity is not None and self.params is not None:
            raise ValueError("--sparsity and --params state the same target: give only one of them")
        if self.speedup is not None and self.latency_ms is not None:
            raise ValueError("--speedup and --latency-ms state the same target: give only one of them")
        if self.in_time and self.target == "uniform":
            raise ValueError("--target uniform takes --sparsity or --params, not a budget in time")
        if self.latency_table is not None and not self.in_time:
            raise ValueError("--latency-table predicts what --speedup or --latency-ms ask for: give one of them")
        if list(self.fidelity) != sorted(set(self.fidelity)):
            raise ValueError(f"--fidelity must grow from stage to stage, got {','.join(map(str, self.fidelity))}")
        for name, tokens in [
            *[("fidelity", stage) for stage in self.fidelity],
            ("probe-tokens", self.probe_tokens),
            ("sensitivity-tokens", self.sensitivity_tokens),
            ("final-tokens", self.final_tokens),
            ("reporting-tokens", self.reporting_tokens),
        ]:
            if tokens % self.sequence_length:
                raise ValueError(
                    f"--{name} must be a multiple of --sequence-length ({self.sequence_length}), got {tokens}"
                )
        if self.probe_tokens > self.fidelity[-1]:
            raise ValueError(f"--probe-tokens must be at most the last --fidelity ({self.fidelity[-1]})")
        for name, texts in (("fitness-text", self.fitness_texts), ("reporting-text", self.reporting_texts)):
            if not all(texts) or len(set(texts)) < len(texts):
                raise ValueError(f"--{name} takes a text or different texts with commas between, got {','.join(texts)}")
        if self.task_data is not None and not self.tasks:
            raise ValueError("--task-data is where --tasks are read from: give both")
        labels = [text_label(text) for text in self.reporting_texts]
        if len(set(labels)) < len(labels):
            raise ValueError(f"--reporting-text takes files of different names, got {', '.join(labels)}")
        if self.params is not None:
            parse_params(self.params)
        if self.autonomy == "free" and not ARMS[self.arm].asks_brain:
            raise ValueError(f"--autonomy free is for an arm that asks a brain: {self.arm} asks none")
        if unknown := [name for name in fields_of_plan(self.plan) if name not in PLAN_FIELDS]:
            raise ValueError(
                f"--plan: {unknown[0]!r} is no part of a plan: give brain, rule or some of {', '.join(PLAN_FIELDS)}"
            )
        if self.brain_share is not None and "hypotheses" not in self._asked_to_plan:
            raise ValueError(
                "--brain-share is what a brain that states hypotheses makes of the offspring: it takes --arm hybrid, "
                "--autonomy guided, and a --plan that has hypotheses in it"
            )
        if int((self.brain_share or 0.0) * self.offspring + 0.5) > (most := HYPOTHESES * len(LINE)):
            raise ValueError(
                f"--brain-share {self.brain_share:g} of --offspring {self.offspring} is more than {most} candidates, "
                "which is all that the hypotheses of a plan make"
            )
        if self.population > self.offspring:
            raise ValueError(f"--population must be at most --offspring, got {self.population} and {self.offspring}")
        return self

    @property
    def in_time(self) -> bool:
        """Whether a budget in time is asked for."""
        return self.speedup is not None or self.latency_ms is not None

    def without_time(self) -> Settings:
        """The same without a budget in time, which needs a latency table that is there already."""
        return self.model_copy(update=dict.fromkeys(IN_TIME))

    @property
    def prompts_of_arm(self) -> str:
        """The prompt set: as given, or the arm's own."""
        return self.prompt_set or ARMS[self.arm].prompt_set

    @property
    def planned(self) -> tuple[str, ...]:
        """What of a generation's plan the brain decides; () where its arm asks for none, or nothing is its to make."""
        return tuple(name for name in self._asked_to_plan if self.brain_share != 0 or name != "hypotheses")

    @property
    def _asked_to_plan(self) -> tuple[str, ...]:
        return fields_of_plan(self.plan) if ARMS[self.arm].plans and self.autonomy == "guided" else ()

    @property
    def recalibrates(self) -> bool:
        """Whether a run recalibrates what it found."""
        return self.recalibrate and self.compensation == "lstsq"

    @property
    def memory_path(self) -> Path:
        """The memory file: as given, or beside the runs."""
        return self.memory or self.runs / "memory.sqlite"

    def anchored(self, base: Path = Path()) -> Settings:
        """The same with absolute paths, relative ones being in `base`, so that a run can be resumed from any folder."""
        update: dict[str, Any] = {"runs": (base / self.runs).resolve(), "memory": (base / self.memory_path).resolve()}
        for name in ("cache", "prompts", "task_data", "latency_table"):
            if (path := getattr(self, name)) is not None:
                update[name] = (base / path).resolve()
        for name in ("vllm_python", "llama_python"):  # a link is what makes an environment: it is not followed
            if (path := getattr(self, name)) is not None:
                update[name] = Path(os.path.abspath(base / expanded(path)))
        update["model"] = anchored(self.model, base)
        if self.brain not in BRAINS:
            update["brain"] = anchored(self.brain, base)
        for name in ("calibration", "fitness_text", "reporting_text"):
            update[name] = ",".join(anchored_text(text, base) for text in getattr(self, name).split(","))
        return self.model_copy(update=update)

    @property
    def reads(self) -> bool:
        """Whether the brain reads prompts; scripted controls do not."""
        return self.brain not in CONTROLS

    @property
    def other_brain(self) -> str | None:
        """Which model is asked in this process where it is not the target model."""
        return self.brain if self.brain not in BRAINS and ARMS[self.arm].asks_brain else None

    @property
    def own_vllm(self) -> bool:
        """Whether the target model is asked in a vLLM that the run starts."""
        return self.brain == "vllm" and self.brain_url is None and ARMS[self.arm].asks_brain

    def thought_limit(self, parameters: int) -> int:
        """Tokens of thought before each call, of a brain of so many parameters; 0 for none.

        What is served at --brain-url may be of any size, so it counts as large enough.
        """
        if self.thought_tokens != "auto":
            return self.thought_tokens
        return 0 if self.brain_url is None and parameters < THINKS_FROM else THOUGHT_TOKENS

    @property
    def fitness_texts(self) -> tuple[str, ...]:
        """The texts that the search is measured on, in turn."""
        return tuple(self.fitness_text.split(","))

    @property
    def reporting_texts(self) -> tuple[str, ...]:
        """The texts of the reported figures, the main one first."""
        return tuple(self.reporting_text.split(","))

    @property
    def ranking_tokens(self) -> int:
        """Tokens of the fitness text that candidates are ranked on, and those of the final choice."""
        return self.fidelity[-1] + self.final_tokens

    @property
    def fitness_tokens(self) -> int:
        """Tokens of the fitness text in all: those, and others for sensitivities where they are measured."""
        windows = SENSITIVITY_WINDOWS if self.sensitivities and ARMS[self.arm].learns else 0
        return self.ranking_tokens + windows * self.sensitivity_tokens

    def sequences(self, tokens: int) -> int:
        """Number of fitness sequences in `tokens` tokens."""
        return tokens // self.sequence_length

    def to_toml(self) -> dict[str, Any]:
        """The settings as plain values, without those that are None."""
        return self.model_dump(mode="json", exclude_none=True)


def _check_address(url: str) -> None:
    """Refuse an address that is none, or that would carry a key into settings.toml, whoever is asked in the end."""
    from self_pruner.agent.brain.endpoint import EndpointError, checked_url  # not above: it takes an HTTP client

    try:
        checked_url(url)
    except EndpointError as error:
        raise ValueError(str(error)) from None


def text_label(text: str) -> str:
    """The name of a text as figures state it: of a file its own name, without the folders it lies in."""
    return Path(text).name if Path(text).suffix else text


def make_settings(values: dict[str, Any]) -> Settings:
    """Settings from plain values.

    Raises:
        SettingsError: one sentence for the first fault, naming the option, the value and what is allowed.
    """
    values = without_former(values)
    try:
        return Settings(**values)
    except SettingsError as error:
        raise SettingsError(f"--params: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            raise SettingsError(fault["msg"].removeprefix("Value error, ")) from None
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            raise SettingsError(f"unknown setting {name!r}") from None
        refused = refusal(Settings.model_fields[name], fault["input"])
        raise SettingsError(f"--{name.replace('_', '-')}: {refused}") from None
