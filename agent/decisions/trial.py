"""`prompts try`: a changed template on a real turn of a run, beside what was said then.

The turn is asked again as it was: the same variables, the same legal calls, the same seed. What differs is the
template, and the brain where another one is named. A call shows what is known of it in the run: scores, lessons.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.endpoint import served_model
from self_pruner.agent.brain.remote import EndpointBrain
from self_pruner.agent.brain.schema import violations
from self_pruner.agent.decisions.brains import CONTROLS
from self_pruner.agent.decisions.choosers import messages_of
from self_pruner.agent.decisions.kinds.kind import child_of
from self_pruner.agent.prepare.bill import parameters_of
from self_pruner.agent.prepare.brain import SELF, asking, endpoint_of, load_dense, sampling
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.report.in_words import in_words, lesson_in_words, plan_in_words
from self_pruner.agent.report.why import measured_change, scores_of
from self_pruner.agent.run_files.answers import is_answer
from self_pruner.agent.run_files.binding import check_settings
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Act, Think, TraceRecord, by_step, read_trace
from self_pruner.agent.search.legal_calls import PLAN, Call
from self_pruner.agent.search.replies import legal_replies, record_of, replies_of
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError, ToolError
from self_pruner.memory.profile import Profile
from self_pruner.memory.read_only import read_rows
from self_pruner.prompts.asked import AskedTurn, recall
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest, open_set
from self_pruner.tools.profiles.budget import Budget


@dataclass(frozen=True)
class Trial:
    """One turn, asked with other templates."""

    turn: AskedTurn
    before: Think  # what is in the trace
    after: Think
    calls: tuple[list[Call], list[Call]]  # the legal ones, before and after
    known: Known


@dataclass(frozen=True)
class Known:
    """What a run has measured, to look up what a call would have brought."""

    budget: Budget
    turn: AskedTurn
    scores: Mapping[str, Mapping[int, float]]  # KL by profile and sequence
    lessons: Mapping[tuple[str, str, str], str] = field(default_factory=dict)  # in words, by take, give and amount

    def outcome(self, call: Call) -> str:
        """What is known of a call, in words."""
        arguments = call["arguments"]
        if call["name"] == PLAN:
            stated = [one for one in arguments.get("hypotheses") or () if isinstance(one, Mapping)]
            tried = [self.lessons.get((one["take"], one["give"], one["amount"])) for one in stated]
            return "; ".join(one or "not tried in this run" for one in tried)
        if call["name"] == "record_population":
            rows = {row.id: row.fitness for row in self.turn.variables.history.population}
            kept = [(name, rows.get(name)) for name in arguments.get("survivors", ())]
            return ", ".join(f"{name} {'?' if fitness is None else f'{fitness:.4f}'}" for name, fitness in kept)
        return self._of_making(call) if call["name"] == "prune_model" else ""

    def _of_making(self, call: Call) -> str:
        rows = self.turn.variables.history.rows
        try:
            parents = [rows[name] for name in call["arguments"].get("parents", ())]
            child = child_of(self.budget, call, [Profile(row.attention, row.mlp) for row in parents])
        except (ToolError, LookupError, TypeError, ValueError) as error:
            return f"makes nothing: {error}"
        found = self.scores.get(child.key())
        if not found:
            return "not measured in this run"
        words = f"fitness {sum(found.values()) / len(found):.4f} on {len(found)} sequences"
        if parents:
            parent = Profile(parents[0].attention, parents[0].mlp)
            change = measured_change(self.scores, child.key(), parent.key())
            if change is not None:
                words += f", {change.mean:+.4f} ± {change.standard_error:.4f} against {parents[0].id}"
        return words


def try_prompts(path: Path, step: int, name: str, brain: str | None, changes: Mapping[str, Any], view: View) -> Trial:
    """Ask a turn of the run at `path` again with the prompt set or folder `name`, and show both.

    Args:
        path: the run.
        step: of the turn.
        name: of a prompt set, or of a folder whose files replace those of the run's own set.
        brain: who is asked; None for the run's own.
        changes: settings of an endpoint that differ from the run's.
        view: where it is shown.

    Raises:
        SelfPrunerError: no run, no such turn, a template that is wrong, or a brain that cannot be asked.
    """
    if brain is not None and changes:
        raise SettingsError("--brain names a model of this process, --brain-url one that is served: give one of them")
    run = RunDirectory.open(path)
    check_settings(run, view)
    served = {"brain": "vllm"} if changes else {}  # what a brain at an endpoint is called among settings
    settings = make_settings({**run.settings, **changes, **served})
    records = read_trace(run.trace)
    before = by_step(records)[step].think if step in by_step(records) else None
    turn = recall(run.asked, step)
    if before is None:
        raise SettingsError(f"step {step} is in {run.asked.name} and not in the trace: the run was stopped in it")
    prompts = open_set(name, settings.prompts_of_arm)
    prompts.check()
    prompts.render(turn.variables)  # a mistake that only a real turn shows is found before a model is loaded
    scores = scores_of(read_rows(run.records, run.id), settings.sequences(settings.fidelity[-1]))
    known = Known(check_target(asking(settings, searches=False)).budget, turn, scores, dict(_lessons_by_shift(records)))
    asked = _brain(brain or settings.brain, settings, view)
    after, calls = _ask(asked, prompts, turn, settings)
    said = [{"name": one.call["name"], "arguments": one.call["args"]} for one in before.replies if one.call]
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in turn.tools}
    spoken = [
        one for one in said if one["name"] in parameters and not violations(parameters[one["name"]], one["arguments"])
    ]
    trial = Trial(turn, before, after, (spoken, calls), known)
    show(trial, f"{name} ({digest(prompts)})", view)
    return trial


def _lessons_by_shift(records: Sequence[TraceRecord]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """What came of every hypothesis of the run."""
    for act in records:
        if isinstance(act, Act) and act.tool == "record_population" and is_answer(act):
            answer: Any = act.result
            for one in answer.get("lessons", ()):
                yield (one["take"], one["give"], one["amount"]), f"{lesson_in_words(one)}, step {act.step}"


def _brain(name: str, settings: Settings, view: View) -> BaseChatModel:
    """Who is asked: a control, a model in this process, or for `vllm` the endpoint that is named, else the target."""
    if name in CONTROLS:
        return CONTROLS[name](seed=settings.seed)
    found = load_dense(name if name != "vllm" else SELF, settings, view)
    given = sampling(found.tokenizer, parameters_of(found.model), settings)
    if name != "vllm" or settings.brain_url is None:
        return TargetBrain(model=found.model, time_limit=settings.brain_seconds, **given)
    endpoint = endpoint_of(settings)
    return EndpointBrain(endpoint=endpoint, served=served_model(endpoint, settings.brain_model), **given)


def _ask(brain: BaseChatModel, prompts: PromptSet, turn: AskedTurn, settings: Settings) -> tuple[Think, list[Call]]:
    """The turn as it would be in the trace with these templates, and its legal calls."""
    messages = messages_of(brain, prompts, turn.variables, turn.room)
    start = time.perf_counter()
    replies = replies_of(brain, messages, turn.tools, turn.variants, turn.replies, turn.seed)
    calls, faults = legal_replies(replies, turn.variants or [turn.tools] * len(replies))
    record = record_of(
        replies,
        step=turn.step,
        generation=turn.variables.generation,
        prompt=messages.text,
        seconds=time.perf_counter() - start,
        illegal=len(faults),
        error=faults[0] if faults and not calls else None,
    )
    return record, calls


def show(trial: Trial, name: str, view: View) -> None:
    """The two prompts as one text with what differs marked, then replies, calls and outcomes side by side."""
    before, after, turn = trial.before, trial.after, trial.turn
    view.line(
        f"step {turn.step}, generation {turn.variables.generation}, {turn.variables.ask.kind}: "
        f"as it was asked (-), with {name} (+)",
        "bold",
    )
    old, new = before.prompt.splitlines(), after.prompt.splitlines()
    marked = list(unified_diff(old, new, lineterm="", n=len(old) + len(new)))[3:]
    for line in marked or [f" {line}" for line in new]:
        view.line(line, "green" if line.startswith("+") else "red" if line.startswith("-") else "")
    view.line("")
    rows = [
        ["prompt, tokens", f"{before.input_tokens:,}", f"{after.input_tokens:,}"],
        ["written, tokens", f"{before.output_tokens:,}", f"{after.output_tokens:,}"],
        ["seconds", f"{before.seconds:.1f}", f"{after.seconds:.1f}"],
        ["illegal replies", str(before.illegal), str(after.illegal)],
    ]
    view.table("The turn", ["", "then", "now"], rows)
    for label, think, calls in (("then", before, trial.calls[0]), ("now", after, trial.calls[1])):
        for number, reply in enumerate(think.replies, start=1):
            view.line(f"{label}, reply {number}: {reply.raw}")
        for call in calls:
            known = trial.known.outcome(call)
            view.line(f"  {_decides(call)}{f': {known}' if known else ''}", "bold")
        if think.error:
            view.warn(f"{label}: {think.error}")


def _decides(call: Call) -> str:
    return plan_in_words(call["arguments"]) if call["name"] == PLAN else in_words(call["name"], call["arguments"])
