"""A dry run on the screen."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch

from self_pruner.agent.dry_run.dry_run import Bill
from self_pruner.agent.dry_run.memory_and_disk import Bytes
from self_pruner.agent.dry_run.time_and_tokens import NOTED, SHARED, SPOKEN, TRIED
from self_pruner.agent.search.turn_facts import ATTEMPTS
from self_pruner.agent.view import View
from self_pruner.tools.latency.time_budget import NANOSECONDS, LatencyBudget

WIDTH = 110  # characters of a line of a schema
HUB_TEXTS = ("wikitext2", "c4")


def show_bill(bill: Bill, view: View) -> None:
    """The whole page."""
    view.line("Dry run: no weights are read and nothing is written.", "bold")
    for line in (*what(bill), *missing(bill)):
        view.line(line)
    view.line("")
    _costs(bill, view)
    for line in assumptions(bill):
        view.line(line, "dim")
    view.line("")
    _bytes("Memory", bill.memory, view)
    view.line(room(bill))
    view.line("")
    _bytes("Disk", bill.disk, view)
    view.line("")
    _opening(bill, view)


def what(bill: Bill) -> list[str]:
    """What would be run."""
    outline, sizes, target = bill.target.outline, bill.sizes, bill.target
    space = sizes.space
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' if count > 1 else ''}" if target.device == "cpu" else ""
    timed = ""
    if isinstance(target.budget, LatencyBudget):
        timed = f", about, which are predicted to take {target.budget.target_time / NANOSECONDS:,.1f} ms a request"
    return [
        f"{outline.name} ({outline.family.model_type}): {space.n_layers} layers of {space.n_groups} attention and "
        f"{space.n_blocks} MLP units, {sizes.params:,} parameters to become {target.budget.target_params:,} "
        f"({target.budget.sparsity:.1%} of the decoder blocks removed){timed}",
        f"Arm {bill.arm.name}: {bill.arm.meaning}; on {target.device} in {target.dtype}{threads}",
    ]


def missing(bill: Bill) -> list[str]:
    """What is not here yet."""
    lines = []
    fetched = {line.what.removeprefix("Fetched: "): line.bytes for line in bill.disk if line.what.startswith("Fetched")}
    if fetched:
        parts = ", ".join(f"{what} {size(count)}" for what, count in fetched.items())
        lines.append(f"Still to be fetched, which comes on top of the times below: {parts}.")
    if texts := sorted({one.text for one in bill.target.texts if one.text.lower() in HUB_TEXTS}):
        lines.append(f"{' and '.join(texts)} come from the hub, where they are not in its cache yet.")
    if bill.to_time:
        lines.append(
            f"Before that, {bill.to_time} models of random weights are timed for the latency table, which is then "
            "kept; until it is there, this bill takes time to go with parameters."
        )
    if bill.settings.tasks:
        lines.append(
            "The seven tasks come on top too, twice for the checkpoint; how long their questions are is not known yet."
        )
    if bill.target.outline.tokenizer is None:
        lines.append("The tokenizer comes with the model, so until then the brain's tokens are counted by characters.")
    if not bill.target.outline.has_weights:
        lines.append(f"warning: {bill.settings.model} holds no weights yet, which a run needs.")
    return lines


def _costs(bill: Bill, view: View) -> None:
    cost, timed = bill.cost, bill.speed is not None

    def time(seconds: float) -> str:
        return duration(seconds) if timed else "-"

    rows = [
        (item.what, f"{item.tokens:,}" if item.tokens else "-", time(item.likely), time(item.most))
        for item in cost.items
    ]
    rows.append(("In all", "-", time(cost.likely), time(cost.most)))
    limits = bill.settings
    title = f"At most {cost.evaluations} candidates in {len(cost.rounds)} generations"
    view.table(title, ("", "tokens at most", "time, likely", "at most"), rows)
    ends = [f"{limits.tokens:,} tokens"] if limits.tokens else []
    ends += [f"{limits.minutes:g} minutes of search"] if limits.minutes else []
    limit = f", of which the run may spend {' and '.join(ends)}" if ends else ""
    view.line(f"Charged: {cost.charged:,} tokens, probed, evaluated or computed by the brain{limit}.")
    if cost.spoken.turns:
        view.line(
            f"The brain is asked up to {cost.spoken.turns} times, with {cost.spoken.read:,} tokens of prompts; what "
            "they all begin with is computed once."
        )


def assumptions(bill: Bill) -> list[str]:
    """What the figures rest on."""
    sizes, speed = bill.sizes, bill.speed
    lines = [
        f"A token takes {2 * sizes.params / 1e9:.3g} GFLOP (two operations a parameter), and each decoding step of the "
        f"brain reads all {size(sizes.params * sizes.bytes)} of weights."
    ]
    if speed is None:
        lines.append("No times: one layer and the head do not fit in memory here.")
    else:
        dense = 1 / (sizes.layers * speed.layer + speed.head)
        step = speed.step(sizes.layers, speed.together)
        lines.append(
            f"Timed just now on random tensors: {dense:,.0f} tokens a second through the dense model, "
            f"{speed.flops / 1e9:,.0f} GFLOP a second in its layers, {1e3 * step:,.0f} ms a decoding step of "
            f"{speed.together} replies."
        )
    lines.append(
        f"Likely: {SHARED:.0%} of the candidates' layers are computed, the rest is shared with siblings and parents; "
        f"all makers of candidates do equally well; the brain takes {TRIED * ATTEMPTS:g} replies a candidate and says "
        f"{SPOKEN:.0%} of the longest one, {NOTED:.0%} where it leaves a note."
    )
    lines.append(
        "At most: nothing is shared, nothing is known from earlier runs or kept in the cache, patience never ends the "
        f"search, and the brain takes {ATTEMPTS} replies a candidate, all of them as long as can be."
    )
    return lines


def _bytes(title: str, lines: Sequence[Bytes], view: View) -> None:
    rows = [(line.what, line.where, size(line.bytes)) for line in lines]
    rows += [(f"In all, {where}", "", size(total)) for where, total in totals(lines).items()]
    view.table(title, ("", "where", "about"), rows)


def totals(lines: Sequence[Bytes]) -> dict[str, int]:
    """Bytes by where they are."""
    found: dict[str, int] = {}
    for line in lines:
        found[line.where] = found.get(line.where, 0) + line.bytes
    return found


def room(bill: Bill) -> str:
    """What there is of memory, and whether it suffices."""
    there = {"memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
    if bill.target.device != "cpu":
        there["device"] = torch.cuda.mem_get_info(bill.target.device)[1]
    needed = totals(bill.memory)
    short = [where for where in there if needed.get(where, 0) > there[where]]
    told = ", ".join(f"{size(count)} {'on the GPU' if where == 'device' else 'here'}" for where, count in there.items())
    return f"There are {told}." + (" warning: that is not enough." if short else "")


def _opening(bill: Bill, view: View) -> None:
    opening = bill.opening
    if opening.decided:
        view.line("The first turn leaves nothing to decide:", "bold")
        view.line(pretty(opening.decided))
    if opening.makers:
        made = ", ".join(f"{count} by {maker}" for maker, count in opening.makers)
        view.line(f"The first candidates are made by the tool's own operators: {made}.", "bold")
    asked = opening.asked
    if asked is None:
        view.line("No brain is asked anything.", "bold")
        return
    reads = "" if bill.settings.brain == "self" else f" (the control {bill.settings.brain!r} does not read it)"
    view.line(f"The brain's first prompt, in generation {asked.generation}{reads}:", "bold")
    view.line("")
    view.line(asked.prompt.system)
    view.line("")
    view.line(asked.prompt.turn)
    view.line("")
    replies = f"{asked.replies} replies are" if asked.replies > 1 else "one reply is"
    invented = "; candidates and places in it stand for those that will be measured" if asked.invented else ""
    view.line(f"What may be called in answer ({replies} sampled{invented}):", "bold")
    for tool in asked.tools:
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


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}" if count < 10 * unit else f"{count / unit:,.0f} {name}"
    return f"{count:.0f} bytes"
