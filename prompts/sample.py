"""Made-up variables on which a prompt set is tried before anything heavy runs.

They walk through what a run can show: every kind of ask, a full history and none at all, candidates with and without
scores, hints or none, a thought or none. A name that a template gets wrong is then found at the start of a run.
"""

from __future__ import annotations

from collections.abc import Iterator

from self_pruner.memory.profile import PARTS
from self_pruner.prompts.variables import (
    KINDS,
    Action,
    Ask,
    BudgetVariables,
    CandidateRow,
    DenseVariables,
    Hint,
    Hints,
    History,
    Kind,
    LessonRow,
    ModelVariables,
    Move,
    ProposerYield,
    RunVariables,
    SensitivityRow,
    Spent,
    StepRow,
    StretchRow,
    UniformVariables,
    Variables,
)

_BRACKETS = (("c1",), ("c2", "c3"), ("c4",))


def sample_run(n_layers: int = 30, sensitivities: int = 6) -> RunVariables:
    """Facts of a small Llama with `n_layers` layers and a shortlist of `sensitivities` probes."""
    rows = tuple(
        SensitivityRow(
            (7 * i) % n_layers, "attention" if i % 4 == 1 else "mlp", 1 if i % 4 == 1 else 24, 0.311 - 0.013 * i
        )
        for i in range(sensitivities)
    )
    return RunVariables(
        model=ModelVariables("smollm2-135m", "llama", n_layers, 3, 48, 576, "135M"),
        budget=BudgetVariables(0.3, 102_700_000, "103M", 5.3),
        dense=DenseVariables(28.51),
        uniform=UniformVariables(0.822, 61.24),
        sensitivities=rows,
    )


def sample_candidate(number: int, n_layers: int = 30, *, failed: bool = False, initial: bool = False) -> CandidateRow:
    """A scored candidate, a failed one, or one of the first generation without parents."""
    return CandidateRow(
        id=f"c{number}",
        fitness=None if failed else 0.7 + 0.004 * number,
        perplexity=None if failed else 55.0 + number,
        change=None if failed or initial else -0.012,
        parents=() if initial else (f"c{number - 1}",),
        operator="initialise" if initial else "mutation",
        attention=tuple(1 + (number + i) % 3 for i in range(n_layers)),
        mlp=tuple(20 + (5 * number + 3 * i) % 28 for i in range(n_layers)),
        error="its logits are not finite" if failed else None,
    )


def sample_history(n_layers: int = 30, population: int = 4, recent: int = 2, moves: int = 3) -> History:
    """A history with something in every list."""
    return History(
        population=tuple(sample_candidate(i, n_layers, initial=i == 1) for i in range(1, population + 1)),
        best=tuple(sample_candidate(i, n_layers) for i in (1, 5)),
        recent=tuple(sample_candidate(i, n_layers) for i in range(20 + recent, 20, -1)),
        failed=(sample_candidate(19, n_layers, failed=True),),
        moves=tuple(Move(f"c{i}", "c1", "layer 3 mlp -4, layer 9 mlp +4", 0.012 - 0.006 * i) for i in range(moves)),
        notes=("Cutting the mlp of early layers hurts.", "Layer 20 takes a cut well."),
        user_notes=("keep layer 0 whole",),
        lessons=tuple(
            LessonRow(
                "some", f"mlp {5 * i}-{5 * i + 4}", "attention 0-4", "better", verdict, 0.004 * i - 0.006, 0.3, i > 1
            )
            for i, verdict in enumerate(("held", "unclear", "failed"))
        ),
        answers=("evaluate: on 1024 tokens: c21 0.7410, c22 0.7382", "there is no candidate 'c99' in this run"),
        curve=(0.712, 0.725, 0.741),
        yields=(ProposerYield("model", 9, 4), ProposerYield("brain", 12, 3)),
    )


def sample_ask(kind: Kind, actions: tuple[Action, ...], *, thought: bool = True) -> Ask:
    """An ask of `kind` with the lists that kind needs."""
    if kind == "vary":
        return Ask(kind, count=4, actions=actions, parents=("c1", "c2", "c3", "c4"), thought=thought)
    if kind == "plan":
        return Ask(kind, fields=("hypotheses", "offspring", "step", "measure", "time", "stop"), thought=thought)
    if kind == "free":
        return Ask(kind, tools=("prune_model", "evaluate", "record_population", "recall_candidates"), thought=thought)
    if kind == "latency":
        return Ask(kind, candidates=("c1", "c2"), brackets=_BRACKETS, thought=thought)
    if kind == "survive":
        return Ask(kind, brackets=_BRACKETS, thought=thought)
    return Ask(kind, count=4, actions=actions, thought=thought)


def sample_variables(kind: Kind, actions: tuple[Action, ...], n_layers: int = 30) -> Variables:
    """A turn in the middle of a run."""
    return Variables(
        run=sample_run(n_layers),
        generation=3,
        spent=Spent(40, 96, 163_840, 4.2, 0.42),
        ask=sample_ask(kind, actions),
        history=sample_history(n_layers),
        hints=Hints(
            cut=tuple(Hint(layer, "mlp", 40, 0.0021) for layer in (20, 17, 23, 11)),
            grow=tuple(Hint(layer, "attention" if layer == 1 else "mlp", 2, 0.019) for layer in (1, 0, 29, 2)),
            stretches=tuple(
                StretchRow(f"{part} {5 * i}-{5 * i + 4}", 0.5 + 0.08 * i, 0.003 - 0.0004 * i, 0.0001 + 0.0003 * i)
                for part in PARTS
                for i in range(6)
            ),
            step=StepRow(("mlp 20-24 -6", "mlp 5-9 +4", "attention 0-4 +1"), -0.012),
        ),
    )


def samples(actions: tuple[Action, ...]) -> Iterator[Variables]:
    """Every kind of turn, in the middle of a run and with nothing known yet."""
    for kind in KINDS:
        yield sample_variables(kind, actions)
        legal: list[tuple[Action, ...]] = [(action,) for action in actions] if kind in ("initialise", "vary") else [()]
        for some in legal:
            yield Variables(
                run=sample_run(sensitivities=0),
                generation=0,
                spent=Spent(0, 96, 0, 0.0, 0.0),
                ask=sample_ask(kind, some, thought=False),
            )
