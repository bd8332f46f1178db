"""The sorts of file that are invented: traces, weights and configs, prompt templates, memories."""

from __future__ import annotations

import json
import shutil
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.campaign.inventing import Made, changed, mutated


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
    from self_pruner.memory.records import Candidate, Generation, Latency, Lesson, PromptUse, Score, Sensitivities
    from self_pruner.memory.store import TABLES, Memory

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

    def attempt(data: bytes) -> None:
        for old in folder.glob("memory.sqlite*"):
            old.unlink()
        path.write_bytes(data)
        with closing(Memory(path, "context", {})) as memory:
            memory.record(*facts)
            for kind in TABLES:
                memory.recall(kind)

    return st.one_of(mutated([good]), st.binary(max_size=200), st.just(b"")), attempt
