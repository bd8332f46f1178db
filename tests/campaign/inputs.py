"""The sorts of input that come from outside, and how each is invented: settings, calls, replies, files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.campaign.fuzz import Target
from tests.campaign.input_files import memory_files, prompt_templates, trace_lines, weights
from tests.campaign.inventing import Made, changed, edited, edits, mutated, odd_json, odd_number, odd_text


def settings(folder: Path) -> Made:
    """Command lines, and the settings.toml of a run."""
    from self_pruner.agent.command_line.commands import command_line
    from self_pruner.agent.run_files.run_directory import RunDirectory
    from self_pruner.agent.run_files.tables import settings_file
    from self_pruner.agent.settings.settings import Settings, make_settings
    from tests.command_line import given

    names = ["--" + name.replace("_", "-") for name in Settings.model_fields] + [
        "--step",
        "--output",
        "--arms",
        "--no-export",
    ]
    good = ["0.3", "64", "128,256", "49B", "self", "hybrid", "float32", "cpu", "http://localhost/v1", "passages"]
    value = st.one_of(odd_text, odd_number.map(str), st.sampled_from(good))
    commands = ["", "run", *command_line.commands]
    line = st.tuples(
        st.sampled_from(commands),
        st.lists(st.tuples(st.sampled_from(names), value), max_size=4),
    ).map(
        lambda drawn: [word for word in (drawn[0], *(word for pair in drawn[1] for word in pair)) if word or drawn[0]]
    )
    with RunDirectory.create(folder, "tiny", Settings().to_toml(), device="cpu", seed=0) as made:
        path = made.path
    text = (path / "settings.toml").read_bytes()
    table = changed(Settings().to_toml())

    def attempt(drawn: tuple[str, Any]) -> None:
        kind, value = drawn
        if kind == "line":
            found = make_settings(given(value)).anchored()
            assert make_settings(found.to_toml()) == found
            settings_file(found.to_toml())
        elif kind == "table":
            make_settings(value).anchored()
        else:
            (path / "settings.toml").write_bytes(value)
            make_settings(RunDirectory.open(path).settings).anchored()

    kinds = {"line": line, "table": table.filter(lambda value: isinstance(value, dict)), "file": mutated([text])}
    return st.one_of(
        *(strategy.map(lambda value, kind=kind: (kind, value)) for kind, strategy in kinds.items())
    ), attempt


def tool_arguments(folder: Path) -> Made:
    """What a brain may say in any turn of a search, and what the tools make of it where it counts as legal."""
    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, StateGraph

    from self_pruner.agent.brain.schema import sample_call
    from self_pruner.agent.brain.scripted import UniformBrain
    from self_pruner.agent.search.graph import act
    from self_pruner.agent.search.state import SearchState
    from self_pruner.agent.search.think import Thinker
    from tests.agent.search.test_search import Search
    from tests.scripted_brains import ScriptBrain

    turns: list[tuple[Any, ...]] = []
    real = Thinker.ask

    def ask(thinker: Thinker, *turn: Any) -> Any:
        turns.append((thinker, *turn))
        return real(thinker, *turn)

    Thinker.ask = ask  # type: ignore[method-assign]
    search = Search(folder, UniformBrain(seed=0), evaluations=16, arm="self")
    search.go()
    Thinker.ask = real  # type: ignore[method-assign]
    bench = search.bench
    graph = StateGraph(SearchState)
    graph.add_node("act", act(bench))
    graph.add_edge(START, "act")
    graph.add_edge("act", END)
    compiled = graph.compile()
    name = st.one_of(st.none(), odd_text, st.sampled_from(["evaluate", "prune_model", "benchmark_latency"]))
    reply = st.tuples(st.integers(0, 2**32), edits, name)

    def said(turn: Any, drawn: tuple[int, Any, str | None]) -> dict[str, Any]:
        number, changes, name = drawn
        rng = random.Random(number)
        tool = rng.choice(turn.tools)["function"]
        arguments = edited(sample_call(tool["parameters"], rng), changes)
        return {
            "thought": "so",
            "name": tool["name"] if name is None or rng.random() < 0.8 else name,
            "args": arguments,
        }

    def attempt(drawn: tuple[int, list[Any]]) -> None:
        number, replies = drawn
        thinker, state, here, legal = turns[number % len(turns)]
        script = ScriptBrain(
            seed=0, replies=[said(legal, replies[index % len(replies)]) for index in range(legal.replies)]
        )
        decision = replace(thinker, brain=script).ask(state, here, legal)
        for index, call in enumerate(decision.calls):
            named = {
                "name": call["name"],
                "args": call["arguments"],
                "id": f"s{state.step + 1}.{index}",
                "type": "tool_call",
            }
            message = AIMessage("", tool_calls=[named])
            compiled.invoke(replace(state, step=state.step + 1, proposed_by="brain", messages=[message]))

    return st.tuples(st.integers(0, 1000), st.lists(reply, min_size=1, max_size=3)), attempt


def endpoint_replies(folder: Path) -> Made:
    """What a server says: to the question which model it has, and in place of a reply of the brain."""
    from langchain_core.messages import HumanMessage, SystemMessage

    from self_pruner.agent.brain.endpoint import Endpoint, Served, obeys_schemas, served_model
    from self_pruner.agent.brain.remote import EndpointBrain
    from self_pruner.agent.brain.schema import violations
    from self_pruner.agent.search.replies import record_of
    from tests.agent.brain.test_endpoint import PICK, Words
    from tests.endpoint import MODELS, serving

    answer: list[Any] = [{}]
    server = serving(lambda body: answer[0], models=lambda: answer[0]).__enter__()  # type: ignore[arg-type]
    endpoint = Endpoint(server.url, timeout=3.0)
    brain = EndpointBrain(endpoint=endpoint, served=Served("target", 4096), tokenizer=Words())
    call = json.dumps({"thought": "so", "name": "pick", "arguments": {"number": 2, "kind": "odd"}})
    spoken = {"message": {"role": "assistant", "content": call}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
    good = {"choices": [spoken, spoken], "usage": usage}
    said = st.one_of(
        changed(good),
        changed(json.loads(call)).map(lambda value: {"choices": [{"message": {"content": json.dumps(value)}}]}),
        changed(MODELS),
        mutated([json.dumps(good).encode()]).map(lambda data: data.decode("latin-1")),
        st.tuples(st.sampled_from([200, 400, 401, 404, 500]), odd_json),
        odd_json.filter(lambda value: value is not None),
    )

    def attempt(value: Any) -> None:
        answer[0] = list(value) if isinstance(value, tuple) and not isinstance(value[0], int) else value
        messages: list[Any] = []
        try:
            made = brain.generate([[SystemMessage("You pick."), HumanMessage("Pick.")]], tools=[PICK], n=2, seed=1)
            messages = [one.message for one in made.generations[0]]  # type: ignore[union-attr]
            for message in messages:
                for spoken in message.tool_calls:
                    violations(PICK["function"]["parameters"], spoken["args"])
        finally:
            record_of(messages, step=1, generation=0, prompt="prompt", seconds=0.1)
        obeys_schemas(endpoint, "target")

    def both(value: Any) -> None:
        try:
            attempt(value)
        finally:
            answer[0] = value
            served_model(endpoint, None)

    return said, both


TARGETS: dict[str, Target] = {
    "settings": settings,
    "tool arguments": tool_arguments,
    "endpoint replies": endpoint_replies,
    "trace lines": trace_lines,
    "weights": weights,
    "prompt templates": prompt_templates,
    "memory files": memory_files,
}
