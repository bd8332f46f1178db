"""What a laboratory found: the tables, and sentences that are computed from the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean, stdev

from self_pruner.agent.compare.tables import ABSENT, Table, markdown
from self_pruner.agent.decisions.decision_set import DecisionSet
from self_pruner.agent.decisions.predictions import excess_of, means
from self_pruner.agent.decisions.score import Row, always, comparable, paired_gains
from self_pruner.agent.decisions.statistics import ENOUGH, TIE, apart, bootstrap_mean, more_needed
from self_pruner.agent.view import View
from self_pruner.tools.profiles.shifts import EXPECTATIONS
from self_pruner.tools.profiles.statistics import IntervalEstimate

MILLI = 1000.0  # gains are shown in thousandths of a nat
SHOWN = 8  # hex digits of a fingerprint
FEWER = " situations"  # ends what a row is called that is of fewer than the set has
MOST = 10_000  # situations beyond which nobody counts
EXPLAINED = (
    "Said / came, in percent, over the options as often as the brain takes them: the probability that it gives to a "
    "word, and how often that came true. The same: within one standard error. Brier score over the three: 0 is sure "
    "and right. Less that of the frequencies: above 0 it would do better to say how often each word comes true.\n"
)
TOOL, BEST = "(the tool's own choice)", "(the best option)"


def bounds(found: DecisionSet, kinds: Sequence[str]) -> list[Row]:
    """What the tool's own choice and the best option of every situation are worth."""
    rows = []
    for kind in kinds:
        for name in (TOOL, BEST):
            decided = [
                always(one, one.tool if name == TOOL else one.outcomes.index(min(one.outcomes)))
                for one in found.of(kind)
            ]
            rows.append(Row(name, ABSENT, "exact", kind, tuple(decided)))
    return rows


def with_bounds(found: DecisionSet, rows: Sequence[Row], kinds: Sequence[str]) -> list[Row]:
    """The rows with their bounds, kind by kind."""
    return sorted([*bounds(found, kinds), *rows], key=lambda row: kinds.index(row.kind))


def gains(rows: Sequence[Row], *, brief: bool = False) -> Table:
    """What choices are worth: thousandths of a nat a token, with 95% intervals over situations.

    Args:
        rows: of any kinds.
        brief: leave out some intervals, for a screen.
    """
    header = (
        "kind",
        "brain",
        "prompts",
        "gain over chance",
        "over the tool",
        "regret",
        "better than chance",
        "improvement",
    )
    body = []
    for row in rows:
        gain, over, regret = (
            row.mean(value) for value in (lambda one: one.gain, lambda one: one.over_tool, lambda one: one.regret)
        )
        cells = (
            (milli(gain), thousandths(over.value), thousandths(regret.value))
            if brief
            else (milli(gain), milli(over), milli(regret))
        )
        improved = ABSENT if row.improvement is None else milli(row.improvement)
        body.append((row.kind, in_table(row, rows), row.prompts, *cells, share(row.better, brief=brief), improved))
    return Table(header, body)


def manners(rows: Sequence[Row], *, brief: bool = False) -> Table:
    """How brains choose, and what a decision costs: one prompt, and the options behind it."""
    header = ("kind", "brain", "prompts", "entropy", "first quarter", "prompt", "read", "s", "illegal")
    body = []
    for row in rows:
        most = fmean(one.most_entropy for one in row.decided)
        first = row.first_quarter
        position = ABSENT if first is None else bracketed(first, "{:+.2f}".format)
        body.append(
            (
                row.kind,
                in_table(row, rows),
                row.prompts,
                f"{row.mean(lambda one: one.entropy).value:.2f} of {most:.2f}",
                f"{first.value:+.2f}" if brief and first is not None else position,
                f"{row.mean(lambda one: one.prompt_tokens).value:,.0f}",
                f"{row.mean(lambda one: one.read).value:,.0f}",
                f"{row.mean(lambda one: one.seconds).value:.2f}",
                str(sum(one.illegal for one in row.decided)),
            )
        )
    return Table(header, body)


def expectations(rows: Sequence[Row]) -> Table:
    """What brains expect of their choices, in percent, beside what came of them; of the rows that have it."""
    header = ("kind", "brain", "prompts", *EXPECTATIONS, "Brier score", "less that of the frequencies")
    body = []
    for row in rows:
        if row.predictions:
            mean = means(row.predictions)
            pairs = [f"{100 * said:.0f} / {100 * came:.0f}" for said, came in zip(mean.said, mean.came, strict=True)]
            excess = bracketed(bootstrap_mean(excess_of(row.predictions)), "{:+.3f}".format)
            scores = (ABSENT, ABSENT) if row.sampled else (f"{mean.brier:.3f}", excess)
            body.append((row.kind, in_table(row, rows), row.prompts, *pairs, *scores))
    return Table(header, body)


def sentences(found: DecisionSet, rows: Sequence[Row]) -> list[str]:
    """What it comes to: the signal of every kind, every brain against chance, every two prompt sets of a brain."""
    called = labelled(found, rows)
    said = [signal(found, kind) for kind in dict.fromkeys(row.kind for row in rows)]
    said += map(against_chance, called)
    said += [against_chance_where_kept(row, row.improvement) for row in called if row.improvement is not None]
    said += [calibration(row) for row in called if row.predictions]
    for (first, one), (second, other) in combinations(zip(rows, called, strict=True), 2):
        if comparable(first, second):
            said.append(against_another(replace(one, brain=in_table(one, called)), other))
    return said


def labelled(found: DecisionSet, rows: Sequence[Row]) -> list[Row]:
    """The rows as they are called in a table: what tells two of the same names apart is in the names."""
    temperatures = {row.temperature for row in rows if row.temperature is not None}
    called = []
    for row in rows:
        same = {one.digest for one in rows if one.prompts == row.prompts and one.digest is not None}
        prompts = f"{row.prompts} ({row.digest})" if len(same) > 1 and row.digest is not None else row.prompts
        if len(temperatures) > 1 and row.temperature is not None:
            prompts += f" at temperature {row.temperature:g}"
        decided, there = len(row.decided), len(found.of(row.kind))
        how = row.how if decided == there else f"{row.how}, {decided} of {there}{FEWER}"
        called.append(replace(row, brain=_brain(row, rows), prompts=prompts, how=how))
    return called


def in_table(row: Row, rows: Sequence[Row]) -> str:
    """The brain of a labelled row in a table, with how it was asked where that was in several ways, or not of all."""
    names = (row.kind, row.brain, row.prompts)
    asked = {one.how for one in rows if (one.kind, one.brain, one.prompts) == names}
    return f"{row.brain} ({row.how})" if len(asked) > 1 or row.how.endswith(FEWER) else row.brain


def _brain(row: Row, rows: Sequence[Row]) -> str:
    """The brain's name, with where it is from if there are others of that name, or else a part of its fingerprint."""
    others = [one for one in rows if one.brain == row.brain and one.fingerprint not in (None, row.fingerprint)]
    if row.fingerprint is None or not others:
        return row.brain
    if row.place is None or row.place in {one.place for one in others}:
        return f"{row.brain} ({row.fingerprint[:SHOWN]})"
    return f"{row.place}/{row.brain}"


def signal(found: DecisionSet, kind: str) -> str:
    """How far options lie apart, and how well that is known."""
    situations = found.of(kind)
    spread = fmean(stdev(one.outcomes) for one in situations)
    errors = [option.error for one in situations for option in one.options if option.error is not None]
    known = f", each measured to {MILLI * fmean(errors):.2f} (standard error)" if errors else ""
    return (
        f"{kind}: the options of a situation differ by {MILLI * spread:.2f} mnat a token (standard deviation){known}; "
        f"{len(situations)} situations, {found.made.tokens:,} tokens an option"
    )


def against_chance(row: Row) -> str:
    """Whether a brain does better than chance, and by what its probabilities are known."""
    gain, room = row.mean(lambda one: one.gain), row.mean(lambda one: one.room)
    name = named(row)
    figures = f"{milli(gain)} mnat a token of {MILLI * room.value:.2f} that the best options gain"
    if apart(gain):
        return f"{name} chooses {'better' if gain.value > 0 else 'worse'} than chance: {figures}"
    return f"{name} is not told from chance: {figures}{_more([one.gain for one in row.decided])}"


def against_chance_where_kept(row: Row, improvement: IntervalEstimate) -> str:
    """Whether a brain finds more than chance does where a choice that is no improvement costs nothing but its tries."""
    figures = f"{milli(improvement)} mnat a token"
    kept = f"{named(row)}, where only what is better is kept, as in a search,"
    if apart(improvement):
        return f"{kept} finds {'more' if improvement.value > 0 else 'less'} than chance: {figures}"
    return f"{kept} is not told from chance: {figures}{_more([one.improvement or 0.0 for one in row.decided])}"


def calibration(row: Row) -> str:
    """Whether a brain's predictions tell more than how often each word is right; of samples that is not told."""
    mean, excess = means(row.predictions), bootstrap_mean(excess_of(row.predictions))
    expects = f"expects {100 * mean.said[0]:.0f}% of its choices to be better, and {100 * mean.came[0]:.0f}% are"
    if row.sampled:
        return f"{named(row)} {expects}; of samples no Brier score is given, which their noise would raise"
    word = "not told from" if not apart(excess) else "better than" if excess.value < 0 else "worse than"
    figures = f"Brier score {mean.brier:.3f}, {bracketed(excess, '{:+.3f}'.format)} against theirs"
    return f"{named(row)} {expects}: its predictions are {word} the bare frequencies ({figures})"


def against_another(first: Row, second: Row) -> str:
    """Which of two prompt sets is better for a brain, paired over situations."""
    differences = paired_gains(first.decided, second.decided)
    difference = bootstrap_mean(differences)
    name = f"{first.kind}: for {first.brain}, {first.prompts}"
    figures = f"{milli(difference)} mnat a token over {len(differences)} situations, paired"
    if apart(difference):
        return f"{name} is {'better' if difference.value > 0 else 'worse'} than {second.prompts}: {figures}"
    return f"{name} and {second.prompts} are not told apart: {figures}{_more(differences)}"


def page(found: DecisionSet, rows: Sequence[Row], kinds: Sequence[str]) -> str:
    """`table.md`."""
    made, called = found.made, labelled(found, rows)
    expected = expectations(called)
    told = ["What they expect of their choices:\n", markdown(expected), EXPLAINED] if expected.rows else []
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    parts = [
        "\n".join(f"- {sentence}" for sentence in sentences(found, rows)) + "\n",
        markdown(gains(with_bounds(found, called, kinds))),
        "How they choose:\n",
        markdown(manners(called)),
        *told,
        "Entropy in nats. Prompt: tokens of one prompt. Read: tokens that went through the model for one decision, the "
        "options included and what the cache held left out. s: seconds of one decision.\n",
        f"{made.model}, {made.params:,} parameters to keep. Gains in mnat (thousandths of a nat) a token with 95% "
        "bootstrap intervals over situations: a uniform choice's expected outcome less the brain's. Over the tool: its "
        "own choice's outcome less the brain's expected one. Regret: the brain's less the best. Better than chance: "
        "share of situations. First quarter: probability of the quarter of the options that is read first, less its "
        "share; 0 is no position bias, and - where the prompt is the same in every order, so that the order was not "
        "varied: what a brain gives to whatever its prompt names first is in its gain.\n",
        f"The set was made with\n\n```\n{found.command}\n```\n\n{versions}.\n",
    ]
    return "\n".join(parts)


def show(found: DecisionSet, rows: Sequence[Row], kinds: Sequence[str], view: View) -> None:
    """The same on the screen."""
    called = labelled(found, rows)
    view.table("Gains in mnat a token", *gains(with_bounds(found, called, kinds), brief=True))
    view.table("How they choose", *manners(called, brief=True))
    if (expected := expectations(called)).rows:
        view.table("What they expect of their choices, and what came, in percent", *expected)
    for sentence in sentences(found, rows):
        view.line(sentence)


def bracketed(estimate: IntervalEstimate, words: Callable[[float], str]) -> str:
    """A figure with its interval, where it has one."""
    if estimate.low is None or estimate.high is None:
        return words(estimate.value)
    return f"{words(estimate.value)} [{words(estimate.low)}, {words(estimate.high)}]"


def milli(estimate: IntervalEstimate) -> str:
    """A figure in thousandths, with its interval."""
    return bracketed(estimate, thousandths)


def thousandths(value: float) -> str:
    """A figure in thousandths; what rounds to zero has no sign."""
    return f"{round(MILLI * value, 2) + 0.0:.2f}"


def share(estimate: IntervalEstimate | None, *, brief: bool = False) -> str:
    """A share in percent, with its interval unless it is to be brief."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ABSENT
    value = f"{100 * estimate.value:.0f}%"
    return value if brief else f"{value} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def named(row: Row) -> str:
    """What a row is of, in words."""
    prompts = "" if row.prompts == ABSENT else f" with {row.prompts}"
    return f"{row.kind}: {row.brain}{prompts} ({row.how})"


def _more(values: Sequence[float]) -> str:
    needed = more_needed(values) if abs(fmean(values)) > TIE else None
    few = ""
    if len(values) < ENOUGH:
        few = f"; fewer than {ENOUGH} situations tell nothing"
        needed = None if needed is None else max(needed, ENOUGH - len(values))
    if not needed:
        return few
    if needed > MOST:
        return f"{few}; more than {MOST:,} situations more would be needed to tell a difference of that size"
    return f"{few}; about {needed:,} situations more would tell a difference of that size, four times in five"
