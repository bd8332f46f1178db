"""What a legal tool call costs the target model, and whether it is ever not legal.

    python benchmarks/brain.py                  # steps and seconds a call, with and without forced tokens; memory
    python benchmarks/brain.py --turns 1000     # and malformed and illegal replies among that many sampled ones

Both sides of the comparison run in turn, on the same prompt with the same seeds, and must make the same decisions.
Replies are checked by agent.brain.schema.violations, which shares no code with the grammar.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.schema import violations
from self_pruner.tools.models.source import load, resolve

SYSTEM = """You are {name}, a language model that prunes itself. You choose how many units of every layer to keep.
{layers} layers; attention: {groups} units a layer; mlp: {blocks} units a layer. One attention unit weighs 5 mlp units.
Goal: the lowest fitness (KL divergence from the dense model, nats a token) at 30% sparsity.
Cheapest to cut: layer 21 mlp, layer 23 mlp, layer 11 attention, layer 26 mlp, layer 17 attention.
Dearest to cut: layer 0 mlp, layer 29 mlp, layer 1 attention, layer 28 mlp."""
TURN = """Generation {generation}. Candidates, best first:
c1 fitness 0.8{digit} uniform; c12 fitness 0.79{digit} from c1; c3 fitness 0.96; c9 failed.
Last moves: c12 = c1 with layer 21 mlp -4, layer 0 mlp +4: 0.03 better. c3 = c1 with layer 0 mlp -6: 0.14 worse.
Spent {generation}0 of 400 evaluations. Note to yourself: the middle layers give, the ends do not.
{task}"""
LAYERS = [21, 23, 11, 26, 17, 0, 29, 1, 28]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A legal call in OpenAI's form, every argument required."""
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


def listed(items: Any, low: int, high: int) -> dict[str, Any]:
    """An array of `low` to `high` elements."""
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


def kinds(n_layers: int, n_groups: int, n_blocks: int) -> dict[str, dict[str, Any]]:
    """The calls of a run: a mutation by edits, the close of a generation, a crossover, and whole vectors."""
    edit = tool(
        "",
        layer={"enum": [layer for layer in LAYERS if layer < n_layers] or [0]},
        part={"enum": ["attention", "mlp"]},
        change={"enum": [-8, -4, -2, -1, 1, 2, 4, 8]},
    )["function"]["parameters"]
    ids = ["c1", "c12", "c3"]
    return {
        "edits": tool(
            "prune_model",
            operator={"const": "mutation"},
            parents=listed({"enum": ids}, 1, 1),
            edits=listed(edit, 2, 4),
        ),
        "crossover": tool(
            "prune_model",
            operator={"const": "crossover"},
            parents={"type": "array", "prefixItems": [{"enum": ids[:2]}, {"const": ids[2]}], "items": False,
                     "minItems": 2, "maxItems": 2},
            layers={"type": "array", "prefixItems": [{"type": "integer", "minimum": 0, "maximum": n_layers // 2 - 1},
                    {"type": "integer", "minimum": n_layers // 2, "maximum": n_layers - 1}], "items": False,
                    "minItems": 2, "maxItems": 2},
        ),
        "survivors": tool(
            "record_population",
            survivors={"type": "array", "prefixItems": [{"const": "c12"}, {"enum": ["c1", "c3"]},
                       {"enum": ["c4", "c5", "c6"]}, {"enum": ["c7", "c8"]}], "items": False,
                       "minItems": 4, "maxItems": 4},
            note={"type": "string", "maxLength": 80},
        ),
        "vectors": tool(
            "prune_model",
            operator={"const": "initialise"},
            attention=listed({"type": "integer", "minimum": 1, "maximum": n_groups}, n_layers, n_layers),
            mlp=listed({"type": "integer", "minimum": 1, "maximum": n_blocks}, n_layers, n_layers),
        ),
    }  # fmt: skip


def ask(brain: TargetBrain, facts: dict[str, Any], tools: list[Any], turn: int, n: int = 1) -> list[AIMessage]:
    """`n` replies to turn number `turn`; its number is also the seed."""
    task = "Answer with one call of " + " or ".join(sorted({entry["function"]["name"] for entry in tools})) + "."
    page = TURN.format(generation=turn % 40 + 1, digit=turn % 10, task=task)
    messages = [SystemMessage(SYSTEM.format(**facts)), HumanMessage(page)]
    result = brain.generate([messages], tools=tools, n=n, seed=turn)
    replies = [generation.message for generation in result.generations[0] if isinstance(generation, ChatGeneration)]
    return [reply for reply in replies if isinstance(reply, AIMessage)]


def compare(brain: TargetBrain, facts: dict[str, Any], calls: dict[str, Any], rounds: int) -> None:
    """Prints forward passes and seconds a call, with forced tokens and without, for every kind of call."""
    print(f"\nOne call alone, prompt cached, {rounds} calls of a kind (forward passes, seconds):")
    print(f"{'call':<26}{'tokens':>8}{'without':>18}{'with':>16}{'fewer':>8}{'faster':>8}")
    rows = [(kind, [entry], 0) for kind, entry in calls.items()]
    rows.append(("edits, with a thought", [calls["edits"]], brain.thought_tokens))
    for label, tools, thought in rows:
        sides: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for turn in range(rounds):
            said = {}
            for forced in (False, True):
                one = brain.model_copy(update={"forced": forced, "thought_tokens": thought})
                ask(
                    one.model_copy(update={"max_call_tokens": 1}), facts, tools, turn
                )  # reads the prompt into the cache
                (message,) = ask(one, facts, tools, turn)
                sides[forced].append(message.response_metadata)
                said[forced] = message.response_metadata["raw"]
            if said[False] != said[True]:
                raise SystemExit(f"the two sides decided differently: {said[False]!r} and {said[True]!r}")
        steps = {side: statistics.mean(cost["decode_steps"] for cost in costs) for side, costs in sides.items()}
        seconds = {side: statistics.mean(cost["seconds"] for cost in costs) for side, costs in sides.items()}
        tokens = statistics.mean(cost["output_tokens"] for cost in sides[True])
        print(
            f"{label:<26}{tokens:>8.1f}{steps[False]:>10.1f}{seconds[False]:>7.2f}s{steps[True]:>8.1f}{seconds[True]:>7.2f}s"
            f"{steps[False] / steps[True]:>7.1f}x{seconds[False] / seconds[True]:>7.1f}x",
            flush=True,
        )


def count(brain: TargetBrain, facts: dict[str, Any], calls: dict[str, Any], turns: int, batch: int) -> int:
    """Samples `turns` replies and prints how many are malformed or illegal; returns that number."""
    choices = [[entry] for entry in calls.values()] + [[calls["edits"], calls["survivors"]]]
    tally: Counter[str] = Counter()
    distinct = set()
    started = time.monotonic()
    tokens = 0
    number = 0
    while tally["replies"] < turns:
        tools = choices[number % len(choices)]
        for message in ask(brain, facts, tools, number, min(batch, turns - tally["replies"])):
            raw = message.response_metadata["raw"]
            tokens += message.response_metadata["output_tokens"]
            tally["replies"] += 1
            distinct.add(raw.rpartition("\n")[2])
            tally[judged(raw, message, tools, brain.thought_tokens > 0)] += 1
        number += 1
        print(f"\r{tally['replies']}/{turns} {dict(tally)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    seconds = time.monotonic() - started
    print(
        f"\n{tally['replies']} sampled replies in batches of {batch}, {brain.thought_tokens} tokens of thought: "
        f"{tally['malformed']} malformed, {tally['illegal']} illegal, {len(distinct)} distinct calls; "
        f"{seconds / turns:.2f} s a reply, {tokens / seconds:.0f} tokens a second"
    )
    return tally["malformed"] + tally["illegal"]


def judged(raw: str, message: AIMessage, tools: list[dict[str, Any]], thinks: bool = True) -> str:
    """Whether a reply is "legal", "illegal" or "malformed", by its text and by the message made of it."""
    thought, _, text = raw.partition("\n") if thinks else ("", "", raw)
    try:
        call = json.loads(text)
    except json.JSONDecodeError:
        return "malformed"
    made = [{"name": made["name"], "arguments": made["args"]} for made in message.tool_calls]
    if made != [call] or thinks != bool(thought.strip()) or any(ord(character) < 32 for character in thought + text):
        return "malformed"
    for entry in tools:
        legal = {"type": "object", "properties": {"name": {"const": entry["function"]["name"]},
                 "arguments": entry["function"]["parameters"]}, "required": ["name", "arguments"],
                 "additionalProperties": False}  # fmt: skip
        if not violations(legal, call):
            return "legal"
    print("illegal:", text)
    return "illegal"


def weight_bytes(model: Any) -> int:
    """Bytes of the distinct storages that hold a model's parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def addresses(model: Any) -> set[int]:
    """Where a model's parameters lie."""
    return {parameter.data_ptr() for parameter in model.parameters()}


def resident() -> float:
    """Most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Runs the parts that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="calls of every kind in the comparison; 0 skips it")
    parser.add_argument("--turns", type=int, default=0, help="sampled replies to count faults in")
    parser.add_argument("--batch", type=int, default=8, help="samples of one prompt")
    parser.add_argument("--thought-tokens", type=int, default=32)
    options = parser.parse_args()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.device}")
    loaded = load(resolve(options.model), device=options.device, dtype=options.dtype)
    config = loaded.model.config
    with torch.inference_mode():  # weights mapped from disk count only once they are touched
        loaded.model(torch.ones(1, 300, dtype=torch.long, device=options.device), logits_to_keep=1)
    weights, held = weight_bytes(loaded.model), resident()
    places = addresses(loaded.model)
    brain = TargetBrain(model=loaded.model, tokenizer=loaded.tokenizer, thought_tokens=options.thought_tokens)
    blocks = config.intermediate_size // 32
    facts = {
        "name": loaded.name,
        "layers": config.num_hidden_layers,
        "groups": config.num_key_value_heads,
        "blocks": blocks,
    }
    calls = kinds(config.num_hidden_layers, config.num_key_value_heads, blocks)
    (first,) = ask(brain, facts, [calls["edits"]], 0)
    print(f"prompt of {first.response_metadata['prompt_tokens']} tokens; a reply: {first.response_metadata['raw']!r}")
    same = addresses(brain.branches.model) == places
    if options.rounds:
        compare(brain, facts, calls, options.rounds)
    faults = count(brain, facts, calls, options.turns, options.batch) if options.turns else 0
    inside = weight_bytes(brain.branches.model)
    print(
        f"weights {weights / 2**20:.0f} MB before the brain, {inside / 2**20:.0f} MB in it (the same tensors: {same}); "
        f"peak resident {held:.0f} MB after one dense pass, {resident():.0f} MB after all replies"
    )
    if faults:
        raise SystemExit(f"{faults} replies were not legal calls")


if __name__ == "__main__":
    main()
