"""The command `evaluate`: a checkpoint beside its dense model, from the folder alone.

The seven tasks go through lm-eval's own Hugging Face model, and perplexity through the same, in a process that knows
only the files on the disk. Every figure is kept as soon as it is there, in the cache by the digest of the weights and
beside the checkpoint, so an interrupted evaluation goes on, and the dense model is measured once for all its
descendants.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from self_pruner.agent.prepare.workbench import device_of, dtype_of
from self_pruner.agent.result.checkpoint_figures import (
    DENSE,
    PRUNED,
    Evaluation,
    Figures,
    put_on_card,
    read_evaluation,
)
from self_pruner.agent.result.result_file import result_of
from self_pruner.agent.result.task_table import TITLES
from self_pruner.agent.run_files.atomic_write import WriteError, atomic_write
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings, make_settings, text_label
from self_pruner.agent.settings.stated import shareable
from self_pruner.agent.view import View
from self_pruner.agent.view.to_copy import own_command
from self_pruner.memory.errors import MeasurementError, SettingsError
from self_pruner.memory.no_links import refuse_link
from self_pruner.tools.evaluation.tasks.apart import Request, TaskFigures, TextFigures, measured, rows_on_disk
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import CPU_BATCH, GPU_BATCH, TaskSuite
from self_pruner.tools.export.provenance import Provenance, read_provenance
from self_pruner.tools.models.bundled import cache_dir
from self_pruner.tools.models.checkpoint import digest_of, read_config
from self_pruner.tools.models.foreign_code import check_code
from self_pruner.tools.models.source import fetched, resolve
from self_pruner.tools.text.sources import TextUnavailableError, whole_text

LENGTH = 2048  # tokens of a window where neither the folder nor the command says

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for besides settings."""

    text: str | None = None  # None: WikiText-2, where it can be had
    length: int | None = None
    batch: int | None = None
    dense: bool = True


def evaluate(folder: Path, given: Mapping[str, Any], wishes: Wishes, view: View) -> Evaluation:
    """Measure what is not known yet of the checkpoint in `folder` and of its dense model, and keep it there.

    Args:
        folder: an exported checkpoint, or the run that it is of.
        given: settings named by the user: the model, where its folder does not say, device, data type, task rows.
        wishes: what else was asked for.
        view: where it is shown.

    Raises:
        SelfPrunerError: no checkpoint, code that is not trusted, tasks or text that cannot be had, or a model that
            cannot be measured.
    """
    folder = folder_of(folder)
    provenance = read_provenance(folder)
    settings = _settings(provenance, given, folder)
    check_code(folder, settings.trust_remote_code)
    weights = {PRUNED: digest_of(folder)}
    device = device_of(settings)
    length = wishes.length or (provenance.sequence_length if provenance else None) or LENGTH
    _check(folder, wishes, length)
    with view.phase("Reading tasks"):
        suite = TaskSuite(None, settings.task_data, settings.task_rows)
        suite.read()
    text, label = _text(wishes, view)
    dense = _dense(settings, provenance, view) if wishes.dense else None
    wanted = Evaluation(
        command=_command(settings, given, wishes, length),
        harness=suite.harness,
        rows={task: len(suite.rows(task)) for task in TASKS},
        data={task: suite.digest(task) for task in TASKS},
        text=label,
        text_digest=None if text is None else f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{length}",
        length=length,
        dtype=dtype_of(settings, device),
        device=device,
        versions={name: version(name) for name in ("lm_eval", "torch", "transformers")},
        models=[],
    )
    places = {PRUNED: folder} if dense is None else {DENSE: dense, PRUNED: folder}
    if dense is not None:
        weights[DENSE] = digest_of(dense)
        if provenance is not None and provenance.fingerprint not in ("", weights[DENSE]):
            view.warn(f"{settings.model} has other weights than the model that this checkpoint was cut from")
    asked = _Asked(settings, wanted, wishes, suite, text)
    earlier = _kept(folder, wanted)
    figures: dict[str, Figures] = {}
    for name in places:
        parameters = None
        if provenance is not None:
            parameters = provenance.dense_parameters if name == DENSE else provenance.parameters
        own = Figures(name=name, parameters=parameters, weights=weights[name], tokenizer=_tokenizer(places[name]))
        of = (own.weights, own.tokenizer)
        known = [one for one in (*earlier, *_read(asked.cache(own))) if (one.weights, one.tokenizer) == of]
        figures[name] = reduce(Figures.merged, known, own)
    evaluation = wanted.model_copy(update={"models": list(figures.values())})
    evaluation.write(folder)
    for name, place in places.items():
        with closing(asked.results(place, figures[name], view)) as results:  # so that a signal is heard here
            for result in results:
                figures[name] = figures[name].with_result(result, wanted)
                _keep(asked.cache(figures[name]), figures[name], view)
                evaluation = wanted.model_copy(update={"models": list(figures.values())})
                evaluation.write(folder)
    put_on_card(folder)
    return evaluation


def folder_of(path: Path) -> Path:
    """The checkpoint that a command line names: a folder, or that of a run."""
    if not path.is_dir():
        raise SettingsError(f"{path} is no folder: name a checkpoint, such as runs/NAME/model")
    if (path / "settings.toml").is_file() and not (path / "config.json").is_file():
        if not (path / "model").is_dir():
            result_of(RunDirectory.open(path, strict=False))
            command = own_command("export", path, "--output", "FOLDER")
            raise SettingsError(f"the run {path} has no checkpoint: {command}")
        refuse_link(path / "model")  # its card is written to
        return path / "model"
    return path


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of every model."""

    settings: Settings
    wanted: Evaluation
    wishes: Wishes
    suite: TaskSuite
    text: str | None

    def cache(self, figures: Figures) -> Path:
        """Where the figures of a model are kept for other evaluations."""
        how = [figures.tokenizer, self.wanted.device, self.wanted.versions]
        computed = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:12]
        name = f"{figures.weights[:24]}-{self.wanted.dtype}-{computed}.json"
        return (self.settings.cache or cache_dir()) / "evaluations" / name

    def results(self, place: Path, figures: Figures, view: View) -> Generator[TaskFigures | TextFigures, None, None]:
        """What `figures` lacks, measured now of the model in the folder `place`, each as soon as it is there."""
        wanted = self.wanted
        tasks = [task for task in TASKS if wanted.data[task] not in figures.tasks]
        text = self.text if wanted.text_digest not in figures.texts else None
        names = [TITLES[task] for task in tasks] + (["perplexity"] if text is not None else [])
        if not names:
            return
        with rows_on_disk(self.suite, tasks) as rows:
            if text is not None:
                (Path(rows) / "text.txt").write_text(text, encoding="utf-8")
            request = Request(
                folder=str(place.resolve()),
                rows=rows,
                tasks=tuple(tasks),
                text=None if text is None else str(Path(rows) / "text.txt"),
                length=wanted.length,
                dtype=wanted.dtype,
                device=wanted.device,
                batch=self.wishes.batch or (CPU_BATCH if wanted.device == "cpu" else GPU_BATCH),
                trust_remote_code=self.settings.trust_remote_code,
                exported=figures.name == PRUNED,
                parallelize=wanted.device == "cuda" and torch.cuda.device_count() > 1,
            )
            with closing(measured(request, lambda done, total: report(done, total))) as results:
                for number, name in enumerate(names, start=1):
                    with view.phase(f"{figures.name}, {name} ({number} of {len(names)})") as report:
                        result = next(results, None)
                    if result is None:
                        raise MeasurementError(f"{place} was left without {name}")
                    yield result


def _settings(provenance: Provenance | None, given: Mapping[str, Any], folder: Path) -> Settings:
    """Those that were given, beside the dense model that the folder names, or the run that it lies in."""
    known: dict[str, Any] = {}
    if provenance is not None and "model" not in given:
        model = provenance.model or _model_of_run(folder.resolve().parent)
        known = {} if model is None else {"model": model, "revision": provenance.revision}
    return make_settings({**known, **given, "tasks": True})


def _model_of_run(path: Path) -> str | None:
    """The target model of the run at `path`; None where there is no run."""
    try:
        model = tomllib.loads((path / "settings.toml").read_text(encoding="utf-8")).get("model")
    except (OSError, ValueError):
        return None
    return model if isinstance(model, str) else None


def _check(folder: Path, wishes: Wishes, length: int) -> None:
    """Refuse numbers that no measurement can have."""
    for name, value in (("perplexity-length", wishes.length), ("batch", wishes.batch)):
        if value is not None and value < (2 if name == "perplexity-length" else 1):
            raise SettingsError(f"--{name} takes a whole number from {2 if name != 'batch' else 1} on, got {value}")
    longest = read_config(folder / "config.json").get("max_position_embeddings")
    if isinstance(longest, int) and length > longest:
        raise SettingsError(f"--perplexity-length must be at most the model's context, {longest}, got {length}")


def _text(wishes: Wishes, view: View) -> tuple[str | None, str | None]:
    """The text of the perplexity and its name; what the user did not ask for may be missing, and that is said."""
    name = wishes.text or "wikitext2"
    try:
        with view.phase("Reading text", unit="bytes") as progress:
            return whole_text(name, progress), text_label(name)
    except TextUnavailableError as error:
        if wishes.text is not None:
            raise
        view.warn(f"no perplexity: {error.args[0].partition(';')[0]}; give --perplexity-text FILE")
        return None, None


def _dense(settings: Settings, provenance: Provenance | None, view: View) -> Path:
    """The folder of the dense model, fetched if need be."""
    if "model" not in settings.model_fields_set:
        what = "which model it was cut from" if provenance is None else f"where {provenance.base_model!r} lies"
        raise SettingsError(f"the folder does not say {what}: name it with --model, or leave it out with --no-dense")
    source = resolve(settings.model, settings.revision)
    with view.phase(f"Fetching {source.name}", unit="bytes") as progress:
        return fetched(source, trust_remote_code=settings.trust_remote_code, cache=settings.cache, progress=progress)


def _command(settings: Settings, given: Mapping[str, Any], wishes: Wishes, length: int) -> str:
    """What makes the same table again, without where things lie."""
    known = shareable(settings)
    words = ["evaluate", "FOLDER"]
    for name in ("model", "revision", "device", "dtype"):
        words += [f"--{name}", str(known[name])] if given.get(name) is not None else []
    words += ["--trust-remote-code"] if settings.trust_remote_code else []
    words += ["--task-rows", str(settings.task_rows)]
    words += [] if settings.task_data is None else ["--task-data", settings.task_data.name]
    words += [] if wishes.text is None else ["--perplexity-text", text_label(wishes.text)]
    words += ["--perplexity-length", str(length)]
    words += [] if wishes.batch is None else ["--batch", str(wishes.batch)]
    return own_command(*words, *([] if wishes.dense else ["--no-dense"]))


def _kept(folder: Path, wanted: Evaluation) -> list[Figures]:
    """What an earlier evaluation of this folder knows, if it computed in the same way."""
    earlier = read_evaluation(folder)
    return [] if earlier is None or earlier.way != wanted.way else earlier.models


def _tokenizer(folder: Path) -> str:
    """A digest of the files of which the tokenizer of a checkpoint is made."""
    found = hashlib.sha256()
    for file in sorted(one for pattern in TOKENIZER for one in folder.glob(pattern) if one.is_file()):
        found.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:24]


def _read(cache: Path) -> list[Figures]:
    """What the cache knows of a model; a damaged file is as good as none."""
    try:
        return [Figures.model_validate_json(cache.read_text(encoding="utf-8"))]
    except (OSError, ValidationError):
        return []


def _keep(cache: Path, figures: Figures, view: View) -> None:
    """Write the figures into the cache; where that cannot be done, those in the folder are enough."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(cache, figures.model_dump_json(indent=1) + "\n")
    except (OSError, WriteError) as error:
        view.warn(f"cannot keep figures in {cache.parent}: {error}")
