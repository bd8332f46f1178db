import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.schema import violations
from tests.brain_schemas import MUTATE, RECORD, parameters

PAGE = [
    SystemMessage("You are a language model that prunes itself. Lower fitness is better."),
    HumanMessage("c1 has fitness 0.84, c12 has 0.79. Layer 7 mlp is cheap to cut. Propose the next call."),
]


@pytest.mark.slow
def test_the_bundled_model_makes_legal_calls_from_a_cached_prompt(bundled):
    brain = TargetBrain(model=bundled.model, tokenizer=bundled.tokenizer, thought_tokens=16)
    schemas = {tool["function"]["name"]: parameters(tool) for tool in (MUTATE, RECORD)}
    page = [SystemMessage(str(PAGE[0].content) * 12), *PAGE[1:]]  # longer than one pass over a prompt
    cached = []
    for seed in range(2):
        result = brain.generate([page], tools=[MUTATE, RECORD], n=8, seed=seed)
        for generation in result.generations[0]:
            (call,) = generation.message.tool_calls
            assert violations(schemas[call["name"]], call["args"]) == []
            assert generation.message.content and "<|" not in generation.message.response_metadata["raw"]
        cached.append(result.generations[0][0].message.response_metadata["cached_tokens"])
    assert cached[0] == 0 and cached[1] > 40


@pytest.mark.slow
def test_forced_tokens_save_three_of_four_steps_on_the_bundled_model(bundled):
    steps = {}
    said = {}
    for forced in (True, False):
        brain = TargetBrain(model=bundled.model, tokenizer=bundled.tokenizer, thought_tokens=0, forced=forced)
        message = brain.invoke(PAGE, tools=[MUTATE], seed=1)
        steps[forced] = message.response_metadata["decode_steps"]
        said[forced] = message.response_metadata["raw"]
    assert said[True] == said[False]
    assert steps[False] >= 4 * steps[True]
