"""What a prompt costs with the bundled model's own tokenizer: the figures in prompts/README.md."""

from dataclasses import replace

import pytest

from self_pruner.prompts.fit import fit
from self_pruner.prompts.sample import sample_history, sample_variables
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import KINDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def count(bundled_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled_folder)

    def tokens(messages: Messages) -> int:
        chat = [{"role": "system", "content": messages.system}, {"role": "user", "content": messages.turn}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tokens


@pytest.mark.parametrize(("name", "most"), [("terse", 400), ("default", 1000), ("paper", 1600), ("expert", 2400)])
def test_a_turn_of_a_running_search_is_short(count, name, most):
    prompts = PromptSet(name)

    def lengths(notes):
        found = {kind: sample_variables(kind, prompts.actions) for kind in KINDS}
        told = {kind: replace(one, history=replace(one.history, user_notes=notes)) for kind, one in found.items()}
        return {kind: count(prompts.render(one)) for kind, one in told.items()}

    alone = lengths(())
    print(name, alone)
    assert max(alone.values()) <= most
    longest = ("keep layer 0 whole, " * 12,) * 3  # as many and as long as a prompt shows
    assert max(lengths(longest).values()) <= max(alone.values()) + 300


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_long_history_fits_2048_tokens_with_room_for_the_reply(count, name):
    prompts = PromptSet(name)
    variables = sample_variables("vary", prompts.actions)
    history = sample_history(30, population=8, recent=60, moves=60)

    def render(shown):
        return prompts.render(replace(variables, history=shown))

    assert count(render(history)) > 2048
    fitted = fit(render, history, count, 2048 - 256)
    assert fitted.tokens <= 2048 - 256
    assert fitted.prompt.turn.endswith(prompts.render(variables).turn.split("\n\n", 1)[1])
