"""What the four tools refuse, and in which words; what they accept is tested with the whole search."""

import json
from dataclasses import replace

import pytest
from langchain_core.messages import AIMessage

from self_pruner.agent.search.graph import act
from self_pruner.agent.search.state import first_state
from self_pruner.memory.records import Candidate, Latency, Score
from self_pruner.tools.benchmark_latency import latency_setting, timed_already
from self_pruner.tools.evaluation.first_order import PASS_COST
from tests.bench import LENGTH, founded_bench, tiny_settings


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return founded_bench(tmp_path_factory.mktemp("bench"), tiny_settings())


@pytest.fixture
def call(made):
    """Calls a tool as the graph does; returns its answer's text."""
    bench, starting = made

    def call(name, **arguments):
        from langgraph.graph import END, START, StateGraph

        from self_pruner.agent.search.state import SearchState

        graph = StateGraph(SearchState)
        graph.add_node("act", act(bench))
        graph.add_edge(START, "act")
        graph.add_edge("act", END)
        spoken = AIMessage(
            content="", tool_calls=[{"name": name, "args": arguments, "id": "s1.0", "type": "tool_call"}]
        )
        state = replace(first_state(starting, 0), step=1, messages=[spoken])
        return str(graph.compile().invoke(state)["messages"][-1].content)

    return call


REFUSED = {
    "a parent that does not exist": (
        "prune_model",
        {"operator": "mutation", "parents": ["c99"], "edits": [{"layer": 0, "part": "mlp", "change": 1}]},
        "there is no candidate 'c99'",
    ),
    "a mutation of nobody": ("prune_model", {"operator": "mutation"}, "mutation needs one parent, got 0"),
    "a crossover of one": (
        "prune_model",
        {"operator": "crossover", "parents": ["c1"], "layers": [0, 1]},
        "two parents",
    ),
    "a crossover without a cut": (
        "prune_model",
        {"operator": "crossover", "parents": ["c1", "c2"]},
        "layers or a mask",
    ),
    "a vector of the wrong length": (
        "prune_model",
        {"operator": "initialise", "attention": [1], "mlp": [1, 1, 1]},
        "each of the 3 layers, got 1",
    ),
    "a layer that does not exist": (
        "prune_model",
        {"operator": "mutation", "parents": ["c1"], "edits": [{"layer": 7, "part": "mlp", "change": 1}]},
        "between 0 and 2",
    ),
    "a fidelity that is none": ("evaluate", {"candidates": ["c1"], "fidelity": 7}, "fidelity must be one of 32, 64"),
    "sensitivities on other tokens": (
        "evaluate",
        {"candidates": ["c1"], "fidelity": 32, "sensitivities": True},
        "fidelity must be one of 64, got 32",
    ),
    "sensitivities of a stranger": (
        "evaluate",
        {"candidates": ["c9"], "fidelity": 64, "sensitivities": True},
        "there is no candidate 'c9'",
    ),
    "a stranger to evaluate": ("evaluate", {"candidates": ["c9"], "fidelity": 32}, "there is no candidate 'c9'"),
    "a stranger to time": ("benchmark_latency", {"candidate": "c9"}, "there is no candidate 'c9'"),
    "a survivor named twice": ("record_population", {"survivors": ["c1", "c1"], "note": ""}, "named once"),
    "a survivor of nowhere": ("record_population", {"survivors": ["c9"], "note": ""}, "of this generation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_call_that_makes_no_sense_is_refused_in_one_sentence(call, case):
    name, arguments, said = REFUSED[case]
    answer = call(name, **arguments)
    assert said in answer
    assert "Traceback" not in answer and "\n" not in answer


def test_the_best_cannot_be_left_out_of_the_survivors(call, made):
    call("evaluate", candidates=["c1", "c2"], fidelity=64)
    bench, _ = made
    fitness = {name: bench.fitness(bench.candidate(name).profile, 64).kl for name in ("c1", "c2")}
    best, other = sorted(fitness, key=fitness.get)
    assert f"the best candidate, {best}, must survive" in call("record_population", survivors=[other], note="")
    assert best in call("record_population", survivors=[best], note="a\nnote")


def test_a_call_that_is_carried_out_again_makes_the_same_candidate(call, made):
    cut, grow = {"layer": 0, "part": "mlp", "change": -2}, {"layer": 1, "part": "mlp", "change": 2}
    arguments = {"operator": "mutation", "parents": ["c1"], "edits": [cut, grow]}
    answer = call("prune_model", **arguments)
    assert '"known": false' in answer and answer == call("prune_model", **arguments)
    bench, _ = made
    assert len([row for row in bench.memory.recall(Candidate, run="run") if row.step == 1]) == 1


def test_sensitivities_are_answered_with_the_fitness_there_and_charged_the_same_if_carried_out_again(call, made):
    bench, _ = made
    profile = bench.candidate("c2").profile
    arguments = {"candidates": ["c2"], "fidelity": 64, "sensitivities": True}
    answer = json.loads(call("evaluate", **arguments))
    assert answer["results"][0]["fitness"] == pytest.approx(bench.fitness(profile, 64).kl, rel=1e-3)
    own = [row for row in bench.memory.recall(Score, profile=profile, run="run", step=1) if row.text == "fitness"]
    assert answer["charged_tokens"] == len(own) * LENGTH + PASS_COST * 64
    assert len(bench.sensitivities(profile)) == 4
    assert json.loads(call("evaluate", **arguments)) == answer


def test_a_failed_measurement_is_a_row_with_its_reason(call, made):
    bench, _ = made
    profile = bench.candidate("c2").profile
    weight = bench.elastic.model.model.layers[2].mlp.gate_proj.weight
    kept = weight[0].clone()
    try:
        weight[0] = float("nan")
        bench.memory.record(
            Candidate("run", "c50", profile.with_width(0, "mlp", 1), (), "initialise", "seed", 0, 0, 0, 0, 0, "")
        )
        answer = call("evaluate", candidates=["c50"], fidelity=32)
    finally:
        weight[0] = kept
    assert '"failed"' in answer and "finite" in answer
    (row,) = [row for row in bench.memory.recall(Score, profile=profile.with_width(0, "mlp", 1)) if row.error][:1]
    assert row.kl is None


def test_a_device_of_one_thread_is_said_in_the_singular_and_its_latencies_are_found_under_the_plural(made):
    bench = replace(made[0], device_name="a CPU 1 threads")
    profile = bench.budget.space.dense()
    numbers = latency_setting(bench, bench.engine).removeprefix("a CPU 1 thread, ")
    assert numbers.startswith(bench.engine.name)
    known = Latency(profile, f"a CPU 1 threads, {numbers}, run {bench.run}", {"decode_ms": 1.0}, bench.run, 0)
    bench.memory.record(known)
    assert timed_already(bench) == {profile: known}
