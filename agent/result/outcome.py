"""What a run found, in figures: written to `result.json`, shown at the end, in the report and on the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from self_pruner.agent.result.task_table import TaskTable
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.memory.records import RANDOM
from self_pruner.tools.evaluation.averages import mean, perplexity
from self_pruner.tools.latency.speed_facts import SpeedFacts
from self_pruner.tools.profiles.selection import Paired, paired
from self_pruner.tools.text.quantities import counted

if TYPE_CHECKING:  # torch takes seconds to load, and whoever only looks at a result needs none of it
    from self_pruner.tools.workbench import Workbench

SIGNIFICANT = 0.05
CLEAR = 2.0  # standard errors from which a difference is called more than chance
FOUND: Final = "found"  # names of rows of the final table
RECALIBRATED: Final = "found, recalibrated"


class Row(BaseModel):
    """One model of the final table."""

    model_config = ConfigDict(frozen=True)

    name: str  # dense, uniform, closed form, found; found, recalibrated
    params: int
    kl: float | None = None  # nats a token on the reporting text; 0 for the dense model by definition
    perplexity: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None
    tokens_per_second: float | None = None
    speedup: float | None = None


class Served(BaseModel):
    """The result beside the dense model in the engine that such machines serve models with."""

    model_config = ConfigDict(frozen=True)

    setting: str  # device, engine and request
    rows: list[Row] = []  # with latencies
    failure: str | None = None  # why there are none

    def sentence(self) -> str:
        """How much faster what was found is there."""
        if self.failure is not None:
            return f"Not timed in {self.setting}: {self.failure}."
        found = next(row for row in self.rows if row.name == FOUND)
        return f"{found.speedup:.2f} times as fast as the dense model in {self.setting}."


class TextRow(BaseModel):
    """One model on one reporting text."""

    model_config = ConfigDict(frozen=True)

    text: str  # as the user named it
    name: str  # as in the final table
    kl: float | None
    perplexity: float | None

    @classmethod
    def of(cls, text: str, row: Row) -> TextRow:
        """The row of a table as it is on `text`."""
        return cls(text=text, name=row.name, kl=row.kl, perplexity=row.perplexity)


class Difference(BaseModel):
    """Found less another one on the reporting text, sequence by sequence; below zero found is better."""

    model_config = ConfigDict(frozen=True)

    against: str
    mean: float
    standard_error: float | None  # None for a single sequence
    sequences: int

    @property
    def clear(self) -> bool | None:
        """Whether it is more than chance; None where a single sequence says nothing of that."""
        return None if self.standard_error is None else abs(self.mean) > CLEAR * self.standard_error


class Yield(BaseModel):
    """What the candidates of one proposer came to, by operator."""

    model_config = ConfigDict(frozen=True)

    proposed_by: str
    operator: str = ""
    made: int  # distinct candidates, whether measured or not
    compared: int  # measured beside all their parents
    improved: int  # of those, better than the better parent on the first fidelity
    survived: int = 0  # of those made, among the survivors of their generation


class Recalibration(BaseModel):
    """The found profile with the refits of the search and recalibrated, on the holdout of the fitness text."""

    model_config = ConfigDict(frozen=True)

    searched: float | None  # KL in nats a token; None where it could not be measured
    recalibrated: float | None
    failure: str | None = None  # why there is no recalibrated one
    given_up: bool = False  # by the user, after the run had asked for it

    @property
    def better(self) -> bool:
        """Whether the recalibrated weights are the result."""
        return self.recalibrated is not None and (self.searched is None or self.recalibrated < self.searched)


class Outcome(BaseModel):
    """The result of a run."""

    model_config = ConfigDict(frozen=True)

    candidate: str
    attention: list[int]
    mlp: list[int]
    dense: dict[str, int]  # units of a dense layer, by part
    sparsity: float
    stop: str
    rows: list[Row]
    differences: list[Difference]
    # fitness on the holdout of the candidates compared at the end, by id; results of before call it `unseen`
    holdout: dict[str, float] = Field(validation_alias=AliasChoices("holdout", "unseen"))
    measured_on: str
    latency_setting: str | None
    spent: dict[str, float]
    yields: list[Yield]
    # by generation: of the brain's variations those that improved and those compared, then of random ones; [] in
    # results of before
    choices: list[tuple[int, int, int, int]] = []
    warnings: list[str]
    texts: list[TextRow] = []  # every row of the final table on every reporting text
    recalibration: Recalibration | None = None  # where it was asked for
    tasks: TaskTable | None = None  # where they were measured
    speed: SpeedFacts | None = None  # with a budget in time
    served: Served | None = None  # where such an engine is installed
    told: list[str] = []  # notes of a person that the brain read
    verified: float | None = None  # largest difference of a logit between the exported folder and the elastic model

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def result(self) -> Literal["found", "found, recalibrated"]:
        """Name of the row that is the result: what is exported."""
        return RECALIBRATED if self.recalibration is not None and self.recalibration.better else FOUND

    @property
    def best_baseline(self) -> str:
        """Name of the baseline with the least KL on the main reporting text, in hindsight; uniform if none is known."""
        others = ("dense", FOUND, RECALIBRATED)
        known = [(row.kl, row.name) for row in self.rows if row.kl is not None and row.name not in others]
        return min(known)[1] if known else "uniform"

    @property
    def searched(self) -> bool:
        """Whether anything was proposed besides closed forms and profiles of earlier runs."""
        return any(one.proposed_by not in ("seed", "memory") for one in self.yields)

    def several_texts(self) -> bool:
        """Whether figures were taken on more than one reporting text."""
        return len({row.text for row in self.texts}) > 1


SPENT = (  # what a result says of its cost
    *("evaluations", "tokens", "generation", "failed_turns", "fallbacks", "illegal", "search_minutes", "weight_bytes"),
    *("peak_resident_bytes", "brain_turns", "brain_output_tokens", "brain_decode_steps", "brain_seconds"),
)


def fault_of(outcome: Outcome) -> str:
    """Why a result that was read from a file cannot be one that a run wrote; empty where it can."""
    missing = [name for name in SPENT if name not in outcome.spent]
    names = {row.name for row in outcome.rows}
    missing += [name for name in ("dense", "uniform", FOUND, outcome.result) if name not in names]
    missing += [part for part in PARTS if outcome.dense.get(part, 0) < 1]
    if missing:
        return f"it does not say {missing[0]!r}"
    if not outcome.attention or len(outcome.attention) != len(outcome.mlp):
        return "its profile has not one width a layer"
    if any(not 0 <= one.improved <= one.compared <= one.made for one in outcome.yields):
        return "more candidates improved than were made"
    if outcome.tasks is not None and not outcome.tasks.asked:
        return "its tasks asked nothing"
    return ""


def reporting_scores(bench: Workbench, profile: Profile, text: str) -> tuple[list[float], list[float]]:
    """KL and negative log-likelihood of every sequence of `text` that this run reports on, in nats a token."""
    asked = bench.walks[text].targets.n_sequences  # other runs may have measured more of the same text
    known = sorted(bench.scores(profile, text).items())
    scores = [score for index, score in known if index < asked and score.error is None]
    return [score.kl or 0.0 for score in scores], [score.nll or 0.0 for score in scores]


def row_of(bench: Workbench, name: str, profile: Profile, text: str) -> Row:
    """The table row of `profile` from its scores on `text`."""
    kl, nll = reporting_scores(bench, profile, text)
    params = bench.budget.space.params(profile)
    if len(kl) < bench.walks[text].targets.n_sequences:  # some failed: a mean over the others would flatter it
        return Row(name=name, params=params)
    return Row(name=name, params=params, kl=mean(kl), perplexity=perplexity(nll))


def difference(bench: Workbench, found: Profile, other: Profile, against: str, text: str) -> Difference | None:
    """The paired difference of two profiles on `text`; None where one of them failed."""
    own, others = reporting_scores(bench, found, text)[0], reporting_scores(bench, other, text)[0]
    if not own or len(own) != len(others):
        return None
    result: Paired = paired(own, others)
    return Difference(against=against, mean=result.mean, standard_error=result.standard_error, sequences=result.n)


def improvements(found: Sequence[Yield]) -> tuple[int, int, int, int]:
    """Of the brain's variations measured beside their parents the better ones and all; the same of random ones."""
    groups = [[one for one in found if one.proposed_by in names] for names in (("brain",), RANDOM)]
    own, random = ((sum(one.improved for one in group), sum(one.compared for one in group)) for group in groups)
    return *own, *random


def brain_sentence(found: Sequence[Yield], choices: Sequence[tuple[int, int, int, int]] = ()) -> str:
    """Whether the brain proposes better than chance does among the same legal calls.

    Improvements get rarer as a search goes on, so the two are compared within generations that have both, if known.

    Args:
        found: the yields of the whole run.
        choices: the same of the brain and of chance by generation, as in an outcome.
    """
    improved, compared, lucky, drawn = improvements(found)
    if not any(one.proposed_by == "brain" for one in found):
        return "No brain proposed anything in this run."
    if not compared:
        return "The brain varied no candidate, so nothing can be said of its choices."
    both = [one for one in choices or [(improved, compared, lucky, drawn)] if one[1] and one[3]]
    if both:
        improved, compared, lucky, drawn = map(sum, zip(*both, strict=True))
    where = " in generations with random ones" if 0 < len(both) < len(choices) else ""
    own = f"{improved} of the brain's {counted(compared, 'variation')}{where} beat their parents"
    if not both:
        random = f", and {lucky} of {drawn} random ones, but no generation has both, so they are not compared"
        return f"{own}{random if drawn else '; no random ones were drawn to compare with'}."
    from self_pruner.tools.profiles.statistics import TwoShares, exact_test, stratified_difference  # they take scipy

    strata = [TwoShares(*one) for one in both]
    p, difference = exact_test(strata)[0], stratified_difference(strata)
    against = f"and {lucky} of {drawn} random ones (exact test{' within generations' if choices else ''}, p = {p:.2g})"
    if p >= SIGNIFICANT or difference is None:
        return f"{own}, {against}: this run does not show the brain to be better or worse than chance."
    return f"{own}, {against}: the brain was {'better' if difference > 0 else 'worse'} than chance."


def summary(outcome: Outcome) -> str:
    """The run in one sentence, computed from the figures."""
    name = outcome.best_baseline
    found, best = outcome.row(FOUND), outcome.row(name)
    change = next((one for one in outcome.differences if one.against == name), None)
    if found.kl is None or not best.kl or found.perplexity is None or best.perplexity is None or change is None:
        return "The found profile or the baselines could not be measured on the reporting text."
    if not change.mean:
        said = "The search found nothing better than" if outcome.searched else "Nothing was searched: the result equals"
        return f"{said} the best baseline ({name})."
    sure = {
        True: "is more than two standard errors",
        False: "is less than two standard errors",
        None: "is of a single sequence, which says nothing of chance",
    }[change.clear]
    less = f"{abs(100 * (found.kl / best.kl - 1)):.1f}% {'below' if change.mean < 0 else 'above'}"
    return (
        f"At {outcome.sparsity:.0%} sparsity the found profile's KL is {less} the best baseline, {name} ("
        f"{found.kl:.4f} and {best.kl:.4f} nats a token), its perplexity {found.perplexity:.2f} beside "
        f"{best.perplexity:.2f}; the paired difference {sure}."
    )


def recalibration_sentence(outcome: Outcome) -> str:
    """Whether recalibration helped, and so which weights are the result; empty where it was not asked for."""
    facts = outcome.recalibration
    if facts is None:
        return ""
    if facts.recalibrated is None:
        why = f"{'was not' if facts.given_up else 'could not be'} recalibrated ({facts.failure})"
        return f"The found profile {why}, so its result has the weights it was searched with."
    before = "could not be measured" if facts.searched is None else f"{facts.searched:.4f}"
    figures = f"KL on the holdout is {facts.recalibrated:.4f} with refits of its own and {before} with the search's"
    which = "recalibrated weights" if facts.better else "weights it was searched with"
    return f"The found profile's {figures}, so the result has the {which}."
