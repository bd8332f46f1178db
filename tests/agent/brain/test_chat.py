import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import torch
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel

from self_pruner.agent.brain.decode import Sampling, draw, generator
from self_pruner.agent.brain.page import context_length, render
from self_pruner.agent.brain.schema import violations
from self_pruner.memory.errors import BrainError
from tests.brain_schemas import ALL, CHOICE, MUTATE, RECORD, function, parameters
from tests.brain_tiny import PAGE, llama2_like_tokenizer, tiny_brain, tiny_tokenizer


def replies(brain, messages=PAGE, tools=ALL, **options):
    result = brain.generate([messages], tools=list(tools), **options)
    return [generation.message for generation in result.generations[0]]


def said(messages):
    return [(m.content, m.tool_calls, m.response_metadata["raw"]) for m in messages]


def test_every_sample_is_a_thought_and_a_legal_call():
    for message in replies(tiny_brain(thought_tokens=6), tools=[MUTATE, RECORD, CHOICE], n=24, seed=1):
        (call,) = message.tool_calls
        schema = {t["function"]["name"]: parameters(t) for t in (MUTATE, RECORD, CHOICE)}[call["name"]]
        assert violations(schema, call["args"]) == []
        facts = message.response_metadata
        assert message.content and "\n" not in message.content and "<|" not in facts["raw"]
        assert facts["forced_tokens"] + facts["sampled_tokens"] == facts["output_tokens"]
        assert message.usage_metadata["input_tokens"] == facts["prompt_tokens"]
        assert message.usage_metadata["output_tokens"] == facts["output_tokens"]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_forced_tokens_change_the_cost_and_nothing_else(temperature):
    options = {"temperature": temperature, "thought_tokens": 3}
    quick = replies(tiny_brain(**options), n=6, seed=5)
    slow = replies(tiny_brain(**options, forced=False), n=6, seed=5)
    assert said(quick) == said(slow)
    assert slow[0].response_metadata["decode_steps"] > 1.5 * quick[0].response_metadata["decode_steps"]


def test_a_sample_is_the_same_however_many_are_drawn_beside_it():
    many = replies(tiny_brain(), n=8, seed=2)
    few = replies(tiny_brain(), n=3, seed=2)
    assert said(many[:3]) == said(few)
    assert len({message.response_metadata["raw"] for message in many}) > 4


def test_a_warm_prompt_cache_answers_like_a_cold_start(monkeypatch):
    monkeypatch.setattr("self_pruner.agent.brain.branches.CHUNK", 4)
    warm = tiny_brain()
    replies(warm, [SystemMessage("You prune yourself."), HumanMessage("The first turn, with another text.")], n=3)
    first = replies(warm, n=4, seed=7)
    cold = replies(tiny_brain(), n=4, seed=7)
    assert said(first) == said(cold)
    assert said(replies(warm, n=4, seed=7)) == said(cold)
    assert 0 == cold[0].response_metadata["cached_tokens"] < first[0].response_metadata["cached_tokens"]


def test_seeds_decide():
    brain = tiny_brain()
    assert said(replies(brain, n=2, seed=1)) == said(replies(brain, n=2, seed=1))
    assert said(replies(brain, n=2, seed=1)) != said(replies(brain, n=2, seed=2))
    assert {message.tool_calls[0]["id"] for message in replies(brain, n=2, seed=1)} == {"call_1_0", "call_1_1"}


def test_no_thought_when_it_is_turned_off():
    (message,) = replies(tiny_brain(thought_tokens=0))
    assert message.content == ""
    assert json.loads(message.response_metadata["raw"])["arguments"] == message.tool_calls[0]["args"]


def test_a_row_whose_forced_tokens_reach_the_end_stops():
    only = function("evaluate", {"candidate": {"const": "c7"}})
    (message,) = replies(tiny_brain(thought_tokens=0), tools=[only])
    assert message.tool_calls[0]["args"] == {"candidate": "c7"}
    assert message.response_metadata["decode_steps"] == 0
    binary = function("evaluate", {"candidate": {"enum": ["c7", "d8"]}})
    for message in replies(tiny_brain(thought_tokens=0), tools=[binary], n=4):
        assert message.response_metadata["decode_steps"] == 0  # the one decision is made on the prompt's logits
        assert message.response_metadata["sampled_tokens"] == 1


def test_a_reply_cut_at_its_limit_is_an_invalid_call_and_says_so():
    brain = tiny_brain(thought_tokens=0, max_call_tokens=12)
    (message,) = replies(brain, tools=[MUTATE])
    assert message.tool_calls == []
    assert "limit of 12 tokens" in message.invalid_tool_calls[0]["error"]
    assert message.response_metadata["finish_reason"] == "length"


def test_where_no_call_is_legal_there_is_nothing_to_say():
    for offer in ({"tools": []}, {"variants": [[]]}):
        with pytest.raises(BrainError, match="no call is legal"):
            tiny_brain().invoke(PAGE, **offer)


def test_without_tools_it_answers_in_text():
    for offer in ({}, {"tools": [MUTATE], "tool_choice": "none"}):
        message = tiny_brain(max_tokens=20, temperature=1).invoke(PAGE, seed=3, **offer)
        assert message.text.strip() and not message.tool_calls and not message.invalid_tool_calls
        facts = message.response_metadata
        assert facts["output_tokens"] <= 20 and facts["model_name"] == "llama"
        assert facts["finish_reason"] == ("length" if facts["output_tokens"] == 20 else "stop")


def test_a_text_ends_before_a_word_that_ends_it_and_a_call_does_not():
    brain = tiny_brain(max_tokens=40, temperature=1)
    text = brain.invoke(PAGE, seed=3).text
    word = text[9:11]
    stopped = brain.invoke(PAGE, seed=3, stop=[word])
    assert stopped.text == text[: text.index(word)] and stopped.response_metadata["finish_reason"] == "stop"
    assert stopped.usage_metadata["output_tokens"] < 40
    assert tiny_brain(max_tokens=40, temperature=1, stop=[word]).invoke(PAGE, seed=3).text == stopped.text
    assert brain.invoke(PAGE, tools=[CHOICE], stop=["evaluate"]).tool_calls


def test_another_model_than_the_one_it_is_cannot_be_asked():
    assert tiny_brain(max_tokens=8).invoke(PAGE, model="llama").text
    with pytest.raises(BrainError, match="the brain is llama, and 'gpt' is another model"):
        tiny_brain().invoke(PAGE, model="gpt")


def test_threads_take_turns_and_get_what_one_alone_would_get():
    pages = [[HumanMessage(f"Turn {number}. " * number)] for number in range(1, 9)]
    alone = [said(replies(tiny_brain(), page, [CHOICE], n=2, seed=1)) for page in pages]
    brain = tiny_brain()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda page: said(replies(brain, page, [CHOICE], n=2, seed=1)), pages))
    assert together == alone


def test_bound_tools_work_through_langchain():
    bound = tiny_brain().bind_tools([MUTATE, RECORD], tool_choice="record_population")
    assert bound.invoke("What now?").tool_calls[0]["name"] == "record_population"


def test_structured_output_of_langchain_works():
    class Verdict(BaseModel):
        """Says whether to stop."""

        stop: bool
        layer: Literal[3, 5]

    verdict = tiny_brain().with_structured_output(Verdict).invoke("Stop?")
    assert isinstance(verdict, Verdict)


@pytest.mark.parametrize("thought_tokens", [0, 5])
def test_a_tokenizer_in_the_manner_of_llama_2_makes_legal_calls_too(thought_tokens):
    options = {"tokenizer": llama2_like_tokenizer(), "thought_tokens": thought_tokens}
    quick = replies(tiny_brain(**options), tools=[MUTATE], n=8, seed=4)
    for message in quick:
        assert violations(parameters(MUTATE), message.tool_calls[0]["args"]) == []
    assert said(quick) == said(replies(tiny_brain(**options, forced=False), tools=[MUTATE], n=8, seed=4))


def test_a_prompt_longer_than_the_context_is_refused_with_figures():
    brain = tiny_brain()
    assert brain.prompt_limit == 2048 - 32 - 1024
    with pytest.raises(BrainError, match="2048.*992"):
        replies(brain, [HumanMessage("word " * 2000)])
    assert brain.get_num_tokens_from_messages(PAGE) == len(render(tiny_tokenizer(), PAGE))


def test_too_slow_a_brain_is_stopped():
    with pytest.raises(BrainError, match="1e-09 s"):
        replies(tiny_brain(time_limit=1e-9))


def test_a_schema_that_cannot_be_obeyed_reaches_the_caller():
    with pytest.raises(BrainError, match="uniqueItems"):
        replies(tiny_brain(), tools=[function("f", {"a": {"type": "array", "uniqueItems": True}})])


def test_the_brain_shares_the_weights_it_is_given():
    brain = tiny_brain()
    before = {name: tensor.data_ptr() for name, tensor in brain.model.named_parameters()}
    replies(brain)
    assert before == {name: tensor.data_ptr() for name, tensor in brain.branches.model.named_parameters()}


def test_top_p_keeps_the_likeliest_and_temperature_zero_the_likeliest_alone():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    legal = torch.arange(4).numpy()
    drawn = {draw(logits, legal, Sampling(temperature=1, top_p=0.75), generator(0, i)) for i in range(200)}
    assert drawn == {0, 1}
    assert draw(logits, legal[1:], Sampling(temperature=0), generator(0, 0)) == 1
    counts = [draw(logits, legal, Sampling(temperature=1, top_p=1), generator(0, i)) for i in range(2000)].count(2)
    assert 240 < counts < 360
    flat = torch.zeros(3000)  # a nucleus wider than what is looked at first
    wide = {draw(flat, torch.arange(3000).numpy(), Sampling(temperature=1), generator(1, i)) for i in range(1600)}
    assert len(wide) > 1024


def test_the_context_is_the_window_where_layers_slide():
    class Config:
        max_position_embeddings = 32768
        sliding_window = 4096

    assert context_length(Config) == 4096
    Config.use_sliding_window = False
    assert context_length(Config) == 32768
    Config.layer_types = ["full_attention", "sliding_attention"]
    assert context_length(Config) == 4096


def test_replies_with_tools_of_their_own_each_obey_theirs():
    def tool(name, value):
        parameters = {
            "type": "object",
            "properties": {"value": {"enum": [value, value + 1]}},
            "required": ["value"],
            "additionalProperties": False,
        }
        return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}

    variants = [[tool("one", 10)], [tool("two", 20)], [tool("two", 30)]]
    for thought_tokens in (0, 4):
        brain = tiny_brain(thought_tokens=thought_tokens)
        together = replies(brain, tools=[], variants=variants, n=3, seed=1)
        calls = [message.tool_calls[0] for message in together]
        assert [call["name"] for call in calls] == ["one", "two", "two"]
        assert [call["args"]["value"] // 10 for call in calls] == [1, 2, 3]
        assert said(replies(brain, tools=[], variants=variants[:1], n=1, seed=1)) == said(together[:1])
