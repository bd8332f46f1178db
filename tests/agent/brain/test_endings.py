"""Replies that come near their limit are ended in time, and all others stay as they are."""

import json
import random

import pytest
from langchain_core.messages import HumanMessage
from llguidance.hf import from_tokenizer

from self_pruner.agent.brain import decode
from self_pruner.agent.brain.calls import call_schemas
from self_pruner.agent.brain.endings import ending
from self_pruner.agent.brain.grammar import GrammarConstraint, call_grammar
from self_pruner.agent.brain.schema import bounded, violations
from self_pruner.agent.search.legal_calls import NOTE_LENGTH
from tests.brain_schemas import ALL, CHOICE, MUTATE, RECORD, function, initialise, parameters
from tests.brain_tiny import llama2_like_tokenizer, tiny_brain, tiny_tokenizer

JOKE = [HumanMessage("Tell a joke.")]
TEXT = {"type": "string"}
TWO = function("tell", {"setup": TEXT, "punchline": TEXT})
OPEN = function(
    "tell",
    {
        "long": {"type": "string", "minLength": 30},
        "numbers": {"type": "array", "items": {"type": "number"}, "minItems": 3},
        "words": {"type": "array", "items": TEXT},
        "either": {"anyOf": [TEXT, {"type": "null"}]},
        "address": {"type": "string", "pattern": r"^[a-z]+@[a-z]+\.(com|org)$"},
    },
)
NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "below": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
    },
    "required": ["value", "below", "next"],
}
TREE = function("grow", {"tree": {"$ref": "#/$defs/Node"}})
parameters(TREE)["$defs"] = {"Node": NODE}
TOOLS = {
    "edits": [MUTATE],
    "lists": [RECORD],
    "vectors": [initialise(30)],
    "choices": [CHOICE],
    "several": [MUTATE, RECORD, CHOICE],
    "texts": [TWO],
    "a tree": [TREE],
}


@pytest.fixture(scope="module", params=[tiny_tokenizer, llama2_like_tokenizer], ids=["bytes", "llama 2"])
def alphabet(request):
    return from_tokenizer(request.param())


@pytest.mark.parametrize("tools", TOOLS.values(), ids=TOOLS.keys())
@pytest.mark.parametrize("thought_tokens", [0, 5])
def test_from_wherever_a_reply_stands_its_ending_makes_it_a_legal_call(alphabet, tools, thought_tokens):
    schemas = {tool["function"]["name"]: parameters(tool) for tool in tools}
    grammar = call_grammar(call_schemas(tools), thought_tokens)
    for seed in range(12):
        rng = random.Random(seed)
        constraint = GrammarConstraint(grammar, alphabet, alphabet.vocab_size)
        said: list[int] = []
        for _ in range(rng.randrange(40)):
            token = int(rng.choice(list(constraint.legal())))
            if token in alphabet.eos_tokens:
                break
            constraint.accept([token])
            said.append(token)
            if constraint.done:
                break
        rest = ending(constraint, 10_000)
        assert not rest or not constraint.done  # it stays where it was
        whole = [token for token in said + rest if token not in alphabet.eos_tokens]
        call = json.loads(alphabet.decode_str(whole).partition("\n")[2 if thought_tokens else 0])
        assert violations(schemas[call["name"]], call["arguments"]) == []


def test_an_ending_closes_what_is_open_and_says_little(alphabet):
    constraint = GrammarConstraint(call_grammar(call_schemas([OPEN]), 0), alphabet, alphabet.vocab_size)
    call = json.loads(alphabet.decode_str(ending(constraint, 1000)))["arguments"]
    assert len(call["long"]) >= 30 and len(call["numbers"]) == 3 and call["words"] == []
    assert not call["either"] and "@" in call["address"]
    tree = GrammarConstraint(call_grammar(call_schemas([TREE]), 0), alphabet, alphabet.vocab_size)
    assert json.loads(alphabet.decode_str(ending(tree, 1000)))["arguments"]["tree"]["below"] == []
    assert ending(tree, 5) is None


@pytest.mark.parametrize("limit", [60, 120])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_open_strings_end_within_the_limit(limit, temperature):
    for thought_tokens in (0, 8):
        brain = tiny_brain(thought_tokens=thought_tokens, max_tokens=limit, temperature=temperature)
        result = brain.generate([JOKE], tools=[TWO], n=4, seed=3)
        for generation in result.generations[0]:
            (call,) = generation.message.tool_calls
            assert set(call["args"]) == {"setup", "punchline"}
            facts = generation.message.response_metadata
            assert facts["finish_reason"] == "stop" and facts["output_tokens"] <= limit


def test_an_ended_reply_is_the_same_however_forced_tokens_are_fed():
    made = []
    for forced in (True, False):
        brain = tiny_brain(thought_tokens=0, max_tokens=90, forced=forced)
        result = brain.generate([JOKE], tools=[TWO], n=4, seed=3)
        made.append([generation.message.response_metadata["raw"] for generation in result.generations[0]])
    assert made[0] == made[1]


def test_replies_that_end_by_themselves_are_those_without_a_watch(monkeypatch):
    def said(limit):
        result = tiny_brain(thought_tokens=6, max_tokens=limit).generate([JOKE], tools=ALL, n=12, seed=5)
        return [generation.message.response_metadata["raw"] for generation in result.generations[0]]

    watched = said(400)
    monkeypatch.setattr(decode, "WATCH", -1)
    assert watched == said(400) == said(1056)


def test_structured_output_in_other_scripts_is_whole():
    brain = tiny_brain(thought_tokens=0, max_tokens=64, temperature=1.0)
    said = ""
    for seed in range(12):
        (call,) = brain.invoke("你好啊集团", tools=[TWO], seed=seed).tool_calls
        said += call["args"]["setup"] + call["args"]["punchline"]
    assert any(ord(character) > 0x7FF for character in said)


def test_an_endpoint_is_given_an_end_for_every_open_string_and_list_and_nothing_else():
    for tool in ALL:
        assert bounded(parameters(tool), 1056) == parameters(tool)
    assert parameters(RECORD)["properties"]["note"]["maxLength"] <= NOTE_LENGTH
    found = bounded(parameters(OPEN), 1000)["properties"]
    assert found["numbers"]["maxItems"] == found["words"]["maxItems"] == 16
    assert found["long"]["maxLength"] >= 30 and found["words"]["items"]["maxLength"] == 1000 // (2 * 18)
    assert found["either"]["anyOf"] == [{**TEXT, "maxLength": 1000 // (2 * 18)}, {"type": "null"}]
    assert "maxLength" not in found["address"]
    fixed = {"type": "array", "prefixItems": [{"const": 1}], "items": False}
    assert bounded(fixed, 100) == fixed
