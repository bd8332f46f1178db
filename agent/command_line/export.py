"""`export`: one candidate of a run that has its result as a folder of transformers, or as a file for llama.cpp.

What the run found it has written and verified already, so that is copied or converted as it lies there. Any other
candidate, and the result of a run that wrote no checkpoint, is made from the target model anew.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from self_pruner.agent.prepare.brain import asking
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.run import Run, in_sentences
from self_pruner.agent.prepare.workbench import prepare
from self_pruner.agent.result.card_facts import card_facts, license_of
from self_pruner.agent.result.finish import export_candidate, with_weights
from self_pruner.agent.result.outcome import RECALIBRATED, Outcome, recalibration_sentence
from self_pruner.agent.result.recalibration import recalibrated, refits_forgotten
from self_pruner.agent.result.result_file import check_candidate, result_of
from self_pruner.agent.run_files.binding import bind_result, check_settings
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import ExportError, SettingsError
from self_pruner.memory.no_links import refuse_link
from self_pruner.tools.export.gguf.file import TYPES, GgufFacts, GgufFile, GgufType, check_gguf, write_gguf
from self_pruner.tools.export.gguf.weights import cut, read
from self_pruner.tools.export.provenance import Provenance, read_provenance
from self_pruner.tools.export.publish import copy_checkpoint
from self_pruner.tools.models.source import load_tokenizer, resolve


def gguf_type(text: str | None) -> GgufType | None:
    """The type that the command line names.

    Raises:
        SettingsError: it is none.
    """
    if text is not None and text not in TYPES:
        raise SettingsError(
            f"--type: {', '.join(TYPES)}, got {text!r}; llama-quantize makes the others from one of these"
        )
    return text


def export_folder(path: Path, candidate: str | None, folder: Path, view: View) -> float:
    """Write one candidate of the run at `path`, by default the one that was found, as a checkpoint.

    Returns:
        The largest difference of a logit between the folder, loaded in a new process, and the elastic model.

    Raises:
        SelfPrunerError: the run has no result yet, there is something at `folder`, or it cannot be written or verified.
    """
    run, settings, outcome = _finished(path, candidate, folder, view)
    if written(run, outcome, candidate) is not None and outcome.verified is not None:
        if sentence := recalibration_sentence(outcome):
            view.line(sentence)
        copy_checkpoint(run.model, folder, trusted=settings.trust_remote_code)
        return outcome.verified
    with in_sentences(settings):
        prepared = prepare(settings, run.id, view, run.records, bind_result(run, view), searches=False)
    with closing(prepared.bench.memory), refits_forgotten(run):
        return export_candidate(Run(settings, run, prepared, view), outcome, candidate, folder).verified or 0.0


def export_gguf(path: Path, candidate: str | None, file: Path, type: GgufType | None, view: View) -> GgufFile:
    """Write one candidate of the run at `path`, by default the one that was found, with the weights of the result.

    Raises:
        SelfPrunerError: what `export_folder` and `write_gguf` refuse; a model that the format cannot express is refused
            before its weights are read.
    """
    run, settings, outcome = _finished(path, candidate, file, view)
    check_gguf(check_target(asking(settings, searches=False)).outline.model.config)
    if (known := written(run, outcome, candidate)) is not None:
        name = resolve(settings.model, settings.revision).name
        with view.phase("Reading the checkpoint"):
            model, tokenizer = read(run.model), load_tokenizer(run.model, settings.trust_remote_code)
        facts = _facts(name, known.base_model, outcome.sparsity)
        with view.phase("Writing GGUF", unit="bytes") as progress:
            return write_gguf(model, tokenizer, file, facts, type=type, progress=progress)
    with in_sentences(settings):
        prepared = prepare(settings, run.id, view, run.records, bind_result(run, view), searches=False)
    made, bench = Run(settings, run, prepared, view), prepared.bench
    with closing(bench.memory), refits_forgotten(run):
        profile = bench.candidate(candidate or outcome.candidate).profile
        unsettled = run.status != "finished" and outcome.recalibration is None
        again = candidate not in (None, outcome.candidate) or outcome.result == RECALIBRATED or unsettled
        refitted = recalibrated(made, profile) if again else None
        base_model = card_facts(prepared, settings, outcome, run).base_model
        facts = _facts(prepared.loaded.name, base_model, bench.budget.space.sparsity(profile))
        model = cut(with_weights(made, refitted).bench.elastic, profile)
        with view.phase("Writing GGUF", unit="bytes") as progress:
            return write_gguf(model, prepared.loaded.tokenizer, file, facts, type=type, progress=progress)


def written(run: RunDirectory, outcome: Outcome, candidate: str | None) -> Provenance | None:
    """What the run's own checkpoint says of itself; None where that is not of `candidate`, or there is none.

    Raises:
        ExportError: it is not the checkpoint of the run's result.
        ExportError: it is damaged.
    """
    if candidate not in (None, outcome.candidate) or outcome.verified is None or not run.model.is_dir():
        return None
    refuse_link(run.model)
    known = read_provenance(run.model)
    if known is None or known.parameters != outcome.row(outcome.result).params:
        raise ExportError(
            f"{str(run.model)!r} is not the checkpoint of this run's result: move it away to make it anew."
        )
    return known


def _finished(path: Path, candidate: str | None, output: Path, view: View) -> tuple[RunDirectory, Settings, Outcome]:
    """A run to export from, once it is sure that `output` is free: one that is finished, or stopped after its choice.

    Raises:
        SettingsError: something is at `output` already, or the run has no such candidate.
        RunDirectoryError: the run has no result yet.
    """
    run = RunDirectory.open(path)
    if output.exists():
        raise SettingsError(f"--output {output} exists already: name one that does not")
    outcome = result_of(run)
    check_candidate(run, candidate)
    check_settings(run, view)
    return run, make_settings(run.settings), outcome


def _facts(name: str, base_model: str, sparsity: float) -> GgufFacts:
    """What the file states of itself; `name` is the target model's, `base_model` the same for people."""
    return GgufFacts(f"{name}-{100 * sparsity:.0f}-pruned", base_model, sparsity, license_of(name))
