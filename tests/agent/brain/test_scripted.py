import random
from collections import Counter

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from self_pruner.agent.brain.calls import call_schemas, reply_schema
from self_pruner.agent.brain.schema import first_call, sample_call, violations
from self_pruner.agent.brain.scripted import FirstBrain, UniformBrain
from self_pruner.memory.errors import BrainError
from tests.brain_schemas import ALL, CHOICE, MUTATE, RECORD, parameters


def replies(brain, tools=(MUTATE, RECORD), **options):
    result = brain.generate([[HumanMessage("what now?")]], tools=list(tools), **options)
    return [generation.message for generation in result.generations[0]]


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry["function"]["name"])
def test_drawn_and_first_values_are_legal(entry):
    schema = parameters(entry)
    rng = random.Random(0)
    assert violations(schema, first_call(schema)) == []
    for _ in range(200):
        assert violations(schema, sample_call(schema, rng)) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 1}, True),
        ({"enum": ["a"]}, "b"),
        ({"type": "integer", "minimum": 0, "maximum": 3}, 4),
        ({"type": "integer"}, 1.0),
        ({"type": "string", "maxLength": 2}, "abc"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1]),
        ({"type": "array", "prefixItems": [{"const": "a"}], "items": False}, ["a", "b"]),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {}),
        ({"type": "object", "properties": {}, "additionalProperties": False}, {"a": 1}),
        ({"anyOf": [{"const": 1}, {"const": 2}]}, 3),
    ],
)
def test_an_illegal_value_is_named(schema, value):
    assert violations(schema, value)


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"enum": ["c1", "c2"]}, "c9", "call is 'c9', not one of 'c1', 'c2'"),
        ({"enum": [1, 2]}, 3, "call is 3, not one of 1, 2"),
        (
            {"enum": [f"c{number}" for number in range(14)]},
            "d",
            "call is 'd', not one of " + ", ".join(f"'c{number}'" for number in range(12)) + " and 2 more",
        ),
        # of alternatives the nearest one says what is wrong; where several are as near, none of them is meant
        (
            {"anyOf": [parameters(MUTATE), {"const": "stop"}, {"type": "array", "items": False}]},
            "go",
            "call fits no alternative: ",
        ),
        (
            {
                "anyOf": [
                    {"type": "object", "properties": {"a": {"enum": [1]}, "b": {}}, "required": ["a", "b"]},
                    {"type": "object", "properties": {"c": {}}, "required": ["c"], "additionalProperties": False},
                ]
            },
            {"a": 2, "b": 0},
            "call.a is 2, not one of 1",
        ),
    ],
)
def test_a_wrong_choice_is_told_with_what_may_be_chosen(schema, value, words):
    (fault,) = violations(schema, value)
    assert fault.startswith(words)


def test_uniform_brain_reaches_every_tool_and_every_choice_evenly():
    messages = replies(UniformBrain(), n=2000, seed=1)
    calls = [message.tool_calls[0] for message in messages]
    names = Counter(call["name"] for call in calls)
    layers = Counter(edit["layer"] for call in calls for edit in call["args"].get("edits", ()))
    assert abs(names["prune_model"] - 1000) < 100
    assert set(layers) == {3, 7, 11, 20}
    assert max(layers.values()) < 1.2 * min(layers.values())


def test_the_same_seed_gives_the_same_replies_and_ids():
    def drawn(seed):
        return [message.tool_calls[0] for message in replies(UniformBrain(), n=5, seed=seed)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    assert len({call["id"] for call in drawn(3)}) == 5


def test_first_brain_always_says_the_first_of_everything():
    call = replies(FirstBrain(), seed=9)[0].tool_calls[0]
    edit = {"layer": 3, "part": "attention", "change": -2}
    assert call["args"] == {"operator": "mutation", "parents": ["c1"], "edits": [edit, edit]}


def test_every_form_of_tool_is_read():
    class Arguments(BaseModel):
        """Evaluates."""

        ids: list[int] = Field(min_length=2, max_length=2)

    @tool
    def close(note: str, best: int = 1) -> str:
        """Closes."""
        return note

    def plain(layer: int) -> int:
        """Plain.

        Args:
            layer: which
        """
        return layer

    calls = call_schemas([Arguments, close, plain, MUTATE])
    assert [call.name for call in calls] == ["Arguments", "close", "plain", "prune_model"]
    assert calls[0].parameters["properties"]["ids"]["minItems"] == 2
    assert calls[1].parameters["required"] == ["note"]
    assert calls[1].parameters["additionalProperties"] is False
    for call in calls:
        assert violations(call.parameters, first_call(call.parameters)) == []


def test_tool_choice_narrows_and_an_unknown_one_is_refused():
    bound = UniformBrain().bind_tools([MUTATE, RECORD, CHOICE], tool_choice="evaluate")
    assert {bound.invoke("?", seed=seed).tool_calls[0]["name"] for seed in range(20)} == {"evaluate"}
    with pytest.raises(BrainError, match="'prune'"):
        call_schemas([MUTATE], "prune")


def test_what_cannot_be_obeyed_is_refused_by_name():
    with pytest.raises(BrainError, match="multipleOf"):
        first_call({"type": "integer", "multipleOf": 2})
    with pytest.raises(BrainError, match="between 4 and 3"):
        first_call({"type": "integer", "minimum": 4, "maximum": 3})
    with pytest.raises(BrainError, match="no tool is legal"):
        replies(UniformBrain(), tools=())


def test_fields_may_be_called_what_keywords_of_a_schema_are_called():
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}}
    fields = {name: inner for name in ("properties", "enum", "default")}
    tool = {"type": "function", "function": {"name": "put", "parameters": {"type": "object", "properties": fields}}}
    (call,) = call_schemas([tool])
    shut = {**inner, "additionalProperties": False}
    assert call.parameters["properties"] == dict.fromkeys(fields, shut)
    assert reply_schema([call])["properties"]["arguments"] == call.parameters
