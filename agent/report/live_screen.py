"""The search as it goes on: what is spent and what is left, what is best, what the brain decided last.

It is fed with the records of the trace and knows nothing else, so what is on the screen is also in the file. The time
left follows from the pace so far and is taken anew once a generation, for within one it would jump: candidates are
counted when their first stage is measured, and the time goes into all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from self_pruner.agent.report.decisions import decisions, plan_in_words
from self_pruner.agent.run_files.trace import Act, Judge, Think, TraceRecord
from self_pruner.agent.settings.limits import cost, spent_share
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.tools.text.printable import printable

WIDTH = 100  # characters of what the brain decided, and of what it thought, that are shown


class SearchScreen:
    """Shows the records of a search as they are written."""

    def __init__(self, view: View, settings: Settings, baseline: Callable[[], tuple[str, float] | None]) -> None:
        """Show on `view`; `baseline` looks up the name and the fitness of the best baseline so far."""
        self.view = view
        self.settings = settings
        self.baseline = baseline
        self.beaten: tuple[str, float] | None = None  # what it said when the last turn ended
        self.thought = ""
        self.asked = False  # whether the calls that come now are the brain's
        self.decided: list[Act] = []  # the brain's calls in this generation
        self.planned = self.learnt = ""  # its plan for this generation in words, and what came of the hypotheses
        self.judge: Judge | None = None
        self.first: Judge | None = None  # where this session began
        self.ends: float | None = None  # minutes of search at which it will end, by the pace of whole generations
        self.fallbacks = self.failures = 0
        self.done = self.total = 0
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the screen live inside the block, where there is a terminal."""
        if not self.view.console.is_terminal:
            yield
            return
        with Live(console=self.view.console, get_renderable=self.render, refresh_per_second=4, transient=True) as live:
            self._live = live
            yield
        self._live = None

    def progress(self, done: int, total: int) -> None:
        """How far the evaluation in hand is."""
        self.done, self.total = done, total

    def see(self, record: TraceRecord) -> None:
        """Take in one record of the trace."""
        if isinstance(record, Think):
            self._think(record)
        elif isinstance(record, Act):
            self._act(record)
        else:
            ended = self.judge is not None and record.generation > self.judge.generation
            self.judge, self.first, self.beaten = record, self.first or record, self.baseline()
            self.done = self.total = 0
            if ended:
                left = minutes_left(self.settings, self.first.spent, record.spent)
                self.ends = None if left is None else record.spent.get("minutes", 0.0) + left
                self._generation(record)

    def _think(self, record: Think) -> None:
        if record.fallback:
            self.fallbacks += 1
            self.view.line(f"step {record.step}: the tool's random operator stands in for the brain", "yellow")
        if record.error:
            self.failures += 1
            self.view.line(f"step {record.step}: the brain failed: {record.error}"[:300], "yellow")
        for note in record.told:
            self.view.line(f"step {record.step}: the brain reads your note: {note}")
        self.asked = bool(record.replies) and record.error is None
        if record.plan:
            self.planned = plan_in_words(record.plan)
        if record.replies:
            self.thought = record.replies[0].thought

    def _act(self, record: Act) -> None:
        if record.error:
            self.view.line(f"step {record.step}: {record.tool}: {record.error}", "yellow")
        elif self.asked:
            self.decided.append(record)
        lessons = record.result.get("lessons") if isinstance(record.result, dict) else None
        if isinstance(lessons, list) and lessons:
            held = sum(isinstance(one, dict) and one.get("verdict") == "held" for one in lessons)
            self.learnt = f"{held} of {len(lessons)} held"

    def _generation(self, judge: Judge) -> None:
        """One line for a generation that ended, in a terminal and elsewhere."""
        self.view.line(f"generation {judge.generation - 1}: {self.spent()}. {self.best()}{self.brain(' | ')}")
        self.decided, self.planned, self.learnt = [], "", ""

    def brain(self, before: str = "") -> str:
        """What the brain decided in this generation, with `before` before it; "" where it decided nothing."""
        words = ", ".join(filter(None, (self.planned, self.learnt, decisions(self.decided))))
        if not words:
            return ""
        return f"{before}brain: {words if len(words) <= WIDTH else words[: WIDTH - 3] + '...'}"

    def render(self) -> Group:
        """The screen as rich renderables."""
        table = Table.grid(padding=(0, 1))
        table.add_row(
            "Search",
            ProgressBar(total=1.0, completed=self.share(), width=30),
            Text(f"{self.spent()}, generation {self.judge.generation if self.judge else 0}"),
        )
        if self.total:
            table.add_row("Measuring", ProgressBar(total=self.total, completed=self.done, width=30), Text(""))
        thought = f"thought: {self.thought[:WIDTH]}" if self.thought else ""
        lines = [Text(printable(line)) for line in (self.best(), self.brain(), thought) if line]
        if self.failures or self.fallbacks:
            lines.append(Text(f"Brain: {self.failures} failed turns, {self.fallbacks} stood in for", style="yellow"))
        return Group(table, *lines)

    @property
    def counted(self) -> bool:
        """Whether the number of evaluations limits the run, and not its tokens or minutes long before."""
        limits = self.settings
        return limits.tokens is None or limits.evaluations * limits.fidelity[0] <= 10 * limits.tokens

    def share(self) -> float:
        """How much of the nearest limit is spent: 0 to 1."""
        return spent_share(self.settings, self.judge.spent if self.judge else {})

    def spent(self) -> str:
        """What is spent, beside the limits that there are, and what is left."""
        spent = self.judge.spent if self.judge else {}
        limits = self.settings
        minutes = spent.get("minutes", 0.0)
        tokens = f"{cost(spent):,.0f}" + (f" of {limits.tokens:,}" if limits.tokens else "")
        time = f"{minutes:.1f}" + (f" of {limits.minutes:g}" if limits.minutes else "")
        made = f"{spent.get('evaluations', 0):.0f}" + (f" of {limits.evaluations}" if self.counted else "")
        told = f"{made} evaluated, {tokens} tokens, {time} min"
        if self.judge and self.judge.stop:
            return told
        return told if self.ends is None else f"{told}, {about(max(0.0, self.ends - minutes))} left"

    def best(self) -> str:
        """The best candidate beside the best baseline."""
        if self.judge is None or self.judge.fitness is None:
            return "Best: none yet"
        best = f"Best: {self.judge.best}, fitness {self.judge.fitness:.4f} (dense 0)"
        name, fitness = self.beaten or ("", 0.0)
        if not fitness:
            return best
        return f"{best}; best baseline ({name}) {fitness:.4f} ({100 * (self.judge.fitness / fitness - 1):+.1f}%)"


def minutes_left(limits: Settings, first: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """Minutes until the first of the limits is reached at the pace between two moments; None where there is no pace.

    Patience may end a search earlier.
    """
    minutes = now.get("minutes", 0.0) - first.get("minutes", 0.0)
    ends = [] if limits.minutes is None else [limits.minutes - now.get("minutes", 0.0)]
    for limit, before, after in (
        (limits.evaluations, first.get("evaluations", 0.0), now.get("evaluations", 0.0)),
        (limits.tokens, cost(first), cost(now)),
    ):
        if limit is not None and after > before:
            ends.append(minutes * (limit - after) / (after - before))
    return max(0.0, min(ends)) if ends else None


def about(minutes: float) -> str:
    """A number of minutes as roughly as it is known: no digit that will not last."""
    if minutes < 0.75:
        return "less than a minute"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
