"""The longest reply to a schema, and how much of it is decided."""

import random

import pytest

from self_pruner.agent.brain.calls import legal_calls
from self_pruner.agent.brain.grammar import GrammarConstraint, call_grammar
from self_pruner.agent.brain.schema import sample_call, violations
from self_pruner.agent.dry_run.talk import compact, decisions, longest, talk_of
from tests.brain_schemas import ALL, CHOICE, MUTATE, RECORD, initialise, parameters
from tests.brain_tiny import tiny_brain


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool["function"]["name"])
def test_no_legal_call_is_longer_than_the_longest_which_is_legal_itself(tool):
    schema = parameters(tool)
    most = longest(schema)
    assert not violations(schema, most)
    rng = random.Random(0)
    assert all(len(compact(sample_call(schema, rng))) <= len(compact(most)) for _ in range(200))


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool["function"]["name"])
def test_no_reply_under_the_grammar_decides_more_tokens(tool):
    brain = tiny_brain("llama")
    grammar = call_grammar(legal_calls([tool]), 0)
    rng = random.Random(0)
    most = decisions(parameters(tool))
    for _ in range(5):
        constraint, decided = GrammarConstraint(grammar, brain.alphabet, 512), 0
        while not constraint.done:
            if tokens := constraint.forced():
                constraint.accept(tokens)
            else:
                constraint.accept([rng.choice(list(constraint.legal()))])
                decided += 1
        assert decided <= most


def test_constants_are_not_decided_and_choices_are():
    assert decisions({"const": "mutation"}) == decisions({"enum": ["c1"]}) == 0
    assert decisions({"enum": [12, 8]}) == 2
    assert decisions({"anyOf": [{"const": 1}, {"const": 2}]}) == 1
    assert decisions(parameters(initialise(30))) == 30 * 1 + 30 * 2


def test_a_turn_costs_its_longest_tool_a_thought_and_no_more_than_a_call_may_have():
    talk = talk_of([MUTATE, RECORD], 32, 1024, prompt=500, cached=384, count=len)
    alone = [talk_of([tool], 32, 1024, prompt=500, cached=384, count=len) for tool in (MUTATE, RECORD)]
    assert talk.reply == max(one.reply for one in alone)
    assert talk.steps == max(one.steps for one in alone) + 1  # which of the two
    assert talk_of([RECORD], 0, 1024, 500, 384, len).reply == alone[1].reply - 33
    assert talk_of([RECORD], 32, 64, 500, 384, len).reply == 33 + 64
    assert talk_of([CHOICE], 32, 1024, prompt=100, cached=384, count=len).cached == 100
