"""The search as it goes on: where it is and what is left, what is best, what was planned and what was learnt last.

It is fed with the records of the trace and knows nothing else, so what is on the screen is also in the file. The time
left follows from the pace so far and is taken anew once a generation, for within one it would jump: candidates are
counted when their first stage is measured, and the time goes into all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from self_pruner.agent.report.in_words import decisions, lesson_in_words, plan_in_words
from self_pruner.agent.run_files.trace import NOTHING_NEW, Act, Judge, Think, TraceRecord
from self_pruner.agent.search.initial_population import UNIFORM, Baseline
from self_pruner.agent.settings import limits
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.limits import about, cost, minutes_left, spent_share
from self_pruner.agent.settings.meaning import is_brain_asked
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import Report, View
from self_pruner.agent.view.frame import Frame, Row, cut
from self_pruner.tools.text.quantities import counted, duration

WIDTH = 100  # characters of what the brain decided in a line that stays
LABEL = 8  # cells of a label of the frame

Baselines = Mapping[str, Baseline]


class SearchScreen:
    """Shows the records of a search as they are written."""

    def __init__(self, view: View, settings: Settings, baselines: Callable[[str | None], Baselines]) -> None:
        """Show on `view`; `baselines` looks up the closed forms beside a candidate."""
        self.view = view
        self.settings = settings
        self.baselines = baselines
        self.beside: Baselines = {}  # what it said when the last turn ended
        self.thought = ""
        self.asked = False  # whether the calls that come now are the brain's
        self.decided: list[Act] = []  # the brain's calls in this generation
        self.planned = self.held = ""  # its plan for this generation in words, and how many hypotheses held
        self.learnt = ""  # what came of the last hypotheses, until there are others
        self.judge: Judge | None = None
        self.first: Judge | None = None  # where this session began
        self.ends: float | None = None  # minutes of search at which it will end, by the pace of whole generations
        self.fallbacks = self.failures = 0
        self.done = self.total = 0
        self.step, self.since = 0, time.monotonic()  # in hand, and when the last record came
        self.report: Report = lambda done, total: None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the screen live inside the block, where there is a terminal."""
        with self.view.live("Search", self.frame) as self.report:
            yield

    def progress(self, done: int, total: int) -> None:
        """How far the evaluation in hand is."""
        self.done, self.total = (done, total) if done < total else (0, 0)
        self.report(done, total)

    def see(self, record: TraceRecord) -> None:
        """Take in one record of the trace."""
        self.step, self.since = record.step + isinstance(record, Judge), time.monotonic()
        if isinstance(record, Think):
            self._think(record)
        elif isinstance(record, Act):
            self._act(record)
        else:
            ended = self.judge is not None and record.generation > self.judge.generation
            self.judge, self.first, self.beside = record, self.first or record, self.baselines(record.best)
            self.done = self.total = 0
            if ended:
                left = minutes_left(self.settings, self.first.spent, record.spent)
                self.ends = None if left is None else record.spent.get("minutes", 0.0) + left
                self._generation(record)

    def _think(self, record: Think) -> None:
        if record.fallback:
            self.fallbacks += 1
            self.view.warn(f"step {record.step}: the tool stands in for the brain")
        if record.prompt == NOTHING_NEW:
            self.view.warn(f"step {record.step}: nothing new was found")
        if record.error:
            self.failures += 1
            self.view.warn(f"step {record.step}: the brain failed: {record.error}"[:300])
        for note in record.told:
            self.view.line(f"step {record.step}: the brain reads your note: {note}")
        self.asked = bool(record.replies) and record.error is None
        if record.plan:
            self.planned = plan_in_words(record.plan)
            self.view.tell("plan", generation=record.generation, text=self.planned, plan=record.plan)
        if record.replies:
            self.thought = record.replies[0].thought

    def _act(self, record: Act) -> None:
        if record.error:
            self.view.warn(f"step {record.step}: {record.tool}: {record.error}")
        elif self.asked:
            self.decided.append(record)
        answer: dict[str, Any] = record.result if isinstance(record.result, dict) else {}
        lessons = [one for one in answer.get("lessons") or () if isinstance(one, dict)]
        if lessons:
            told = [lesson_in_words(one) for one in lessons]
            self.held = f"{sum(one['verdict'] == 'held' for one in lessons)} of {len(lessons)} held"
            self.learnt = "; ".join(told)
            for one, said in zip(lessons, told, strict=True):
                self.view.tell("lesson", generation=answer.get("generation"), text=said, lesson=one)

    def _generation(self, judge: Judge) -> None:
        """One line for a generation that ended, in a terminal and elsewhere."""
        number = judge.generation - 1
        line = f"generation {number}: {self.spent()}. {self.best()}{self.brain(' | ')}"
        if self.view.moves:  # the rest is on the screen
            said = ", ".join(filter(None, (self.standing(), self.made(), self.held)))
            line = cut(f"generation {number}: {said}", self.view.console.width - 1)
        baselines = {name: {"fitness": one.fitness, "change": one.change} for name, one in self.beside.items()}
        self.view.tell(
            "generation",
            line,
            generation=number,
            best=judge.best,
            fitness=judge.fitness,
            baselines=baselines,
            spent=judge.spent,
            share=self.share(),
            minutes_left=None if self.ends is None else max(0.0, self.ends - judge.spent.get("minutes", 0.0)),
            brain=self.brain() or None,
        )
        self.decided, self.planned, self.held = [], "", ""

    def brain(self, before: str = "") -> str:
        """What the brain decided in this generation, with `before` before it; "" where it decided nothing."""
        words = ", ".join(filter(None, (self.planned, self.held, decisions(self.decided))))
        if not words:
            return ""
        return f"{before}brain: {words if len(words) <= WIDTH else words[: WIDTH - 3] + '...'}"

    def frame(self) -> Frame:
        """The screen: as many lines for one arm, whatever happens."""
        arm = ARMS[self.settings.arm]
        share, left = self.share(), self.left()
        rows = [
            Row("Search", ", ".join(filter(None, (f"{share:.0%}", left))), share=share, barred=True),
            Row("Spent", self.used() + self._faults()),
            Row("Best", self.standing(fully=True), lines=2),
        ]
        if is_brain_asked(self.settings):
            rows.append(Row("Plan" if arm.plans else "Brain", self.planned or self._said(), lines=2))
        if arm.plans:
            rows.append(Row("Learnt", self.learnt or "nothing yet", lines=2))
        now = f"generation {self.judge.generation if self.judge else 0}, step {self.step}"
        if self.total:
            text = f"{100 * self.done // self.total}% measured, {now}"
            rows.append(Row("Now", text, share=self.done / self.total, barred=True))
        else:
            rows.append(Row("Now", f"{now} for {duration(int(time.monotonic() - self.since))}"))
        return Frame(rows, LABEL)

    def _said(self) -> str:
        return decisions(self.decided) or self.thought or "in the making"

    def _faults(self) -> str:
        found = [f"{counted(self.failures, 'failed turn')} of the brain"] if self.failures else []
        found += [f"{self.fallbacks} stood in for"] if self.fallbacks else []
        return "".join(f", {one}" for one in found)

    def share(self) -> float:
        """How much of the nearest limit is spent: 0 to 1, which it is when the search has ended."""
        share = spent_share(self.settings, self.judge.spent if self.judge else {})
        return share if self.judge and self.judge.stop else min(0.99, share)

    def used(self) -> str:
        """What is spent, beside the limits that there are."""
        spent, limit = self.judge.spent if self.judge else {}, self.settings.tokens
        tokens = f"{cost(spent):,.0f}" + (f" of {limit:,}" if limit else "")
        return f"{self.made()} evaluated, {tokens} tokens, {self.minutes()} min"

    def made(self) -> str:
        """Candidates that were evaluated, such as "27 of 64"."""
        made = self.judge.spent.get("evaluations", 0) if self.judge else 0
        return f"{made:,.0f}" + (f" of {self.settings.evaluations:,}" if limits.counted(self.settings) else "")

    def minutes(self) -> str:
        """Minutes of search, such as "1.4 of 30"."""
        minutes, limit = self.judge.spent.get("minutes", 0.0) if self.judge else 0.0, self.settings.minutes
        return f"{minutes:.1f}" + (f" of {limit:g}" if limit else "")

    def left(self) -> str:
        """How long it will take from here; "" where that is not known yet, or nothing is left."""
        if self.judge is None or self.judge.stop or self.ends is None:
            return ""
        return f"{about(max(0.0, self.ends - self.judge.spent.get('minutes', 0.0)))} left"

    def spent(self) -> str:
        """What is spent and what is left."""
        return ", ".join(filter(None, (self.used(), self.left())))

    @property
    def baseline(self) -> Baseline | None:
        """The best of the closed forms that were measured on most tokens."""
        return min(self.beside.values(), key=lambda one: (-one.tokens, one.fitness), default=None)

    def best(self) -> str:
        """The best candidate beside the best baseline."""
        if self.judge is None or self.judge.fitness is None:
            return "Best: none yet"
        best = f"Best: {self.judge.best}, fitness {self.judge.fitness:.4f} (dense 0)"
        if (one := self.baseline) is None:
            return best
        return f"{best}; best baseline ({one.name}) {one.fitness:.4f} ({100 * one.change:+.1f}%)"

    def standing(self, fully: bool = False) -> str:
        """The same in few words; `fully` with the baseline's figure, and beside equal rates in every layer."""
        if self.judge is None or self.judge.fitness is None:
            return "none yet"
        said = f"KL {self.judge.fitness:.4f}" + (f" ({self.judge.best})" if fully else "")
        if (one := self.baseline) is not None:
            said += f", {beside(one)}" + (f" ({one.fitness:.4f}), the best baseline" if fully else "")
        equal = self.beside.get(UNIFORM)
        if fully and equal is not None and equal is not one:
            said += f", {beside(equal)}"
        return said


def beside(baseline: Baseline) -> str:
    """How a candidate stands beside a baseline, such as "1.9% below ends"."""
    percent = f"{abs(100 * baseline.change):.1f}%"
    if percent == "0.0%":
        return f"equal to {baseline.name}"
    return f"{percent} {'below' if baseline.change < 0 else 'above'} {baseline.name}"
