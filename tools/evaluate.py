"""`evaluate`: measures candidates on the first tokens of the fitness text, all of them on the same tokens.

What the memory knows is not measured again; what is measured is written sequence by sequence, so a call that was killed
goes on where it stopped and is charged the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel, Field

from self_pruner.memory.errors import ToolError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Score, Sensitivities
from self_pruner.tools.evaluation.averages import perplexity
from self_pruner.tools.evaluation.first_order import PASS_COST, FirstOrderError
from self_pruner.tools.evaluation.staged import walks
from self_pruner.tools.evaluation.walk import Measurement
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.recalibration import refit_bytes
from self_pruner.tools.workbench import FITNESS, Turn, Workbench


class EvaluateArguments(BaseModel):
    """Arguments of `evaluate`."""

    candidates: list[str] = Field(min_length=1, description="ids of the candidates to measure")
    fidelity: int = Field(description="tokens to measure on")
    sensitivities: bool = Field(False, description="also measure how fitness changes with every width of every place")


def evaluate_tool(bench: Workbench) -> BaseTool:
    """The LangChain tool `evaluate` on `bench`."""

    @tool("evaluate", args_schema=EvaluateArguments)
    def evaluate(candidates: list[str], fidelity: int, runtime: ToolRuntime, sensitivities: bool = False) -> str:
        """Measure candidates: fitness (KL to the dense model, lower is better), perplexity, rank, change."""
        turn = Turn.of(runtime.state, runtime.tool_call_id or "")
        legal = bench.fidelity[-1:] if sensitivities else bench.fidelity
        if fidelity not in legal:
            raise ToolError(f"fidelity must be one of {', '.join(map(str, legal))}, got {fidelity}")
        rows = [bench.candidate(name) for name in candidates]
        measure(bench, [row.profile for row in rows], range(fidelity // bench.sequence_length), turn.step)
        charged = charge(bench, [row.profile for row in rows], turn.step)
        if sensitivities:
            measure_sensitivities(
                bench, [row.profile for row in rows], bench.sensitivity_sequences(turn.generation), turn.step
            )
            charged += charge_sensitivities(bench, [row.profile for row in rows], turn.step)
        return _answer(fidelity, [_result(bench, row, fidelity) for row in rows], charged)

    return evaluate


def measure(bench: Workbench, profiles: Sequence[Profile], sequences: range, step: int, text: str = FITNESS) -> None:
    """Measure what is not known yet of `profiles` on `sequences` and record it, one row a sequence.

    What failed in this run would fail again and is left alone; what failed in another one is tried anew.
    """
    known: dict[Profile, list[int]] = {}
    for profile in profiles:
        scores = bench.scores(profile, text)
        if not any(score.error and score.run == bench.run for score in scores.values()):
            known[profile] = [index for index, score in scores.items() if not score.error]
    todo = walks(known, sequences)
    total = sum(len(block) * len(group) for block, group in todo)
    done = 0
    for block, group in todo:
        together = sequences_together(bench.elastic, group, len(block))
        for found in bench.walks[text].in_steps(group, block, together):
            for one in found:
                bench.memory.record(*_scores(bench, one, text, step))
                done += len(one.sequences)
            if bench.progress is not None:
                bench.progress(done, total)


def sequences_together(elastic: ElasticModel, profiles: Sequence[Profile], count: int) -> int:
    """Sequences of `count` that are walked, and written to the memory, together.

    One at a time on a CPU: a kill loses one of the population's. A GPU wants more work at once, and refits that cannot
    all be remembered would be made again for every walk.
    """
    remembered = refit_bytes(elastic, profiles) <= elastic.compensator.memo.limit
    return 1 if remembered and elastic.device.type != "cuda" else count


def measure_sensitivities(bench: Workbench, profiles: Sequence[Profile], sequences: range, step: int) -> None:
    """Measure what is not known yet of the sensitivities at `profiles` on `sequences` and record it, one row each."""
    walk = bench.walks[FITNESS]
    for number, profile in enumerate(profiles):
        known = {row.sequence for row in bench.memory.recall(Sensitivities, profile=profile, text=FITNESS)}
        missing = [sequence for sequence in sequences if sequence not in known]
        steps = count(number * len(sequences) + 1)

        def one_is_done(steps: Iterator[int] = steps) -> None:
            if bench.progress is not None:
                bench.progress(next(steps), len(profiles) * len(sequences))

        for _ in range(len(sequences) - len(missing)):
            one_is_done()
        try:
            for sequence, found in walk.first_order(profile, missing):
                bench.memory.record(
                    Sensitivities(profile, FITNESS, sequence, found.attention, found.mlp, bench.run, step)
                )
                one_is_done()
        except FirstOrderError as error:
            raise ToolError(str(error)) from error


def charge_sensitivities(bench: Workbench, profiles: Sequence[Profile], step: int) -> int:
    """Tokens that `step` of this run is charged for sensitivities of its own: `PASS_COST` for each of theirs."""
    own = bench.memory.recall(Sensitivities, profile=list(dict.fromkeys(profiles)), run=bench.run, step=step)
    return PASS_COST * len(own) * bench.sequence_length


def _scores(bench: Workbench, found: Measurement, text: str, step: int) -> list[Score]:
    """One row a sequence; a failed candidate is one on the first sequence it was tried on."""
    if found.error is not None:
        return [Score(found.profile, text, found.sequences.start, None, None, bench.run, step, found.error)]
    return [
        Score(found.profile, text, index, kl, nll, bench.run, step)
        for index, kl, nll in zip(found.sequences, found.kl, found.nll, strict=True)
    ]


def charge(bench: Workbench, profiles: Sequence[Profile], step: int, text: str = FITNESS) -> int:
    """Tokens that `step` of this run measured itself; what the memory already knew costs nothing."""
    own = (
        score
        for profile in dict.fromkeys(profiles)
        for score in bench.scores(profile, text).values()
        if score.run == bench.run and score.step == step
    )
    return sum(1 for _ in own) * bench.sequence_length


def _result(bench: Workbench, row: Candidate, fidelity: int) -> dict[str, Any]:
    found = bench.fitness(row.profile, fidelity)
    if found is None or found.nll is None:
        return {"id": row.id, "status": "failed", "error": bench.failure(row.profile) or "it was not measured"}
    result: dict[str, Any] = {
        "id": row.id,
        "status": "ok",
        "fitness": found.kl,
        "perplexity": perplexity([found.nll]),
    }
    changes = [change for parent in row.parents if (change := _change(bench, row, parent, fidelity)) is not None]
    if changes:
        result["change"] = changes
    return result


def _change(bench: Workbench, row: Candidate, parent_id: str, fidelity: int) -> dict[str, Any] | None:
    """The paired difference to a parent on the same sequences, where the parent was measured on all of them."""
    sequences = range(fidelity // bench.sequence_length)
    difference = bench.difference(row.profile, bench.candidate(parent_id).profile, sequences)
    if difference is None or difference.n < len(sequences):
        return None
    return {"parent": parent_id, "mean": difference.mean, "standard_error": difference.standard_error}


def _answer(fidelity: int, results: list[dict[str, Any]], charged: int) -> str:
    """The answer to one call, its results ranked in place."""
    for rank, result in enumerate(sorted(results, key=_best_first), start=1):
        result["rank"] = rank
    return json.dumps({"fidelity": fidelity, "results": results, "charged_tokens": charged})


def _best_first(result: dict[str, Any]) -> tuple[bool, float, str]:
    """Least fitness first, failures last."""
    return (result["status"] != "ok", result.get("fitness", 0.0), result["id"])
