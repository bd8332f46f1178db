"""What the model card states of a run: figures, settings, versions, and the command that makes the same again."""

from __future__ import annotations

from pathlib import Path

from self_pruner.agent.prepare.workbench import Prepared
from self_pruner.agent.result.outcome import FOUND, Outcome, recalibration_sentence
from self_pruner.agent.result.same_again import same_again
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.search.initial_population import UNIFORM
from self_pruner.agent.settings.meaning import is_brain_asked
from self_pruner.agent.settings.panels import CONTROLS
from self_pruner.agent.settings.settings import Settings, text_label
from self_pruner.agent.settings.stated import command_line, is_local, shareable
from self_pruner.agent.view.to_copy import own_command
from self_pruner.tools.export.card import CardFacts, CardRow
from self_pruner.tools.models.aliases import ALIASES, BUNDLED

HUB_IDS = {**ALIASES, BUNDLED: "HuggingFaceTB/SmolLM2-135M-Instruct"}


def card_facts(
    prepared: Prepared, settings: Settings, outcome: Outcome, run: RunDirectory, candidate: str = ""
) -> CardFacts:
    """What the model card states; `candidate` is whom it is of, where that is not whom the run found."""
    export = own_command("export", "RUN", "--candidate", candidate, "--output", "FOLDER")
    stated = ("dense", UNIFORM, outcome.best_baseline, FOUND, outcome.result)
    rows = [row for row in outcome.rows if row.name in stated]
    environment = run.environment
    sentences = (one.sentence().rstrip(".") for one in (outcome.served, outcome.speed) if one)
    time = "" if settings.speedup is None else f"a request {settings.speedup:g} times as fast"
    time = time if settings.latency_ms is None else f"a request in {settings.latency_ms:g} ms"
    return CardFacts(
        base_model=prepared.loaded.name if is_local(settings) else HUB_IDS.get(prepared.loaded.name, settings.model),
        local=is_local(settings),
        family=prepared.loaded.family.model_type,
        sparsity=None if time and settings.sparsity is settings.params is None else prepared.bench.budget.sparsity,
        time=time,
        rows=tuple(CardRow(parameters=row.params, **row.model_dump(exclude={"params", "speedup"})) for row in rows),
        measured_on=outcome.measured_on,
        command=command_line(settings) + (f"\n{export}" if candidate else ""),
        candidate=candidate or None,
        brain=brain_in_words(settings),
        latency_setting=". ".join(filter(None, (outcome.latency_setting, *sentences))) or None,
        calibration=f"{text_label(settings.calibration)}, tokens {prepared.texts['calibration']}",
        compensation=". ".join(filter(None, (settings.compensation, recalibration_sentence(outcome)))),
        exported=outcome.result,
        settings=shareable(settings),
        versions={name: str(version) for name, version in environment.get("versions", {}).items() if version},
        fingerprint=prepared.loaded.fingerprint,
        tasks=outcome.tasks.for_card() if outcome.tasks else None,
        serving=settings.target,
        tensor_parallel=settings.tensor_parallel,
        again=same_again(settings, environment, outcome.told, exported=bool(candidate)),
        tokenizer_code=getattr(prepared.loaded.tokenizer, "_auto_class", None) is not None,
        license=license_of(prepared.loaded.name),
    )


def license_of(model: str) -> str | None:
    """Hub identifier of a target model's licence; None where it is not known."""
    return "apache-2.0" if model == BUNDLED else None


def brain_in_words(settings: Settings) -> str | None:
    """What made the decisions; None where no brain was asked."""
    if not is_brain_asked(settings):
        return None
    if settings.brain == "vllm":
        return "the target model in vLLM" if settings.brain_url is None else "a model behind an endpoint"
    if settings.brain in CONTROLS:
        return f"the scripted control {settings.brain!r}"
    return "the target model" if settings.brain == "self" else f"another model, {Path(settings.brain).name}"
