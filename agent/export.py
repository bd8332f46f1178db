"""`export --format gguf`: one candidate of a finished run as a file for llama.cpp."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.workbench import prepare
from self_pruner.agent.result.card_facts import card_facts
from self_pruner.agent.result.finish import NotFinishedError, read_outcome, with_weights
from self_pruner.agent.result.outcome import RECALIBRATED
from self_pruner.agent.result.recalibration import recalibrated
from self_pruner.agent.run_files.binding import bind_result
from self_pruner.agent.session import finished
from self_pruner.agent.settings import SettingsError
from self_pruner.agent.view import View
from self_pruner.tools.export.gguf_file import TYPES, GgufFacts, GgufFile, GgufType, check_gguf, write_gguf


def gguf_type(text: str | None) -> GgufType | None:
    """The type that the command line names.

    Raises:
        SettingsError: it is none.
    """
    for known in TYPES:
        if text == known:
            return known
    if text is None:
        return None
    raise SettingsError(f"--type: {', '.join(TYPES)}, got {text!r}; llama-quantize makes the others from one of these")


def export_gguf(path: Path, candidate: str | None, file: Path, type: GgufType | None, view: View) -> GgufFile:
    """Write one candidate of the run at `path`, by default the one that was found, with the weights of the result.

    Raises:
        SelfPrunerError: what `finished` and `write_gguf` refuse; a model that the format cannot express is refused
            before it is loaded.
    """
    run, settings = finished(path, file, view)
    outcome = read_outcome(run.path)
    if outcome is None:
        raise NotFinishedError(f"the run {path} has no result yet: python main.py resume {path}")
    check_gguf(check_target(settings).outline.model.config)
    prepared = prepare(settings, run.id, view, run.records, bind_result(run, view))
    bench = prepared.bench
    with closing(bench.memory):
        profile = bench.candidate(candidate or outcome.candidate).profile
        again = candidate not in (None, outcome.candidate) or outcome.result == RECALIBRATED
        refitted = recalibrated(prepared, settings, profile, view) if again else None
        card = card_facts(prepared, settings, outcome, run)
        facts = GgufFacts(
            name=f"{prepared.loaded.name}-{100 * bench.budget.space.sparsity(profile):.0f}-pruned",
            base_model=card.base_model,
            sparsity=bench.budget.space.sparsity(profile),
            license=card.license,
        )
        with view.phase("Writing GGUF", unit="bytes") as progress:
            return write_gguf(
                with_weights(prepared, refitted).bench.elastic,
                profile,
                prepared.loaded.tokenizer,
                file,
                facts,
                type=type,
                progress=progress,
            )
