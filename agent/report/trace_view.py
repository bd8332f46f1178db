"""The trace on the screen: a line a step, or one step in full with its prompt, replies, calls and answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from self_pruner.agent.report.in_words import lesson_in_words, plan_in_words
from self_pruner.agent.run_files.answers import is_answer
from self_pruner.agent.run_files.run_directory import RESULT, RunDirectory
from self_pruner.agent.run_files.steering import what_next
from self_pruner.agent.run_files.trace import NOTHING_NEW, Act, Step, TraceRecords, by_step, read_trace
from self_pruner.agent.view import View
from self_pruner.memory.errors import MemoryFileError, RunDirectoryError
from self_pruner.memory.read_only import read_rows
from self_pruner.tools.text.quantities import counted

SHORT = 110  # characters of a line in the overview


def check_begun(run: RunDirectory) -> None:
    """Refuse to tell of a search that has not begun: its run is being prepared, or ended in that.

    Raises:
        RunDirectoryError: it says how the run goes on.
    """
    if not any(file.exists() for file in (run.trace, run.checkpoint, run.path / RESULT)):
        raise RunDirectoryError(f"the search of the run {run.path} has not begun yet; {what_next(run.path)}")


def show_steps(path: Path, view: View) -> None:
    """One line a step: who did what, and what came of it."""
    steps = by_step(_read(path, view))
    if not steps:
        view.line("There is no step in the trace.")
    for step in steps.values():
        view.line(f"{step.number:4d}  {overview(step)}"[:SHORT])


def show_plans(run: RunDirectory, view: View) -> None:
    """The story of the search, a few lines a generation: what was planned, what came of it, how the best stands.

    What earlier runs had learnt comes first.
    """
    steps = by_step(_read(run.trace, view))
    try:
        known = read_rows(run.records, run.id)["lesson"]
    except MemoryFileError as error:  # the trace can be told without
        view.warn(str(error))
        known = []
    for lesson in known:
        view.line(f"known from an earlier run: {lesson_in_words(lesson)}")
    empty = found_nothing(steps.values())
    told, stated = False, set()  # the generations of which hypotheses were stated
    for step in steps.values():
        think, judge = step.think, step.judge
        for note in think.told if think is not None else ():
            view.line(f"told: {note}", "cyan")
            told = True
        if think is not None and think.plan is not None:
            view.line(f"generation {think.generation}: {plan_in_words(think.plan)}")
            told = True
            if think.plan.get("hypotheses"):
                stated.add(think.generation)
        elif said := stood_in(step, empty):
            view.line(f"generation {think.generation if think else 0}: {said}", "yellow")
            told = told or step.number not in empty
        for act in step.acts:
            if act.tool != "record_population" or not is_answer(act):
                continue
            answer: Any = act.result
            lessons = answer.get("lessons", ())
            for lesson in lessons:
                view.line(f"  {lesson_in_words(lesson)}")
            if answer["generation"] in stated and not lessons:
                view.line("  no new candidate of it was measured")
            if judge is not None and judge.fitness is not None:
                view.line(f"  {answer['best']} is the best of generation {answer['generation']}: {judge.fitness:.4f}")
        if judge is not None and judge.stop:
            view.line(f"end: {judge.stop}")
    if not told:
        view.line("No plan is in the trace: no brain was asked for one, by the arm, --plan or --brain-share.")


def show_step(path: Path, number: int, view: View) -> None:
    """Everything about one step.

    Raises:
        RunDirectoryError: there is no such step; the sentence names the steps there are.
    """
    steps = by_step(_read(path, view))
    if number not in steps:
        there = f"steps {min(steps)} to {max(steps)}" if steps else "no steps"
        there = f"step {min(steps)} alone" if len(steps) == 1 else there
        raise RunDirectoryError(f"there is no step {number}; the trace has {there}")
    step = steps[number]
    if step.think is not None:
        think = step.think
        view.line(
            f"step {number}, generation {think.generation}: {think.input_tokens} tokens read ({think.cached_tokens} of "
            f"them cached), {think.output_tokens} written ({think.forced_tokens} forced) in {think.decode_steps} "
            f"decode steps, {think.seconds:.1f} s",
            "bold",
        )
        for note in think.told:
            view.line(f"told: {note}", "cyan")
        if think.error:
            view.line(f"failed: {think.error}", "yellow")
        if said := stood_in(step, found_nothing(steps.values())):
            view.line(said, "yellow")
        _block("prompt", think.prompt, view)
        for index, reply in enumerate(think.replies):
            _block(f"reply {index}", reply.raw, view)
    for act in step.acts:
        _block(f"call {act.call}: {act.tool} ({act.seconds:.1f} s, {act.tokens} tokens)", _json(act.arguments), view)
        if act.error:
            view.line(f"error: {act.error}", "yellow")
        else:
            _block("answer", _json(act.result), view)
    if step.judge is not None:
        judge = step.judge
        spent = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in judge.spent.items())
        best = f"best {judge.best} {judge.fitness}; " if judge.best else ""
        view.line(f"judge: {spent}; {best}{judge.stop or 'goes on'}", "bold")


def _read(path: Path, view: View) -> TraceRecords:
    records = read_trace(path)
    for sentence in records.gaps():
        view.warn(sentence)
    return records


def found_nothing(steps: Iterable[Step]) -> Set[int]:
    """The numbers of those steps of a whole trace in which nobody had a new candidate.

    Traces of older runs say no more than that the tool stood in and called nothing. Where no brain was asked in any of
    the steps, or one had stated the plan of the generation, it was not a plan that failed.
    """
    found, unclear, planned, asked = set[int](), set[int](), set[int](), False
    for step in steps:
        think = step.think
        if think is None:
            continue
        asked = asked or bool(think.replies or think.error)
        if _says_nothing_new(step):
            found.add(step.number)
        elif think.fallback and not step.acts:
            (found if think.generation in planned else unclear).add(step.number)
        if think.plan:
            planned.add(think.generation)
    return found if asked else found | unclear


def _says_nothing_new(step: Step) -> bool:
    return step.think is not None and step.think.prompt == NOTHING_NEW and not step.acts


def stood_in(step: Step, empty: Set[int] = frozenset()) -> str:
    """What the tool did in a turn that was the brain's, or that nothing new was found; "" in any other turn.

    Args:
        step: the turn.
        empty: the numbers of those in which nothing new was found.
    """
    if step.number in empty:
        return "nothing new was found"
    if step.think is None or not step.think.fallback:
        return ""
    if not step.acts:
        return "the brain's plan failed, so it goes by rule"
    if step.acts[0].tool == "record_population":
        return "the best survive, in the place of a choice of the brain's"
    return "candidates are drawn at random in the brain's place"


def overview(step: Step) -> str:
    """What one step did, in a line."""
    parts = []
    if step.think is not None and step.think.fallback:
        parts.append("(stand-in)")
    if step.think is not None and step.think.error:
        parts.append(f"failed: {step.think.error}")
    if step.think is not None and step.think.told:
        parts.append(f"told: {'; '.join(step.think.told)}")
    if _says_nothing_new(step):
        parts.append("nothing new was found")
    if step.acts:
        tool = step.acts[0].tool
        parts.append(tool if len(step.acts) == 1 else f"{tool} x{len(step.acts)}")
        parts.append(_came_of(step.acts))
    if step.judge is not None and step.judge.stop:
        parts.append(f"end: {step.judge.stop}")
    if step.think is not None and step.think.plan is not None:
        parts.append(f"plan: {plan_in_words(step.think.plan)}")
    if step.think is not None and step.think.replies and step.think.replies[0].thought:
        parts.append(f'"{step.think.replies[0].thought}"')
    return "  ".join(part for part in parts if part)


def _came_of(acts: list[Act]) -> str:
    if any(act.error is None and not is_answer(act) for act in acts):
        return "with an answer that cannot be read"
    results: list[dict[str, Any]] = [act.result for act in acts if isinstance(act.result, dict)]
    if not results:
        return "; ".join(act.error or "" for act in acts)
    if acts[0].tool == "prune_model":
        rows = [row for result in results for row in result["candidates"]]
        new = [row["id"] for row in rows if not row["known"]]
        return f"made {' '.join(new) or 'nothing new'}"
    result = results[0]
    if acts[0].tool == "evaluate":
        scored = [row for row in result["results"] if row["status"] == "ok"]
        count = len(result["results"])
        what = counted(count, "candidate")
        best = min(scored, key=lambda row: row["fitness"], default=None)
        lead = f", best {best['id']} {best['fitness']:.4f}" if best else ""
        sensitivities = " and sensitivities" if acts[0].arguments.get("sensitivities") else ""
        return f"{what} on {result['fidelity']} tokens{sensitivities}{lead}"
    if acts[0].tool == "record_population":
        return f"generation {result['generation']}: {' '.join(result['survivors'])}"
    return " ".join(f"{name} {value}" for name, value in result.items() if name in ("id", "speedup"))


def _block(title: str, text: str, view: View) -> None:
    view.line(f"--- {title}", "bold")
    view.line(text)


def _json(value: Any) -> str:
    return json.dumps(value, indent=None, ensure_ascii=False)
