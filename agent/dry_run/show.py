"""A dry run on the screen."""

from __future__ import annotations

import json
from typing import Any

import torch

from self_pruner.agent.dry_run.cost_estimate import Step, charged_tokens, total_seconds
from self_pruner.agent.dry_run.dry_run import DryRun
from self_pruner.agent.search.initial_population import most_profiles
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.meaning import meaning_of
from self_pruner.agent.view import View
from self_pruner.tools.latency.time_budget import NANOSECONDS, LatencyBudget
from self_pruner.tools.text.quantities import duration, size

WIDTH = 110  # characters of a line of a schema
WHEN = {"spare": "where there is room"}
HUB_TEXTS = ("wikitext2", "c4")


def show(found: DryRun, view: View) -> None:
    """The whole page."""
    view.line("Dry run: no weights are read and nothing is written.", "bold")
    for line in (*what(found), *missing(found)):
        view.line(line)
    if warning := found.plan.overspent(found.settings):
        view.warn(warning)
    view.line("")
    _steps(found, view)
    view.line("")
    _bytes(found, view)
    view.line("")
    _prompt(found, view)


def what(found: DryRun) -> list[str]:
    """What would be run."""
    outline, target, plan = found.target.outline, found.target, found.plan
    space, arm = target.budget.space, ARMS[found.settings.arm]
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' if count > 1 else ''}" if target.device == "cpu" else ""
    timed = ""
    if isinstance(target.budget, LatencyBudget):
        timed = f", about, which are predicted to take {target.budget.target_time / NANOSECONDS:,.1f} ms a request"
    forms = [
        f"{most} of {name}" if (most := most_profiles(target.budget, name)) > 1 else name for name in arm.closed_forms
    ]
    proposers = ", ".join(f"{count} by {proposer}" for proposer, count in plan.initial.items())
    return [
        f"{outline.name} ({outline.family.model_type}): {space.n_layers} layers of {space.n_groups} attention and "
        f"{space.n_blocks} MLP units, {found.placement.sizes.params:,} parameters to become "
        f"{target.budget.target_params:,} ({target.budget.sparsity:.1%} of the decoder blocks removed){timed}",
        f"Arm {arm.name}: {meaning_of(found.settings)}; on {target.device} in {target.dtype}{threads}",
        f"At most {plan.evaluations} candidates in {plan.generations} generation{'s' if plan.generations > 1 else ''}. "
        f"The first population: {', '.join(filter(None, [*forms, proposers]))}",
    ]


def missing(found: DryRun) -> list[str]:
    """What is not here yet."""
    lines = []
    if found.to_fetch:
        parts = ", ".join(f"{what} {size(count)}" for what, count in found.to_fetch.items())
        lines.append(f"Still to be fetched, which comes on top of the times below: {parts}.")
    if texts := sorted({one.text for one in found.target.texts if one.text.lower() in HUB_TEXTS}):
        lines.append(f"{' and '.join(texts)} come from the hub, where they are not in its cache yet.")
    if found.to_time:
        lines.append(
            f"Before that, {found.to_time} models of random weights are timed for the latency table, which is then "
            "kept; until it is there, this estimate takes time to go with parameters."
        )
    if found.settings.tasks:
        lines.append("The seven tasks come on top too; how long their questions are is not known yet.")
    if found.target.outline.tokenizer is None:
        lines.append("The tokenizer comes with the model, so until then the brain's tokens are counted by characters.")
    if not found.target.outline.has_weights:
        lines.append(f"warning: {found.settings.model} holds no weights yet, which a run needs.")
    return lines


def _steps(found: DryRun, view: View) -> None:
    settings, speed = found.settings, found.speed

    def time(seconds: float) -> str:
        return duration(seconds) if speed else "-"

    streamed = found.placement.streamed
    header = ["", "tokens", *(["passes over the layers"] if streamed else []), "about"]
    rows = []
    for step in [*found.steps, Step("In all", 0, total_seconds(settings, found.steps), passes=passes(found))]:
        count = [f"{step.passes:,}" if step.passes else "-"] if streamed else []
        rows.append([step.what, f"{step.tokens:,}" if step.tokens else "-", *count, time(step.seconds)])
    view.table("Cost estimate", header, rows)
    ends = [f"{settings.tokens:,} tokens"] if settings.tokens else []
    ends += [f"{settings.minutes:g} minutes of search"] if settings.minutes else []
    limit = f", of which the run may spend {' and '.join(ends)}" if ends else ""
    charged = charged_tokens(found.steps)
    view.line(f"Charged: {charged:,} tokens, probed, evaluated or computed by the brain{limit}.")
    timed = "No times: one layer and the head do not fit in memory here"
    if speed:
        tokens = 1 / (found.target.budget.space.n_layers * speed.layer + speed.head)
        timed = (
            f"Rough, within a factor of about two: {tokens:,.0f} tokens a second through the dense model and "
            f"{1e3 * speed.step:,.0f} ms a decoding step, timed just now on one layer and the head; "
            f"{1 / speed.read / 1e9:,.1f} GB/s from the disk"
        )
        if found.target.device != "cpu":
            timed += f", {1 / speed.upload / 1e9:,.1f} GB/s to the GPU"
    view.line(
        f"{timed}; nothing in the cache, patience never ends the search, and no turn of the brain is in vain.", "dim"
    )


def passes(found: DryRun) -> int:
    """How often the layers are gone through, where that counts."""
    return sum(step.passes for step in found.steps)


def _bytes(found: DryRun, view: View) -> None:
    placement = found.placement
    names = {each.name: "disk" if each.kind == "disk" else each.name for each in placement.machine.devices}
    rows = [
        (line.what, names[line.where], WHEN.get(line.when, line.when), size(line.bytes)) for line in placement.lines
    ]
    view.table("Memory and disk", ("", "where", "when", "at most"), rows)
    view.line(str(placement) + placement.brain(found.settings))
    turns = found.plan.turns
    for step in found.steps:
        if placement.streamed and step.what.startswith("Brain") and step.passes:
            view.line(f"A turn of the brain takes about {duration(step.seconds / turns)}.")


def _prompt(found: DryRun, view: View) -> None:
    prompt = found.prompt
    if prompt is None:
        view.line("No brain is asked anything.", "bold")
        return
    reads = "" if found.settings.reads else f" (the control {found.settings.brain!r} does not read it)"
    if prompt.turn is None:
        view.line(f"The brain is asked from generation 1 on. What its prompts begin with{reads}:", "bold")
    else:
        view.line(f"The brain's first prompt, in generation 0{reads}:", "bold")
    for text in ("", prompt.system, "", *([prompt.turn, ""] if prompt.turn else [])):
        view.line(text)
    view.line("?: measured before it is asked. The most sensitive places are then listed too.", "dim")
    if prompt.tools:
        replies = f"{prompt.replies} replies are" if prompt.replies > 1 else "one reply is"
        view.line(f"What may be called in answer ({replies} sampled):", "bold")
    for tool in prompt.tools:
        view.line(pretty(tool["function"]))


def pretty(value: Any, indent: int = 0) -> str:
    """JSON with everything on one line that fits there."""
    flat = json.dumps(value)
    if len(flat) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(name)}: {pretty(item, indent + 2)}" for name, item in value.items()]
    else:
        parts = [f"{inner}{pretty(item, indent + 2)}" for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(parts) + "\n" + " " * indent + closing
