"""What the four tools work on: one elastic model, one budget, one measuring instrument, one memory.

A workbench is made once a run and never changes; everything that changes lives in the memory or in the graph's state.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Container, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import FITNESS as FITNESS
from self_pruner.memory.records import Candidate, Fitness, Proposer, Score, Sensitivities
from self_pruner.memory.store import Memory
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.latency.table import Timer
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.selection import Paired, paired
from self_pruner.tools.profiles.sensitivity import Costs, Probe
from self_pruner.tools.pruning.elastic import ElasticModel

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """Which call of which turn is being carried out; makes every tool call repeatable."""

    step: int
    generation: int
    call: int  # index of the call within the turn
    next_id: int  # number of the candidate that this call makes
    proposed_by: Proposer
    population: tuple[str, ...]

    @classmethod
    def of(cls, state: Any, tool_call_id: str) -> Turn:
        """The turn of the call `tool_call_id` in the last message of `state`, the state of a search."""
        calls = state.messages[-1].tool_calls
        index = next(i for i, call in enumerate(calls) if call["id"] == tool_call_id)
        return cls(
            step=state.step,
            generation=state.generation,
            call=index,
            next_id=state.next_id + index,
            proposed_by=state.proposed_by,
            population=tuple(state.population),
        )


@dataclass(frozen=True, slots=True)
class LatencyEngine:
    """What times latencies."""

    name: str  # with its version
    timing: Callable[[], AbstractContextManager[Timer]] | None = None  # starts it, where it is not this process


@dataclass(frozen=True)
class Workbench:
    """Everything a tool needs, and nothing about who decides."""

    elastic: ElasticModel
    budget: Budget
    walks: Mapping[str, PopulationWalk]  # by name of the text
    memory: Memory
    run: str
    seed: int
    sequence_length: int
    fidelity: tuple[int, ...]
    probe_tokens: int = 512  # tokens of each sensitivity probe
    sensitivity_tokens: int = 4096  # tokens of a measurement of sensitivities
    sensitivity_start: int = 0  # the first sequence of the fitness text that sensitivities are measured on
    sensitivity_windows: int = 1  # measurements before they begin there anew
    holdout: range = range(0)  # the sequences of the fitness text that a search may not see
    latency: dict[str, int] = field(default_factory=dict)
    device_name: str = "cpu"
    engine: LatencyEngine = LatencyEngine("torch")  # times candidates
    served: LatencyEngine | None = None  # times the result as well: what such machines serve models with
    progress: Progress | None = None
    # Names of the texts that reported figures are measured on, by what the user calls them; the main one first.
    reporting: Mapping[str, str] = field(default_factory=lambda: {"reporting": "reporting"})
    probes: tuple[Probe, ...] = ()
    costs: Costs = Costs((), ())  # predicted from the probes: the start of a search and the source of hints
    tasks: TaskSuite | None = None  # where task accuracies are measured too

    @property
    def main_text(self) -> str:
        """Name of the main reporting text."""
        return next(iter(self.reporting.values()))

    def rng(self, *names: object) -> random.Random:
        """A generator that depends on the run's seed and on `names` alone, so that a repeated call draws the same."""
        text = "/".join(map(str, (self.seed, *names)))
        return random.Random(hashlib.sha256(text.encode()).digest())

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate of this run with that id.

        Raises:
            ToolError: there is none.
        """
        found = self.memory.recall(Candidate, run=self.run, id=candidate_id)
        if not found:
            raise ToolError(f"there is no candidate {candidate_id!r} in this run")
        return found[0]

    def scores(self, profile: Profile, text: str = FITNESS) -> dict[int, Score]:
        """What is known of `profile` on `text`: a score for each sequence measured so far."""
        return {score.sequence: score for score in self.memory.recall(Score, profile=profile, text=text)}

    def difference(self, child: Profile, parent: Profile, among: Container[int] | None = None) -> Paired | None:
        """The KL of `child` less that of `parent` on the sequences of the fitness text that both were measured on.

        Only those `among` some, where some are given; None where there is no such sequence.
        """
        own, other = ({index: score.kl for index, score in self.scores(one).items()} for one in (child, parent))
        pairs = [
            (kl, other_kl)
            for index, kl in own.items()
            if (among is None or index in among) and kl is not None and (other_kl := other.get(index)) is not None
        ]
        return paired([pair[0] for pair in pairs], [pair[1] for pair in pairs]) if pairs else None

    def fitness(self, profile: Profile, tokens: int, text: str = FITNESS) -> Fitness | None:
        """Mean scores over the first `tokens` tokens, in nats a token, or None where they are not known or failed."""
        sequences = tokens // self.sequence_length
        found = self.memory.recall(Fitness, profile=profile, text=text, sequences=sequences)
        return found[0] if found and found[0].kl is not None else None

    def sensitivity_sequences(self, generation: int) -> range:
        """The sequences of the fitness text for the sensitivities of `generation`: others than the last time."""
        count = self.sensitivity_tokens // self.sequence_length
        start = self.sensitivity_start + (generation - 1) % self.sensitivity_windows * count
        return range(start, start + count)

    def sensitivities(self, profile: Profile) -> tuple[Costs, ...]:
        """The sensitivities of fitness at `profile`, one table a sequence; () where too few were measured."""
        rows = self.memory.recall(Sensitivities, profile=profile, text=FITNESS, order="sequence")
        known = len(rows) >= self.sensitivity_tokens // self.sequence_length
        return tuple(Costs(row.attention, row.mlp) for row in rows) if known else ()

    def known_fitness(self, profile: Profile) -> Fitness | None:
        """The same at the highest fidelity that `profile` was measured on."""
        found = (self.fitness(profile, tokens) for tokens in reversed(self.fidelity))
        return next((fitness for fitness in found if fitness is not None), None)

    def failure(self, profile: Profile) -> str | None:
        """Why measuring `profile` failed in this run, or None; what failed in another one is tried anew."""
        errors = (score.error for score in self.scores(profile).values() if score.run == self.run)
        return next((error for error in errors if error), None)
