"""How the tools follow a hypothesis: each becomes a line of candidates, the same shift in several sizes.

All lines of a generation are measured in one walk. The hypotheses are the brain's, those of chance from the very same
schema, or those of a rule: what the believed costs say is best.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice, product

from self_pruner.agent.search.legal_calls import Situation
from self_pruner.agent.settings.panels import HYPOTHESES
from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Proposer
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.profiles.shifts import AMOUNTS, LINE, SHARES, Hypothesis, Stretch, shifted
from self_pruner.tools.prune_model import Proposal, shift_of

SAMPLE = 32  # shifts among which the rule looks for its hypotheses


def line(
    budget: Budget, parent: str, profile: Profile, hypotheses: Sequence[Hypothesis], proposed_by: Proposer
) -> Iterator[Proposal]:
    """The candidates of hypotheses about `profile`, which is that of the candidate `parent`.

    Each in its own size first, then each in the next; those that have no room make none.
    """
    for size, hypothesis in product(LINE, hypotheses):
        try:
            yield shift_of(budget, parent, profile, hypothesis, proposed_by, size)
        except ToolError:
            continue


def legal_shifts(here: Situation) -> list[Hypothesis]:
    """All shifts between stretches that can be cut and those that can be grown, in every amount, but the harmful."""
    return [
        Hypothesis(take=one, give=other, amount=amount)
        for one, others in here.partners().items()
        for other, amount in product(others, AMOUNTS)
    ]


def by_chance(every: Sequence[Hypothesis], rng: random.Random) -> list[Hypothesis]:
    """As many as a plan may state, drawn from all that are legal; [] where nothing can be moved."""
    return rng.sample(every, min(len(every), HYPOTHESES))


def by_rule(
    budget: Budget, costs: Costs, profile: Profile, every: Sequence[Hypothesis], rng: random.Random
) -> list[Hypothesis]:
    """As many as a plan may state: of a sample of all that are legal, those of least believed cost."""
    scored = []
    for number, one in enumerate(rng.sample(every, min(len(every), SAMPLE))):
        take_from, give_to = (Stretch.of(text, budget.space.n_layers) for text in (one.take, one.give))
        asked = shifted(budget, profile, take_from, give_to, SHARES[one.amount])
        scored.append((costs.total(budget.project(asked.attention, asked.mlp).profile), number, one))
    return [one for _, _, one in islice(sorted(scored, key=lambda entry: entry[:2]), HYPOTHESES)]
