"""What a run will cost, computed before it has loaded anything: tokens and seconds, line by line.

Tokens are at most what is said: they follow from the settings (schedule.py), from the prompts and from the grammar of
the calls (talk.py). Seconds are those tokens at the rates of this machine (rates.py), once as they probably will be and
once as they will be at most; what is taken for likely is named here and shown with the result. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from self_pruner.agent.arms import Arm
from self_pruner.agent.dry_run.rates import Rates
from self_pruner.agent.dry_run.schedule import Round, making_turns, slope_measurements
from self_pruner.agent.dry_run.talk import Talk
from self_pruner.agent.search.turn_facts import ATTEMPTS
from self_pruner.agent.settings import Settings
from self_pruner.prompts.variables import Kind
from self_pruner.tools.evaluation.slopes import PASS_COST

SHARED = 0.7  # of the work of candidates one by one is left where they share it with siblings and parents
SPOKEN = 0.8  # of the longest reply is said where candidates are made
NOTED = 0.4  # of it where a generation is closed with a note
TRIED = 0.5  # of the attempts that the rules give the brain are made: some replies repeat what is known

Phase = Literal["before", "search", "after"]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the bill."""

    phase: Phase
    what: str
    tokens: int  # at most; 0 where they say nothing
    likely: float  # seconds
    most: float  # seconds
    charged: bool = False  # whether the tokens count against --tokens


@dataclass
class Spoken:
    """What the brain reads and writes in a whole run, at most and likely."""

    rates: Rates
    talks: Mapping[Kind, Talk]
    turns: int = 0
    read: int = 0
    computed: int = 0  # of those read, tokens that no cache holds
    written: int = 0
    steps: int = 0
    likely_reading: float = 0.0  # seconds
    likely_writing: float = 0.0
    most_writing: float = 0.0

    def ask(self, kind: Kind, turns: int, replies: int, tried: float, said: float) -> None:
        """Add so many turns of one kind with so many replies in all.

        Args:
            kind: of the turns.
            turns: at the most.
            replies: of all of them, at the most.
            tried: share of the turns that will likely be taken.
            said: share of the longest reply that will likely be said.
        """
        if not turns:
            return
        talk = self.talks[kind]
        new = talk.prompt - talk.cached
        self.computed += turns * new + (0 if self.turns else talk.cached)  # the first prompt finds no cache
        self.turns += turns
        self.read += turns * talk.prompt
        self.written += replies * talk.reply
        self.steps += turns * talk.steps
        writing = self.rates.decoding(turns * talk.steps, replies / turns)
        self.likely_reading += tried * self.rates.dense(turns * new)
        self.likely_writing += tried * said * writing
        self.most_writing += writing


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run costs at most, and what it probably takes."""

    rounds: tuple[Round, ...]
    items: tuple[Item, ...]
    spoken: Spoken
    likely: float  # seconds in all, within the limits of the run
    most: float

    @property
    def evaluations(self) -> int:
        """Candidates evaluated."""
        return sum(one.measured[0] for one in self.rounds)

    @property
    def charged(self) -> int:
        """Tokens that count against --tokens: probed, evaluated, and computed by the brain."""
        return sum(item.tokens for item in self.items if item.charged)

    def tokens(self, what: str) -> int:
        """Tokens of the lines that begin with `what`."""
        return sum(item.tokens for item in self.items if item.what.startswith(what))


def estimate(rates: Rates, arm: Arm, rounds: Sequence[Round], talks: Mapping[Kind, Talk], probed: bool) -> Estimate:
    """The bill of a run.

    Args:
        rates: of its model on this machine, with its settings.
        arm: who decides.
        rounds: its generations.
        talks: what each kind of turn costs the brain.
        probed: whether the run probes every place.
    """
    spoken = _spoken(rates, arm, rounds, talks)
    items = (*_before(rates, arm, probed), *_search(rates, arm, rounds, spoken, probed), *_after(rates, arm, probed))
    charged = sum(item.tokens for item in items if item.charged)
    likely, most = (_total(rates.settings, items, charged, of) for of in ("likely", "most"))
    return Estimate(tuple(rounds), items, spoken, likely, most)


def _total(settings: Settings, items: Sequence[Item], charged: int, of: str) -> float:
    """Seconds of all items, those of the search as far as --tokens and --minutes let it come."""
    search = limited = sum(getattr(item, of) for item in items if item.phase == "search")
    if settings.tokens is not None:
        limited = min(limited, search * settings.tokens / max(charged, 1))
    if settings.minutes is not None:
        limited = min(limited, 60 * settings.minutes)
    return sum(getattr(item, of) for item in items if item.phase != "search") + limited


def _spoken(rates: Rates, arm: Arm, rounds: Sequence[Round], talks: Mapping[Kind, Talk]) -> Spoken:
    settings, spoken = rates.settings, Spoken(rates, talks)
    if not settings.reads or not arm.asks_brain:
        return spoken
    closing: Kind = "latency" if settings.benchmarks else "survive"
    for one in rounds:
        if one.by_brain:
            kind: Kind = "vary" if one.number else "initialise"
            turns = making_turns(one.by_brain, settings.samples)
            usual = TRIED * making_turns(one.share, settings.samples) / turns
            spoken.ask(kind, turns, ATTEMPTS * one.by_brain, usual, SPOKEN)
        if arm.survive == "brain":
            spoken.ask(closing, 1, 1, 1.0, NOTED)
    if arm.survive == "brain":
        spoken.ask("latency", settings.benchmarks, settings.benchmarks, 1.0, NOTED)
    return spoken


def _before(rates: Rates, arm: Arm, probed: bool) -> list[Item]:
    settings, sizes = rates.settings, rates.sizes
    targets = settings.fitness_tokens + settings.reporting_tokens * len(settings.reporting_texts)
    items = [
        _certain("before", "Loading the weights", 0, rates.moved(sizes.params)),
        _certain("before", "Calibration", sizes.calibration_tokens, rates.calibration()),
        _certain("before", "Dense targets", targets, rates.dense(targets)),
    ]
    if probed:
        places, seconds = rates.probes()
        tokens = places * settings.probe_tokens
        items.append(_certain("before", f"Probes of {places} places", tokens, seconds, charged=True))
    if arm.asks_brain:
        first = settings.fidelity[0]
        items.append(_certain("before", "Uniform profile", first, rates.candidates(first), charged=True))
    return items


def _search(rates: Rates, arm: Arm, rounds: Sequence[Round], spoken: Spoken, probed: bool) -> list[Item]:
    settings = rates.settings
    items = []
    before = 0
    for stage, fidelity in enumerate(settings.fidelity):
        count = sum(one.measured[stage] for one in rounds)
        tokens = count * (fidelity - before)
        more = f"{count} of them on {fidelity - before:,} more tokens"
        what = f"Stage {stage + 1}: " + (more if stage else f"{count} candidates on {fidelity:,} tokens")
        items.append(_shared("search", what, tokens, rates.candidates(tokens), charged=True))
        before = fidelity
    if times := slope_measurements(settings, arm, len(rounds)):
        tokens = times * PASS_COST * settings.slope_tokens
        what = f"Slopes at the best, {times} times"
        items.append(_certain("search", what, tokens, rates.candidates(tokens), charged=True))
    factors = 0.0 if probed else rates.factors()
    refits = rates.refits(sum(one.measured[0] for one in rounds))
    items.append(Item("search", "Least-squares refits", 0, factors + SHARED * refits, factors + refits))
    if spoken.turns:
        what, reading = f"Brain reads {spoken.turns} prompts", rates.dense(spoken.computed)
        items += [
            Item("search", what, spoken.computed, spoken.likely_reading, reading, True),
            Item("search", "Brain writes", spoken.written, spoken.likely_writing, spoken.most_writing, True),
        ]
    if arm.survive == "brain" and settings.benchmarks:
        items.append(_certain("search", "Latency, asked for", 0, settings.benchmarks * rates.latency()))
    return items


def _after(rates: Rates, arm: Arm, probed: bool) -> list[Item]:
    settings, sizes = rates.settings, rates.sizes
    again = settings.recalibrate and settings.compensation == "lstsq"
    unseen = (settings.final_candidates + len(arm.founders) + again) * settings.final_tokens
    models = 2 + probed + again  # uniform, found, the closed form of the probes, and found once more
    reported = models * settings.reporting_tokens * len(settings.reporting_texts)
    items = [
        _shared("after", "Final choice on unseen text", unseen, rates.candidates(unseen)),
        _certain("after", "Reporting text", reported, rates.candidates(reported)),
    ]
    if again:
        items.append(_certain("after", "Recalibration", sizes.calibration_tokens, rates.recalibration()))
    if settings.benchmarks:
        items.append(_certain("after", "Latency", 0, 2 * rates.latency()))
    if settings.export:  # written, and read again by another process
        items.append(_certain("after", "Export and verification", 0, rates.moved(3 * sizes.pruned_params)))
    return items


def _certain(phase: Phase, what: str, tokens: int, seconds: float, charged: bool = False) -> Item:
    return Item(phase, what, tokens, seconds, seconds, charged)


def _shared(phase: Phase, what: str, tokens: int, seconds: float, charged: bool = False) -> Item:
    return Item(phase, what, tokens, SHARED * seconds, seconds, charged)
