"""What a run will cost, computed before it has loaded anything: tokens and seconds, line by line.

Tokens are at most what is said: they follow from the settings (schedule.py), from the prompts and from the grammar of
the calls (talk.py). Seconds are those tokens at the rates of this machine (rates.py), once as they probably will be and
once as they will be at most; what is taken for likely is named here and shown with the result. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.arms import Arm
from agent.facts import ATTEMPTS
from agent.rates import Rates
from agent.schedule import Round, making_turns
from agent.settings import Settings
from agent.talk import Talk
from prompts.variables import Kind

SHARED = 0.7  # of the work of candidates one by one is left where they share it with siblings and parents
SPOKEN = 0.8  # of the longest reply is said
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

    talks: Mapping[Kind, Talk]
    turns: int = 0
    read: int = 0
    computed: int = 0  # of those read, tokens that no cache holds
    likely_computed: float = 0.0
    written: int = 0
    steps: int = 0
    likely_written: float = 0.0
    likely_steps: float = 0.0

    def ask(self, kind: Kind, turns: int, replies: int, likely_turns: float, likely_replies: float) -> None:
        """Add so many turns of one kind with so many replies in all."""
        talk = self.talks[kind]
        new = talk.cached if turns and not self.turns else 0  # the first prompt finds no cache
        self.turns += turns
        self.read += turns * talk.prompt
        self.computed += turns * (talk.prompt - talk.cached) + new
        self.likely_computed += likely_turns * (talk.prompt - talk.cached) + new
        self.written += replies * talk.reply
        self.steps += turns * talk.steps
        self.likely_written += SPOKEN * likely_replies * talk.reply
        self.likely_steps += SPOKEN * likely_turns * talk.steps


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
    spoken = _spoken(rates.settings, arm, rounds, talks)
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


def _spoken(settings: Settings, arm: Arm, rounds: Sequence[Round], talks: Mapping[Kind, Talk]) -> Spoken:
    spoken = Spoken(talks)
    if settings.brain != "self" or not arm.asks_brain:
        return spoken
    closing: Kind = "latency" if settings.benchmarks else "survive"
    for one in rounds:
        if one.by_brain:
            kind: Kind = "vary" if one.number else "initialise"
            most, usual = (making_turns(count, settings.samples) for count in (one.by_brain, one.share))
            spoken.ask(kind, most, ATTEMPTS * one.by_brain, TRIED * usual, TRIED * ATTEMPTS * one.share)
        if arm.survive == "brain":
            spoken.ask(closing, 1, 1, 1, 1)
    if arm.survive == "brain" and settings.benchmarks:
        spoken.ask("latency", settings.benchmarks, settings.benchmarks, settings.benchmarks, settings.benchmarks)
    return spoken


def _before(rates: Rates, arm: Arm, probed: bool) -> list[Item]:
    settings, sizes = rates.settings, rates.sizes
    targets = settings.fidelity[-1] + settings.final_tokens + settings.reporting_tokens * len(settings.reporting_texts)
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
    factors = 0.0 if probed else rates.factors()
    refits = rates.refits(sum(one.measured[0] for one in rounds))
    items.append(Item("search", "Least-squares refits", 0, factors + SHARED * refits, factors + refits))
    if spoken.turns:
        usual, most = rates.dense(spoken.likely_computed), rates.dense(spoken.computed)
        items += [
            Item("search", f"Brain reads {spoken.turns} prompts", spoken.computed, usual, most, True),
            Item(
                "search",
                "Brain writes",
                spoken.written,
                rates.steps(spoken.likely_steps, spoken.likely_written),
                rates.steps(spoken.steps, spoken.written),
                True,
            ),
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
