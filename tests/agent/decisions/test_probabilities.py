"""The probability of an option is what the brain writes it with."""

import math
from collections import Counter

import pytest
import torch
from langchain_core.messages import HumanMessage, SystemMessage

from self_pruner.agent.brain.calls import call_schemas
from self_pruner.agent.brain.grammar import GrammarConstraint, call_grammar
from self_pruner.agent.brain.page import render
from self_pruner.agent.decisions.kinds.kind import one_of
from self_pruner.agent.decisions.probabilities import score, spellings, written
from self_pruner.memory.errors import BrainError
from tests.brain_tiny import tiny_brain

MESSAGES = [SystemMessage("You prune a model."), HumanMessage("Which place comes next?")]
PLACES = [(1, "mlp", 12, 1), (12, "attention", 3, 2), (2, "mlp", 12, 4), (11, "mlp", 1, 14)]
CALLS = [
    {
        "name": "prune_model",
        "arguments": {
            "operator": "mutation",
            "parents": ["c1"],
            "edits": [
                {"layer": cut, "part": part, "change": -size},
                {"layer": grow, "part": "mlp", "change": size},
            ],
        },
    }
    for cut, part, grow, size in PLACES
]


@pytest.fixture(scope="module")
def brain():
    return tiny_brain(thought_tokens=0, temperature=1.0, top_p=1.0)


def spelled(brain, tool, calls):
    vocab = brain.model.get_output_embeddings().weight.shape[0]
    return spellings(call_grammar(call_schemas([tool]), 0), brain.alphabet, vocab, [written(call) for call in calls])


def by_force(brain, tool, prompt):
    """The probability of every reply: all ways to spell it, each pass of the model made anew."""
    found = Counter()

    def follow(said, chance):
        constraint = GrammarConstraint(call_grammar(call_schemas([tool]), 0), brain.alphabet, 512)
        if said:
            constraint.accept(said)
        said = list(said)
        while tokens := constraint.forced():
            constraint.accept(tokens)
            said += tokens
        if constraint.done:
            found[brain.alphabet.decode_bytes(said)] += chance
            return
        with torch.no_grad():
            logits = brain.model(torch.tensor([[*prompt, *said]])).logits[0, -1]
        legal = constraint.allowed()
        for token, each in zip(legal.tolist(), logits[legal].softmax(0).tolist(), strict=True):
            follow([*said, token], chance * each)

    follow([], 1.0)
    return found


def test_the_probabilities_are_those_of_all_spellings(brain):
    tool, prompt = one_of(CALLS), render(brain.tokenizer, MESSAGES)
    found = score(brain, prompt, spelled(brain, tool, CALLS))
    expected = by_force(brain, tool, prompt)
    assert sum(expected.values()) == pytest.approx(1)
    assert [math.exp(each) for each in found.log_probabilities] == pytest.approx(
        [expected[written(call)] for call in CALLS], abs=2e-3
    )
    assert sum(map(math.exp, found.log_probabilities)) == pytest.approx(1)


def test_they_are_the_shares_among_replies(brain):
    tool, prompt = one_of(CALLS), render(brain.tokenizer, MESSAGES)
    found = score(brain, prompt, spelled(brain, tool, CALLS))
    drawn = Counter()
    for seed in range(20):
        result = brain.generate([MESSAGES], tools=[tool], n=40, seed=seed)
        drawn.update(str(each.message.tool_calls[0]["args"]) for each in result.generations[0])
    shares = [drawn[str(call["arguments"])] / 800 for call in CALLS]
    assert shares == pytest.approx([math.exp(each) for each in found.log_probabilities], abs=0.05)


def test_a_prompt_that_was_read_before_changes_nothing_but_what_is_read(brain):
    ways = spelled(brain, one_of(CALLS), CALLS)
    prompt = render(brain.tokenizer, [SystemMessage("word " * 200), HumanMessage("go")])
    brain.branches.forget()
    first = score(brain, prompt, ways)
    again = score(brain, prompt, ways)
    assert again.log_probabilities == first.log_probabilities
    assert again.read < first.read
    assert first.prompt_tokens == again.prompt_tokens == len(prompt)


def test_the_order_of_the_alternatives_makes_no_difference(brain):
    prompt = render(brain.tokenizer, MESSAGES)
    there = score(brain, prompt, spelled(brain, one_of(CALLS), CALLS)).log_probabilities
    back = score(brain, prompt, spelled(brain, one_of(CALLS[::-1]), CALLS[::-1])).log_probabilities
    assert back[::-1] == pytest.approx(there, abs=1e-4)


def test_under_a_wider_grammar_options_have_what_is_left_to_them(brain):
    vector = {"name": "prune_model", "arguments": {"operator": "initialise", "attention": [1, 2], "mlp": [2, 1]}}
    other = {"name": "prune_model", "arguments": {"operator": "initialise", "attention": [2, 2], "mlp": [1, 1]}}
    width = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
    fields = {"operator": {"const": "initialise"}, "attention": width, "mlp": width}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "prune_model", "description": "", "parameters": schema}}
    prompt = render(brain.tokenizer, MESSAGES)
    found = score(brain, prompt, spelled(brain, tool, [vector, other]))
    expected = by_force(brain, tool, prompt)
    assert len(expected) == 16
    assert [math.exp(each) for each in found.log_probabilities] == pytest.approx(
        [expected[written(call)] for call in (vector, other)], rel=0.02
    )


def test_what_the_grammar_does_not_admit_is_refused(brain):
    with pytest.raises(BrainError, match="the grammar"):
        spelled(brain, one_of(CALLS[:3]), CALLS)
