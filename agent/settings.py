"""Every knob of a run, in one place: checked once at the door, frozen afterwards, written to `settings.toml`.

The command line is made from this model (`agent/arguments.py`), so a field's description is also its help text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from self_pruner.agent.arms import ARMS, ArmName
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.tools.export.serving import Serving
from self_pruner.tools.profiles.budget import ParamsTextError, parse_params

Count = Annotated[int, Field(ge=1)]
BrainName = Literal["self", "vllm", "uniform", "first"]


IN_TIME = ("speedup", "latency_ms")  # budgets in time; a latency table tells what they mean
SLOPE_WINDOWS = 4  # measurements of slopes before their text begins anew
# Settings that older files state, and the one value at which a search is what it was with them.
FORMER: dict[str, Any] = {"draws": 0, "screen": 4, "step_rule": "adaptive", "later_layers": 1.0, "racing": 1.0}


class SettingsError(SelfPrunerError):
    """A setting that is out of its range or contradicts another one."""


class Settings(BaseModel):
    """The settings of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The target model
    model: str = Field("smollm2-135m", description="alias, hub id or local folder of the target model")
    revision: str | None = Field(None, description="revision of a hub model")
    trust_remote_code: bool = Field(False, description="run the code a model repository ships (off unless asked for)")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,4})?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights: auto is bfloat16 where the device multiplies it natively, else float32"
    )

    # The budget
    sparsity: float | None = Field(
        None, gt=0, lt=1, description="share of decoder-block parameters to remove (default 0.2)"
    )
    params: str | None = Field(None, description="total parameters to keep instead, such as 49B or 110M")
    speedup: float | None = Field(
        None, gt=1, description="how many times as fast as dense a request must be, instead of a sparsity or beside it"
    )
    latency_ms: float | None = Field(None, gt=0, description="the same in milliseconds of one request")
    latency_table: Path | None = Field(
        None, description="file of a latency table that predicts them (default: measured here and kept)"
    )
    mlp_unit: int | None = Field(None, ge=8, multiple_of=8, description="channels in an MLP unit (default 128 or 32)")

    # What will serve it
    target: Serving = Field(
        "transformers",
        description="what will serve the result: vllm keeps widths where its kernels are fast, vllm-native cuts MLPs "
        "only, for vLLM's own DeciLM, and uniform gives all layers one width, for stock classes",
    )
    tensor_parallel: Count = Field(1, description="devices that share a layer, with a --target other than transformers")
    vllm_python: Path | None = Field(
        None, description="python of an environment that has vLLM (default: the running one)"
    )

    # How the model is cut
    importance: Literal["wanda-sp", "flap", "magnitude"] = Field("wanda-sp", description="order of units in a layer")
    compensation: Literal["none", "bias", "lstsq"] = Field("lstsq", description="what makes up for removed units")

    # Text
    calibration: str = Field(
        "passages", description="calibration text: passages, papers, wikitext2, c4 or a .txt/.jsonl file"
    )
    fitness_text: str = Field(
        "passages,papers", description="text or texts (A,B) the search is measured on, in turn, named alike"
    )
    reporting_text: str = Field("passages", description="text or texts (A,B) of the reported figures, named alike")
    calibration_sequences: Count | None = Field(None, description="sequences (default 128 on a GPU, 16 on a CPU)")
    calibration_length: int = Field(2048, ge=16, description="tokens in a calibration sequence")
    sequence_length: int = Field(512, ge=16, description="tokens in a fitness or reporting sequence")
    fidelity: tuple[Count, ...] = Field(
        (1024, 4096), min_length=1, description="tokens of each evaluation stage; half the offspring reach the next"
    )
    probe_tokens: Count = Field(512, description="tokens of each sensitivity probe")
    slope_tokens: Count = Field(4096, description="tokens on which slopes are measured, others each time")
    final_tokens: Count = Field(3072, description="unseen tokens on which the best few are compared at the end")
    final_candidates: Count = Field(3, description="how many of the best are compared there")
    reporting_tokens: Count = Field(5120, description="tokens of the reported figures")

    # Who decides
    arm: ArmName = Field("hybrid", description="who decides; hybrid is the target model beside the tool's operators")
    brain: BrainName = Field(
        "self",
        description="the brain where an arm asks one: the target model, the same served by a vLLM of its own or at "
        "--brain-url, or a control",
    )
    brain_url: str | None = Field(
        None, description="OpenAI-compatible endpoint that serves the brain, such as http://localhost:8000/v1"
    )
    brain_model: str | None = Field(None, description="its name there (default: the only one that is served)")
    prompt_set: str | None = Field(None, description="prompt set: default or paper (default: the arm's own)")
    prompts: Path | None = Field(None, description="folder whose files replace those of the prompt set")
    samples: Count = Field(8, description="replies sampled for one prompt in one batch")
    temperature: float = Field(0.8, ge=0, le=5, description="sampling temperature of the brain; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus of the brain's sampling")
    thought_tokens: int = Field(32, ge=0, le=4096, description="tokens of thought before each call; 0 turns it off")
    call_tokens: int = Field(1024, ge=64, description="tokens a call may have at the most")
    brain_failures: Count = Field(3, description="failed turns in a row before the tool's random operator steps in")
    brain_seconds: float = Field(300.0, gt=0, description="a turn that takes longer counts as failed")

    # The search
    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random choice")
    population: int = Field(4, ge=1, description="survivors of a generation")
    offspring: Count = Field(8, description="candidates made in a generation")
    initial: Count = Field(4, description="candidates the brain initialises, besides the closed forms")
    remembered: int = Field(2, ge=0, description="best known profiles of earlier runs to start from")
    mutation_step: Count = Field(4, description="largest change of one edit at first, in MLP units of a 48-unit layer")
    slopes: int = Field(
        1, ge=0, description="generations after which an arm that learns measures the slopes at its best; 0: never"
    )
    benchmarks: int = Field(1, ge=0, description="latency measurements the brain may ask for; 0 measures none at all")
    engine: Literal["torch", "vllm"] = Field(
        "torch", description="what runs latency measurements: this process, or vLLM on shapes without weights"
    )
    latency_prompt: Count = Field(256, description="prompt tokens of a latency measurement")
    latency_decode: Count = Field(16, description="decoded tokens of a latency measurement")
    latency_batch: Count = Field(1, description="prompts side by side in a latency measurement")
    latency_repeats: Count = Field(3, description="timed repeats of a latency measurement")

    # When it ends
    evaluations: Count = Field(64, description="distinct candidates to evaluate")
    tokens: Count | None = Field(None, description="tokens to spend at the most: evaluated ones and the brain's")
    minutes: float | None = Field(None, gt=0, description="minutes of search at the most")
    patience: Count = Field(6, description="generations without a better candidate before the run ends")

    # The result
    recalibrate: bool = Field(
        True, description="refit the found profile layer by layer on its own activations (with --compensation lstsq)"
    )
    export: bool = Field(True, description="write the found profile as a checkpoint")
    tasks: bool = Field(False, description="measure the seven zero-shot tasks of lm-eval for the final table")
    task_rows: int = Field(500, ge=0, description="rows of each task, its first ones; 0 takes all of them")
    task_data: Path | None = Field(None, description="folder with the tasks as <task>.jsonl files (default: the hub)")

    # Where things are
    runs: Path = Field(Path("runs"), description="folder of the run directories")
    memory: Path | None = Field(None, description="memory file shared by runs (default memory.sqlite beside the runs)")
    cache: Path | None = Field(None, description="folder for downloaded and derived files (default ~/.cache)")

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
        if self.brain_model is not None and self.brain_url is None:
            raise ValueError("--brain-model is what --brain-url serves: give both")
        if self.tensor_parallel > 1 and self.target == "transformers":
            raise ValueError("--tensor-parallel is for --target vllm, vllm-native or uniform")
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
            ("slope-tokens", self.slope_tokens),
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
    def memory_path(self) -> Path:
        """The memory file: as given, or beside the runs."""
        return self.memory or self.runs / "memory.sqlite"

    def anchored(self) -> Settings:
        """The same with absolute paths, so that a run can be resumed from any folder."""
        update: dict[str, Any] = {"runs": self.runs.resolve(), "memory": self.memory_path.resolve()}
        for name in ("cache", "prompts", "task_data", "latency_table"):
            if (path := getattr(self, name)) is not None:
                update[name] = path.resolve()
        if self.vllm_python is not None:  # a link is what makes an environment: it is not followed
            update["vllm_python"] = Path(os.path.abspath(self.vllm_python.expanduser()))
        model = Path(self.model).expanduser()
        if model.is_dir():
            update["model"] = str(model.resolve())
        for name in ("calibration", "fitness_text", "reporting_text"):
            paths = {text: Path(text).expanduser() for text in getattr(self, name).split(",")}
            update[name] = ",".join(str(path.resolve()) if path.is_file() else text for text, path in paths.items())
        return self.model_copy(update=update)

    @property
    def reads(self) -> bool:
        """Whether the brain reads prompts; scripted controls do not."""
        return self.brain in ("self", "vllm")

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
        """Tokens of the fitness text in all: those, and others for slopes where they are measured."""
        windows = SLOPE_WINDOWS if self.slopes and ARMS[self.arm].learns else 0
        return self.ranking_tokens + windows * self.slope_tokens

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


def without_former(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an older file without those that are gone, where a search is the same without them.

    Raises:
        SettingsError: one has another value than the only one there is now.
    """
    for name in FORMER.keys() & values.keys():
        if values[name] != FORMER[name]:
            raise SettingsError(
                f"setting {name!r} is of an older format and is gone: a search is made as with {FORMER[name]!r}, "
                f"and not with {values[name]!r}"
            )
    return {name: value for name, value in values.items() if name not in FORMER}


def make_settings(values: dict[str, Any]) -> Settings:
    """Settings from plain values.

    Raises:
        SettingsError: one sentence for the first fault, naming the option, the value and what is allowed.
    """
    values = without_former(values)
    try:
        return Settings(**values)
    except ParamsTextError as error:
        raise SettingsError(f"--params: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            raise SettingsError(message) from None
        option = "--" + str(fault["loc"][0]).replace("_", "-")
        if fault["type"] == "extra_forbidden":
            raise SettingsError(f"unknown setting {fault['loc'][0]!r}") from None
        if fault["type"] == "string_pattern_mismatch":  # nobody should have to read a pattern
            message = f"it takes {Settings.model_fields[str(fault['loc'][0])].description}"
        raise SettingsError(f"{option}: {message}, got {fault['input']!r}") from None
