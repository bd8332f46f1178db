"""The sorts of input that come from outside, and how each is invented: settings, calls, replies, files."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.campaign.fuzz import Attempt, Target

Made = tuple[SearchStrategy[Any], Attempt]

odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "nan", "inf", "-1", "0", "1e999", "0x10", "..", "/", "~", "\x00", "\x1b[2J", "{{", "%s", "a,b"]
    ),
)
odd_number = st.one_of(
    st.integers(-5, 5),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30]),
    st.floats(allow_nan=True, allow_infinity=True),
)
odd_json = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_number, odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(odd_text, inner, max_size=4)),
    max_leaves=12,
)


def mutated(whole: Sequence[bytes]) -> SearchStrategy[bytes]:
    """A good file with a few places overwritten, cut out, doubled or filled with something else."""
    edit = st.tuples(
        st.sampled_from(["write", "cut", "double", "insert"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\x00", b"\xff" * 8, b"null", b"1e999", b'"', b"[" * 2000]),
        ),
    )
    return st.tuples(st.sampled_from(list(whole)), st.lists(edit, max_size=4)).map(_edited)


def _edited(drawn: tuple[bytes, list[tuple[str, float, bytes]]]) -> bytes:
    data, edits = drawn
    for what, share, piece in edits:
        at = int(share * len(data))
        if what == "write":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "cut":
            data = data[:at] + (data[at + len(piece) * 16 :] if len(piece) < 8 else b"")
        elif what == "double":
            data = data[:at] + data[at : at + 200] + data[at:]
        else:
            data = data[:at] + piece + data[at:]
    return data


edits = st.lists(st.tuples(st.integers(0, 2**32), st.sampled_from(["put", "drop", "add"]), odd_json), max_size=3)


def changed(good: Any) -> SearchStrategy[Any]:
    """A good JSON value with a few of its places replaced, removed or added."""
    return edits.map(lambda drawn: _changed(json.loads(json.dumps(good)), drawn))


def _changed(value: Any, edits: list[tuple[int, str, Any]]) -> Any:
    for number, what, drawn in edits:
        new = json.loads(json.dumps(drawn))  # what is put into itself would be no JSON
        rng, inside = random.Random(number), value
        while isinstance(inside, dict | list) and inside:
            key = rng.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
            below = inside[key]
            if not isinstance(below, dict | list) or not below or rng.random() < 0.3:
                if what == "drop":
                    del inside[key]
                elif what == "add" and isinstance(inside, dict):
                    inside[str(new)[:20]] = below
                else:
                    inside[key] = new
                break
            inside = below
    return value


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
        arguments = _changed(sample_call(tool["parameters"], rng), changes)
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


def trace_lines(folder: Path) -> Made:
    """A trace that was cut, overwritten or is of something else."""
    from self_pruner.agent.run_files.trace import Act, Judge, Reply, Think, TraceWriter, by_step, read_trace

    path = folder / "trace.jsonl"
    call = {"name": "prune_model", "args": {"operator": "mutation"}}
    records = [
        Think(step=1, generation=0, prompt="a prompt", replies=(Reply(raw="raw", thought="so", call=call),)),
        Act(step=1, call=0, tool="prune_model", arguments={"parents": ["c1"]}, result={"candidates": []}),
        Judge(step=1, generation=0, spent={"evaluations": 1.0}, best="c1", fitness=0.5),
    ]
    lines = [record.model_dump_json() for record in records]
    whole = "\n".join(lines).encode() + b"\n"
    line = st.one_of(*(changed(json.loads(one)).map(lambda value: json.dumps(value).encode() + b"\n") for one in lines))

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        with TraceWriter(path) as writer:
            writer.write(records[0])
        by_step(read_trace(path))

    return st.one_of(mutated([whole, whole * 3]), line, st.binary(max_size=200)), attempt


def weights(folder: Path) -> Made:
    """Headers of safetensors files, configs and indices; what passes every check is loaded."""
    from self_pruner.tools.models.checkpoint import digest_of, inspect
    from self_pruner.tools.models.source import skeleton
    from tests.tiny import tiny_model

    tiny_model("llama").save_pretrained(folder / "good")
    config = json.loads((folder / "good" / "config.json").read_text())
    data = (folder / "good" / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    index = {"metadata": {}, "weight_map": {name: "model.safetensors" for name in header if name != "__metadata__"}}

    def packed(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + rest

    kinds = {
        "model.safetensors": st.one_of(
            changed(header).map(packed), mutated([data[: 8 + length], data]), st.binary(max_size=64)
        ),
        "config.json": st.one_of(
            changed(config).map(lambda value: json.dumps(value).encode()), mutated([json.dumps(config).encode()])
        ),
        "model.safetensors.index.json": st.one_of(
            changed(index).map(lambda value: json.dumps(value).encode()), mutated([json.dumps(index).encode()])
        ),
    }
    case = folder / "case"

    def attempt(drawn: tuple[str, bytes]) -> None:
        name, content = drawn
        if case.exists():
            shutil.rmtree(case)
        shutil.copytree(folder / "good", case)
        if name.endswith("index.json"):
            (case / "model.safetensors").rename(case / "model-00001-of-00001.safetensors")
        (case / name).write_bytes(content)
        try:
            checked = inspect(case)
        finally:
            digest_of(case)
        skeleton(checked.config, "case")

    return st.one_of(
        *(strategy.map(lambda value, name=name: (name, value)) for name, strategy in kinds.items())
    ), attempt


PIECES = """
{{ run.model.name }} {{ run.budget.sparsity | percent }} {{ generation }} {{ ask.count }} {{ history.best }}
{% for c in history.population %} {% endfor %} {{ loop.index }} {% if thought %} {% else %} {% endif %} {{ 'x' * 99 }}
{{ range(10) | list }} {{ 1.0 | decimals(9) }} {% include 'ask_vary.j2' %} {% set a = [] %} {{ a.append(1) }}
{{ ''.__class__ }} {{ self }} {{ x }} {% macro m(a) %} {% endmacro %} {{ m(1) }} {# {% raw %} {% endraw %} | , . ( )
{{ 10 ** 9 }} {{ 'a' | center(999) }} {{ namespace(a=1).a }} {% import 'turn.j2' as t %} {{ caller() }} [ ] - + ~ text
"""


def prompt_templates(folder: Path) -> Made:
    """Prompt files of a user."""
    from self_pruner.prompts.templates import PromptSet

    mine = folder / "prompts"
    mine.mkdir()
    sources = [path for path in sorted((Path(__file__).parents[2] / "prompts" / "default").glob("*")) if path.is_file()]
    names = [path.name for path in sources if path.suffix in (".j2", ".toml")]
    text = st.one_of(
        st.lists(st.sampled_from(PIECES.split()), max_size=30).map(" ".join),
        mutated([path.read_bytes() for path in sources]).map(lambda data: data.decode("utf-8", "replace")),
        st.text(max_size=60),
    )

    def attempt(drawn: tuple[str, str]) -> None:
        name, content = drawn
        for path in mine.iterdir():
            path.unlink()
        (mine / name).write_text(content, encoding="utf-8", errors="replace")
        PromptSet("default", mine).check()

    return st.tuples(st.sampled_from(names), text), attempt


def memory_files(folder: Path) -> Made:
    """Memory files that were damaged, or are something else."""
    from self_pruner.memory.profile import Profile
    from self_pruner.memory.records import (
        Candidate,
        Fitness,
        Generation,
        Latency,
        Lesson,
        PromptUse,
        Score,
        Sensitivities,
        TaskScore,
    )
    from self_pruner.memory.store import Memory

    path = folder / "memory.sqlite"
    profile = Profile((1, 2), (3, 4))
    facts = [
        Candidate("run", "c1", profile, (), "initialise", "seed", 0, 0, 0, 0, 10, "uniform"),
        *(Score(profile, "fitness", number, 0.1, 1.0, "run", 0) for number in range(40)),
        Sensitivities(profile, "fitness", 0, ((0.0, 0.1),), ((0.0, 0.1),), "run", 0),
        Latency(profile, "here", {"decode_ms": 1.0}, "run", 0),
        Generation("run", 0, ("c1",), "c1", "a note", 0),
        Lesson("run", 1, 0, "mlp 0", "mlp 1", "some", "better", "held", -0.1, 0.01, ("c1",), 10, 1),
        PromptUse("run", "0123456789ab", "mine", "tiny", *range(11), 1),
    ]
    with closing(Memory(path, "context", {})) as memory:
        memory.record(*facts)
    good = path.read_bytes()
    kinds = (Candidate, Score, Sensitivities, TaskScore, Latency, Generation, Lesson, PromptUse, Fitness)

    def attempt(data: bytes) -> None:
        for old in folder.glob("memory.sqlite*"):
            old.unlink()
        path.write_bytes(data)
        with closing(Memory(path, "context", {})) as memory:
            memory.record(*facts)
            for kind in kinds:
                memory.recall(kind)

    return st.one_of(mutated([good]), st.binary(max_size=200), st.just(b"")), attempt


TARGETS: dict[str, Target] = {
    "settings": settings,
    "tool arguments": tool_arguments,
    "endpoint replies": endpoint_replies,
    "trace lines": trace_lines,
    "weights": weights,
    "prompt templates": prompt_templates,
    "memory files": memory_files,
}
