import json
import random

import numpy as np
import pytest
from llguidance.hf import from_tokenizer

from self_pruner.agent.brain.calls import call_schemas
from self_pruner.agent.brain.grammar import GrammarConstraint, call_grammar, check_grammar
from self_pruner.agent.brain.schema import violations
from self_pruner.memory.errors import BrainError
from tests.brain_schemas import ALL, CHOICE, MUTATE, RECORD, function, initialise, parameters
from tests.brain_tiny import tiny_tokenizer

VOCAB = 512


@pytest.fixture(scope="module")
def alphabet():
    return from_tokenizer(tiny_tokenizer())


def walk(alphabet, tools, seed, thought_tokens=0, forced=True):
    """One reply whose every decision is uniform over the legal tokens: text, tokens, number of decisions."""
    constraint = GrammarConstraint(call_grammar(call_schemas(tools), thought_tokens), alphabet, VOCAB)
    rng = random.Random(seed)
    said: list[int] = []
    decisions = 0
    while not constraint.done:
        tokens = constraint.forced() if forced else []
        if not tokens:
            legal = constraint.legal()
            decisions += len(legal) > 1
            tokens = [int(rng.choice(list(legal)) if len(legal) > 1 else legal[0])]
        constraint.accept(tokens)
        if tokens[0] != alphabet.eos_token:
            said += tokens
    return alphabet.decode_str(said), said, decisions


SEVENS = {"type": "array", "items": {"const": 7}}
WORD = {"type": "string", "minLength": 3, "maxLength": 9}
SHAPES = {
    "edits": MUTATE,
    "prefix items and a note": RECORD,
    "exact lengths": initialise(30),
    "anyOf, oneOf, ranges": CHOICE,
    "free lengths": function("f", {"a": SEVENS, "b": WORD}),
    "alternatives of objects": function("f", {"a": {"oneOf": [parameters(CHOICE), parameters(MUTATE)]}}),
}


@pytest.mark.parametrize("tool", SHAPES.values(), ids=SHAPES.keys())
def test_every_walk_through_the_grammar_is_a_legal_call(alphabet, tool):
    seen = set()
    for seed in range(150):
        text, _, _ = walk(alphabet, [tool], seed)
        call = json.loads(text)
        assert call["name"] == tool["function"]["name"]
        assert violations(parameters(tool), call["arguments"]) == []
        seen.add(text)
    assert len(seen) > 5


def test_all_tools_of_a_turn_can_be_reached(alphabet):
    tools = [MUTATE, RECORD, CHOICE]
    names = {json.loads(walk(alphabet, tools, seed)[0])["name"] for seed in range(40)}
    assert names == {"prune_model", "record_population", "evaluate"}


def test_forced_tokens_leave_every_decision_as_it_is(alphabet):
    for seed in range(60):
        assert walk(alphabet, ALL, seed, 4, forced=True) == walk(alphabet, ALL, seed, 4, forced=False)


def test_forced_tokens_are_most_of_a_call(alphabet):
    walks = [walk(alphabet, [MUTATE], seed) for seed in range(30)]
    assert sum(len(said) for _, said, _ in walks) > 3 * sum(decisions for _, _, decisions in walks)


@pytest.mark.parametrize("limit", [1, 6, 32])
def test_a_thought_is_one_printable_line_within_its_limit(alphabet, limit):
    for seed in range(60):
        text, said, _ = walk(alphabet, [CHOICE], seed, limit)
        thought, newline, call = text.partition("\n")
        assert newline and thought.strip()
        assert "\ufffd" not in thought[:-3]  # only its last character can be cut in two
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in thought)
        assert "<|im" not in thought
        assert violations(parameters(CHOICE), json.loads(call)["arguments"]) == []
        before = 0
        while "\n" not in alphabet.decode_str(said[: before + 1]):
            before += 1
        assert before <= limit


def test_notes_hold_no_control_characters_quotes_or_escapes(alphabet):
    for seed in range(200):
        text, _, _ = walk(alphabet, [RECORD], seed)
        note = json.loads(text)["arguments"]["note"]
        assert len(note) <= 80
        assert "\\" not in text.split('"note":')[1]
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in note)


def test_logits_beyond_the_tokenizer_are_never_legal(alphabet):
    constraint = GrammarConstraint(call_grammar(call_schemas([RECORD]), 8), alphabet, VOCAB)
    assert constraint.legal().max() < len(tiny_tokenizer()) < VOCAB
    short = GrammarConstraint(call_grammar(call_schemas([RECORD]), 8), alphabet, 200)
    assert short.legal().max() < 200


def test_references_and_optional_fields_are_obeyed(alphabet):
    tool = function("f", {"a": {"$ref": "#/$defs/One"}, "b": {"type": ["string", "null"], "maxLength": 2}})
    schema = parameters(tool)
    schema["$defs"] = {"One": {"enum": [1, 2]}}
    schema["required"] = ["a"]
    values = [json.loads(walk(alphabet, [tool], seed)[0])["arguments"] for seed in range(60)]
    assert all(violations(schema, value) == [] for value in values)
    assert {"b" in value for value in values} == {True, False}
    assert {value["a"] for value in values} == {1, 2}


def test_a_schema_that_cannot_be_obeyed_is_one_sentence(alphabet):
    bad = function("f", {"a": {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}})
    with pytest.raises(BrainError, match="uniqueItems") as caught:
        check_grammar(call_grammar(call_schemas([bad]), 0), alphabet)
    assert "\n" not in str(caught.value)
    with pytest.raises(BrainError, match="cannot be made a grammar"):
        check_grammar(call_grammar(call_schemas([function("f", {"a": {"enum": []}})]), 0), alphabet)
    with pytest.raises(BrainError, match="no call is legal"):
        call_grammar([], 0)


def test_an_illegal_token_is_an_error_not_a_wrong_call(alphabet):
    constraint = GrammarConstraint(call_grammar(call_schemas([RECORD]), 0), alphabet, VOCAB)
    illegal = int(np.setdiff1d(np.arange(VOCAB - 200), constraint.legal())[-1])
    with pytest.raises(BrainError, match="grammar"):
        constraint.accept([illegal])
