"""What a kind of decision is: which turns of a search it is made of, what its options are, and how they are shown."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from self_pruner.agent.decisions.decision_set import DecisionSituation, Option
from self_pruner.agent.search.history import SearchHistory
from self_pruner.agent.search.learned_costs import believed
from self_pruner.agent.search.legal_calls import LegalCalls, Purpose, Schema, Situation, array, closed, function
from self_pruner.agent.search.prompt_variables import Observer
from self_pruner.agent.search.state import SearchState
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.prompts.variables import Variables
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.prune_model import PruneArguments, propose

OPTIONS = 16  # of a situation, where there are as many
ORDERS = 4  # in which options are asked for
PARENTS = 2  # of a generation that have a situation each: the best and another one
LEAST = 4  # options below which a turn is no situation: orders are counterbalanced over four


@dataclass(frozen=True)
class Moment:
    """A turn of a search in which the brain is asked."""

    history: SearchHistory
    settings: Settings
    state: SearchState
    here: Situation
    legal: LegalCalls
    observer: Observer  # of a set that is shown everything
    rng: random.Random

    @property
    def budget(self) -> Budget:
        """That of the search."""
        return self.history.bench.budget


@dataclass(frozen=True, slots=True)
class Choice:
    """A situation before it has an id and outcomes."""

    variables: Variables
    options: tuple[Option, ...]
    reference: tuple[str, ...]
    tool: int


class Kind:
    """One kind of decision. A new one is a file beside this one and a line in `KINDS`."""

    name: str
    purposes: tuple[Purpose, ...]  # the turns that it is made of
    profiles: int = OPTIONS + 1  # to measure for one situation, about
    proposes: bool = True  # whether an option makes a candidate, which a search keeps if it is better

    def choices(self, moment: Moment) -> list[Choice]:
        """The situations that a turn offers, with their options not yet measured; perhaps none."""
        raise NotImplementedError

    def shown(self, variables: Variables, calls: Sequence[dict[str, Any]]) -> Variables:
        """The variables where the options are to be read in the order of `calls`; as they are, if none are named."""
        return variables

    def stated(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        """The calls that take one option: itself, or where the brain is to say what it expects, one for each word."""
        return [call]

    def tool(self, situation: DecisionSituation, calls: Sequence[dict[str, Any]]) -> Schema:
        """The tool whose schema is the grammar that probabilities are worked out under; it admits every option."""
        return one_of(calls)

    def fault(self, situation: DecisionSituation, budget: Budget) -> str | None:
        """Why an option is not legal (any more), in words; None where all are and make what was measured."""
        for option in situation.options:
            try:
                rows = [situation.variables.history.rows[name] for name in option.call["arguments"].get("parents", ())]
                child = child_of(budget, option.call, [Profile(row.attention, row.mlp) for row in rows])
            except (ToolError, LookupError, TypeError, ValueError) as error:
                return f"{option.call} cannot be carried out ({error})"
            if (child.key(),) != option.profiles:
                return f"{option.call} makes another profile than the one that was measured"
        return None


class OfParents(Kind):
    """What kinds have in common whose options are mutations of one parent."""

    purposes: tuple[Purpose, ...] = ("vary",)

    def choices(self, moment: Moment) -> list[Choice]:
        """One for the best parent and one for another."""
        best, *others = moment.here.population
        parents = [best, *moment.rng.sample(others, min(PARENTS - 1, len(others)))]
        found = [self.choice(moment, parent) for parent in parents]
        return [choice for choice in found if choice is not None]

    def choice(self, moment: Moment, parent: str) -> Choice | None:
        """That of one parent; None where there is too little to choose from."""
        raise NotImplementedError


def one_of(calls: Sequence[dict[str, Any]]) -> Schema:
    """A tool that takes the arguments of one of the calls, which are calls of one tool, and nothing else."""
    return function(calls[0]["name"], {"anyOf": [exactly(call["arguments"]) for call in calls]})


def exactly(value: Any) -> Schema:
    """The schema of one value, in the words that every engine takes."""
    if isinstance(value, dict):
        return closed({name: exactly(inner) for name, inner in value.items()})
    if isinstance(value, list):
        return array([exactly(inner) for inner in value])
    return {"const": value}


def child_of(budget: Budget, call: dict[str, Any], parents: Sequence[Profile]) -> Profile:
    """The profile that a call of `prune_model` makes, on budget; raises ToolError."""
    proposal = propose(budget, PruneArguments(**call["arguments"]), parents, "brain")
    return Profile.from_key(proposal["profile"])


def likeliest(moment: Moment, options: Sequence[Option]) -> int:
    """The tool's own choice: the option of least believed cost."""
    costs = believed(moment.history, moment.settings, moment.state)
    totals = [costs.total(Profile.from_key(option.profiles[0])) for option in options]
    return totals.index(min(totals))


def orders_of(count: int) -> list[list[int]]:
    """Up to four orders of `count` options, each beginning a quarter later than the one before."""
    starts = [round(index * count / ORDERS) for index in range(ORDERS)] if count >= ORDERS else list(range(count))
    return [[*range(start, count), *range(start)] for start in starts]


def first_seen(places: Sequence[Any], order: Sequence[Any]) -> tuple[Any, ...]:
    """`places` in the order in which they come in `order`; those that do not come in it stay behind, as they were."""
    rank = {place: index for index, place in reversed(list(enumerate(order)))}
    return tuple(sorted(places, key=lambda place: rank.get(place, len(rank))))
