"""Run directories made up by hand, of any size, through the classes that a run itself writes with."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Any

from self_pruner.agent.result.outcome import SPENT, Difference, Outcome, Row, Yield
from self_pruner.agent.result.result_file import write_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Act, Judge, Reply, Think, TraceRecord
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Fact, Generation, Latency, Lesson, Score, Sensitivities
from self_pruner.memory.store import Memory

MARKUP = "</script><script>document.title='had'</script><img src=x onerror=\"document.title='had'\">"
LAYERS, GROUPS, BLOCKS = 6, 3, 12
LENGTH = 64  # tokens of a sequence; fitness on two of them, then four
SETTINGS = dict(sequence_length=LENGTH, fidelity=(128, 256), probe_tokens=64, final_tokens=128, reporting_tokens=128)
MAKERS = (("brain", "mutation"), ("switch", "mutation"), ("cross", "crossover"), ("chance", "mutation"))


def made_up(
    base: Path, name: str, *, generations: int = 3, offspring: int = 4, layers: int = LAYERS, over: bool = True
) -> RunDirectory:
    """A run whose search is `over`, with `offspring` candidates a generation; its status is still "running"."""
    settings = Settings(model="tiny", runs=base, memory=base / "memory.sqlite", sparsity=0.3, **SETTINGS).to_toml()
    with RunDirectory.create(base, name, settings, device="cpu", seed=0, now=datetime(2026, 1, 2)) as run:
        (run.prompts / "system.j2").write_text("You are {{ model.name }}.")
        (run.prompts / "ask_vary.j2").write_text("Task: vary {{ ask.parents|join(' or ') }}.")
        facts, records = search(run.id, generations, offspring, layers)
        if not over:
            records[-1] = records[-1].model_copy(update={"stop": None})
        with Memory(run.records, "context", {}, durable=False) as memory:
            memory.record(*facts)
        run.trace.write_text("".join(record.model_dump_json() + "\n" for record in records))
        run.checkpoint.touch()
    return run


def search(run: str, generations: int, offspring: int, layers: int) -> tuple[list[Fact], list[TraceRecord]]:
    """What it made and measured, and its trace: 13 and more records a generation."""
    chance = random.Random(0)
    facts: list[Fact] = []
    records: list[TraceRecord] = []
    dense = Profile((GROUPS,) * layers, (BLOCKS,) * layers)
    for layer in range(layers):
        facts.append(Score(dense.with_width(layer, "mlp", 8), "fitness", 0, 0.1 / (layer + 1), 3.0, run, -1))
    spent = {"evaluations": 0.0, "tokens": 500.0, "brain_tokens": 0.0, "minutes": 0.1}
    step = 0
    scored: dict[str, float] = {}
    profiles: dict[str, Profile] = {}
    known: set[Profile] = set()
    ranked: set[str] = set()  # measured at the last fidelity

    def make(maker: str, operator: str, generation: int, parents: tuple[str, ...], detail: str) -> dict[str, Any]:
        name = f"c{len(profiles) + 1}"
        start = profiles[parents[0]] if parents else Profile((2,) * layers, (8,) * layers)
        profile = start
        while profile in known or (parents and profile == start):
            profile = profile.with_width(chance.randrange(layers), "mlp", chance.randint(2, BLOCKS))
        profiles[name] = profile
        known.add(profile)
        before = scored[parents[0]] if parents else 1.2
        scored[name] = max(0.2, before * chance.uniform(0.97, 1.06))
        facts.append(
            Candidate(run, name, profile, parents, operator, maker, generation, step, 0, 2, 1000, detail)  # type: ignore[arg-type]
        )
        whole = not parents or chance.random() < 0.7
        ranked.update([name] if whole else [])
        for sequence in range(4 if whole else 2):
            facts.append(Score(profile, "fitness", sequence, scored[name] + 0.01 * sequence, 3.0, run, step))
        row = {"id": name, "known": False, "attention": list(profile.attention), "mlp": list(profile.mlp)}
        return row | {"repaired_units": 2, "operator": operator, "proposed_by": maker}

    make("seed", "initialise", 0, (), "uniform")
    make("seed", "initialise", 0, (), "ends: attention, first 1 and last 1 layers whole")
    make("seed", "initialise", 0, (), "closed form: 9 attention units in all")
    population = sorted(scored, key=lambda one: scored[one])
    facts.append(
        Sensitivities(
            profiles["c1"], "fitness", 0, ((0.1,) * (GROUPS + 1),) * layers, ((0.1,) * (BLOCKS + 1),) * layers, run, 1
        )
    )
    shift = ("mlp 0-1", "mlp 4-5", "some", "better")
    facts.append(Lesson("earlier", 1, 0, *shift, "held", -0.02, 0.01, (), 900, 3, f"Small {MARKUP}"))
    facts.append(Latency(profiles["c1"], "here", {"prefill_ms": 3.0, "decode_ms": 1.0, "speedup": 1.2}, run, 1))
    for generation in range(generations):
        made = []
        for index in range(offspring):
            maker, operator = MAKERS[index % len(MAKERS)]
            step += 1
            parents = (population[0], population[1]) if operator == "crossover" else (chance.choice(population),)
            row = make(maker, operator, generation, parents, "L1.mlp-1 L2.mlp+1")
            made.append(row["id"])
            prompt = (
                f"You are tiny.\nBudget: 30%.\n\nGeneration {generation}.\nBest {population[0]} {MARKUP}\nTask {index}."
            )
            call = {
                "operator": operator,
                "parents": list(parents),
                "edits": [{"layer": 1, "part": "mlp", "change": -1}],
            }
            asked = maker == "brain"
            reply = Reply(
                raw=f"{MARKUP} raw", thought=f"Layer 1 {MARKUP} seems cheap", call={"name": "prune_model", "args": call}
            )
            records.append(
                Think(
                    **dict(step=step, generation=generation, prompt=prompt if asked else "(the tool's operators)"),
                    **dict(
                        replies=(reply,) if asked else (),
                        input_tokens=90 if asked else 0,
                        output_tokens=20,
                        seconds=0.5,
                    ),
                    error="the brain wrote no call" if asked and generation == 1 else None,
                )
            )
            spent["brain_tokens"] += 110 if asked else 0
            records.append(
                Act(step=step, call=0, tool="prune_model", arguments=call, result={"candidates": [row]}, repair=2)
            )
            records.append(_judge(step, generation, spent))
        step += 1
        records.append(Think(step=step, generation=generation, prompt="(one legal call, nothing to decide)"))
        for number, fidelity in enumerate((128, 256)):
            results = [
                {"id": name, "status": "ok", "fitness": scored[name], "perplexity": 9.0, "rank": 1} for name in made
            ]
            answer = {"fidelity": fidelity, "results": results, "charged_tokens": 500}
            arguments = {"candidates": made, "fidelity": fidelity}
            records.append(Act(step=step, call=number, tool="evaluate", arguments=arguments, result=answer, tokens=500))
        spent["evaluations"] += len(made)
        spent["tokens"] += 1000
        spent["minutes"] += 0.2
        records.append(_judge(step, generation, spent))
        step += 1
        population = sorted({*population, *made} & ranked, key=lambda one: scored[one])[:4]
        facts.append(Generation(run, generation, tuple(population), population[0], f"note {MARKUP}", step))
        answer = {"generation": generation, "survivors": population, "best": population[0], "note": f"note {MARKUP}"}
        records.append(Think(step=step, generation=generation, prompt="(one legal call, nothing to decide)"))
        arguments = {"survivors": population, "note": ""}
        records.append(Act(step=step, call=0, tool="record_population", arguments=arguments, result=answer))
        stop = "16 evaluations are used up" if generation == generations - 1 else None
        records.append(_judge(step, generation + 1, spent, population[0], scored[population[0]], stop))
    return facts, records


def _judge(
    step: int,
    generation: int,
    spent: dict[str, float],
    best: str | None = None,
    fitness: float | None = None,
    stop: str | None = None,
) -> Judge:
    return Judge(step=step, generation=generation, spent=dict(spent), best=best, fitness=fitness, stop=stop)


def finish(run: RunDirectory, candidate: str = "c1") -> RunDirectory:
    """Gives the run its result."""
    names = ("dense", "uniform", "closed form", "found")
    rows = [
        Row(
            name=name,
            params=1000 - 100 * (number > 0),
            kl=0.9 - 0.2 * number if number else 0.0,
            perplexity=9.0 + number,
        )
        for number, name in enumerate(names)
    ]
    outcome = Outcome(
        **dict(
            candidate=candidate, attention=[2] * LAYERS, mlp=[8] * LAYERS, dense={"attention": GROUPS, "mlp": BLOCKS}
        ),
        **dict(
            sparsity=0.3,
            stop="16 evaluations are used up",
            rows=rows,
            measured_on=f"a text {MARKUP}",
            latency_setting=None,
        ),
        differences=[Difference(against="closed form", mean=-0.1, standard_error=0.01, sequences=4)],
        holdout={candidate: 0.3, "c3": 0.4},
        spent=dict.fromkeys(SPENT, 1.0) | {"probe_tokens": 500.0, "brain_tokens": 330.0},
        yields=[Yield(proposed_by="brain", operator="mutation", made=3, compared=2, improved=1)],
        warnings=[f"a warning {MARKUP}"],
        verified=0.0,
    )
    write_outcome(outcome, run.path)
    run.set_status("finished", outcome.stop)
    return run
