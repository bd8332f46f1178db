"""Every setting of a run, in the panels that `--help` shows them in; a field's description is its help text.

`Settings` is made of all panels. `--help` leaves out those that are not `shown`, which `--help-all` has as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from self_pruner.agent.settings.allowed import TAKES
from self_pruner.agent.settings.arms import ArmName
from self_pruner.tools.engines.share import Quantization
from self_pruner.tools.export.serving import Serving

Count = Annotated[int, Field(ge=1)]
HYPOTHESES = 3  # of a plan at the most
PLAN_FIELDS = ("hypotheses", "offspring", "step", "measure", "time", "stop")  # that the brain may decide
CONTROLS = ("uniform", "first")  # brains that read nothing
OWN = ("self", "vllm")  # brains that are the target model, unless an endpoint serves another
BRAINS = (*OWN, *CONTROLS)  # any other is a model


def fields_of_plan(plan: str) -> tuple[str, ...]:
    """What the brain decides of a plan by the setting `plan`: all, nothing (rule), or what is named; not checked."""
    if plan in ("brain", "rule"):
        return PLAN_FIELDS if plan == "brain" else ()
    return tuple(name.strip() for name in plan.split(","))


class Panel(BaseModel):
    """Settings of one concern; the docstring is its title."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON has no such numbers
    shown: ClassVar[bool] = True


class Model(Panel):
    """The target model."""

    model: str = Field("smollm2-135m", description="alias, hub id or local folder of the target model")
    revision: str | None = Field(None, description="revision of a hub model")
    trust_remote_code: bool = Field(False, description="run the code a model repository ships")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,4})?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights: auto is bfloat16 where the device multiplies it natively, else float32"
    )
    placement: Literal["auto", "resident", "spread", "streamed"] = Field(
        "auto",
        description="place of the layers; auto: what fits",
    )
    workers: Count | Literal["auto"] = Field(
        "auto",
        description="1 or more processes that measure side by side; auto is one a GPU",
    )
    ray_address: str | None = Field(
        None,
        pattern=r"^(auto|[^\s/]+:[0-9]{1,5})$",
        description="host:port of the head of a Ray cluster, for workers there, or auto",
        json_schema_extra={TAKES: "auto or a host with a port, such as head:6379"},
    )


class Budget(Panel):
    """The budget."""

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


class ServedBy(Panel):
    """What will serve it."""

    target: Serving = Field(
        "transformers",
        description="what will serve the result: vllm keeps widths where its kernels are fast, vllm-native cuts MLPs "
        "only, for vLLM's own DeciLM, and uniform gives all layers one width, for stock classes",
    )
    tensor_parallel: Count = Field(1, description="devices that share a layer, with a --target other than transformers")
    vllm_python: Path | None = Field(
        None, description="python of an environment that has vLLM (default: the running one)"
    )
    llama_python: Path | None = Field(
        None, description="python of an environment that has llama-cpp-python (default: the running one)"
    )


class Texts(Panel):
    """Text."""

    calibration: str = Field(
        "passages", description="calibration text: passages, papers, wikitext2, c4 or a .txt/.jsonl file"
    )
    fitness_text: str = Field(
        "passages,papers", description="text or texts (A,B) the search is measured on, in turn, named alike"
    )
    reporting_text: str = Field("passages", description="text or texts (A,B) of the reported figures, named alike")


class Deciding(Panel):
    """Who decides."""

    arm: ArmName = Field("hybrid", description="who decides; hybrid: the model beside operators")
    brain: str = Field(
        "self",
        min_length=1,
        description="who is asked: self (the target model), vllm (the same in a vLLM, or --brain-url), uniform or "
        "first (controls), or any other model",
    )
    brain_url: str | None = Field(
        None, description="OpenAI-compatible endpoint that serves the brain, such as http://localhost:8000/v1"
    )
    brain_model: str | None = Field(None, description="its name there (default: the only one that is served)")
    prompt_set: str | None = Field(None, description="default, terse, expert or paper (default: the arm's own)")
    prompts: Path | None = Field(None, description="folder whose files replace those of the prompt set")
    thought_tokens: Annotated[int, Field(ge=0, le=4096)] | Literal["auto"] = Field(
        "auto",
        description="0 to 4096 tokens of thought before each call, or auto: 0 for brains below 1B parameters, else 32",
    )


class Ending(Panel):
    """How long the search takes."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random choice")
    evaluations: Count = Field(64, description="candidates to measure that the memory lacks")
    tokens: Count | None = Field(None, description="tokens to spend at the most: evaluated ones and the brain's")
    minutes: float | None = Field(None, gt=0, description="minutes of search at the most")
    patience: Count = Field(6, description="generations without a better candidate before the run ends")


class Result(Panel):
    """The result."""

    recalibrate: bool = Field(
        True, description="refit the found profile layer by layer on its own activations (with --compensation lstsq)"
    )
    export: bool = Field(True, description="write the found profile as a checkpoint")
    tasks: bool = Field(False, description="measure the seven zero-shot tasks of lm-eval for the final table")
    task_rows: int = Field(500, ge=0, description="first rows of each; 0: all")
    task_data: Path | None = Field(None, description="folder with the tasks as <task>.jsonl files (default: the hub)")


class Places(Panel):
    """Where things are."""

    runs: Path = Field(Path("runs"), description="folder of the run directories")
    memory: Path | None = Field(None, description="memory file shared by runs (default memory.sqlite there)")
    cache: Path | None = Field(None, description="folder for downloaded and derived files (default ~/.cache)")


class Cutting(Panel):
    """How the model is cut."""

    shown = False

    mlp_unit: int | None = Field(None, ge=8, multiple_of=8, description="channels in an MLP unit (default 128 or 32)")
    importance: Literal["wanda-sp", "flap", "magnitude", "taylor"] = Field(
        "wanda-sp", description="order of units in a layer"
    )
    compensation: Literal["none", "bias", "lstsq"] = Field("lstsq", description="what makes up for removed units")


class Amounts(Panel):
    """How much text."""

    shown = False

    calibration_sequences: Count | None = Field(None, description="sequences (default 128 on a GPU, 16 on a CPU)")
    calibration_length: int = Field(2048, ge=16, description="tokens in a calibration sequence")
    sequence_length: int = Field(512, ge=16, description="tokens in a fitness or reporting sequence")
    fidelity: tuple[Count, ...] = Field(
        (1024, 4096), min_length=1, description="tokens of each evaluation stage; half the offspring reach the next"
    )
    probe_tokens: Count = Field(512, description="tokens of each sensitivity probe")
    sensitivity_tokens: Count = Field(
        1536, description="tokens on which first-order sensitivities are measured, others each time"
    )
    final_tokens: Count = Field(3072, description="holdout tokens on which the best few are compared at the end")
    final_candidates: Count = Field(3, description="how many of the best are compared there")
    reporting_tokens: Count = Field(5120, description="tokens of the reported figures")


class Asking(Panel):
    """How the brain is asked."""

    shown = False

    brain_quantization: Quantization | None = Field(
        None, description="with --brain vllm: fp8 or bitsandbytes, how vLLM quantises the brain as it loads it"
    )
    autonomy: Literal["guided", "free"] = Field(
        "guided",
        description="guided: the search goes its way, and the brain decides where there is a choice; free: from the "
        "second generation on it calls any tool at any time",
    )
    plan: str = Field(
        "hypotheses",
        description="what the brain decides of the plan of a generation: brain (all of it), rule (nothing), or some of "
        + ",".join(PLAN_FIELDS),
    )
    brain_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the offspring that follow the brain's hypotheses (default: what their yield earns)",
    )
    samples: Count = Field(8, description="replies sampled for one prompt in one batch")
    temperature: float = Field(0.8, ge=0, le=5, description="sampling temperature of the brain; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus of the brain's sampling")
    call_tokens: int = Field(1024, ge=64, description="tokens a call may have at the most")
    brain_failures: Count = Field(3, description="failed turns in a row before the tool's random operator steps in")
    brain_seconds: float = Field(300.0, gt=0, description="a turn that takes longer counts as failed")


class Searching(Panel):
    """How the search goes."""

    shown = False

    population: int = Field(4, ge=1, description="survivors of a generation")
    offspring: Count = Field(8, description="candidates made in a generation")
    initial: Count = Field(4, description="candidates the brain initialises, besides the closed forms")
    remembered: int = Field(2, ge=0, description="best known profiles of earlier runs to start from")
    mutation_step: Count = Field(4, description="largest change of one edit at first, in MLP units of a 48-unit layer")
    sensitivities: int = Field(
        1,
        ge=0,
        description="generations after which an arm that learns measures sensitivities at its best; 0: never",
    )


class Timing(Panel):
    """How latency is measured."""

    shown = False

    benchmarks: int = Field(1, ge=0, description="latency measurements the brain may ask for; 0 measures none at all")
    engine: Literal["torch", "vllm", "llama-cpp"] = Field(
        "torch",
        description="what runs latency measurements: this process, or vLLM or llama.cpp on shapes of random weights; "
        "the result is timed beside torch in llama.cpp (on a GPU in vLLM) where that is installed",
    )
    latency_prompt: Count = Field(256, description="prompt tokens of a latency measurement")
    latency_decode: Count = Field(16, description="decoded tokens of a latency measurement")
    latency_batch: Count = Field(1, description="prompts side by side in a latency measurement")
    latency_repeats: Count = Field(3, description="timed repeats of a latency measurement")


class Telemetry(Panel):
    """Who else is told of it."""

    shown = False

    otel: bool = Field(
        False, description="send the steps as OpenTelemetry spans to the collector at OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    otel_content: bool = Field(False, description="send prompts and replies with them")
    track: Literal["none", "trackio", "wandb"] = Field("none", description="send settings and figures to a tracker")


PANELS: tuple[type[Panel], ...] = (
    Model,
    Budget,
    ServedBy,
    Texts,
    Deciding,
    Ending,
    Result,
    Places,
    Cutting,
    Amounts,
    Asking,
    Searching,
    Timing,
    Telemetry,
)
