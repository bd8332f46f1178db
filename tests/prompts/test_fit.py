import re
from dataclasses import fields, replace
from itertools import pairwise

import pytest

from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.fit import fit, shortenings
from self_pruner.prompts.sample import sample_history, sample_variables
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import History


def count(messages: Messages) -> int:
    """At least what a tokenizer counts that keeps digits and punctuation single and cuts long words."""
    return len(re.findall(r"\d|[^\W\d_]{1,4}|[^\w\s]|_|\n|(?<=\s)(?=\d)", messages.system + messages.turn))


def entries(history: History) -> dict[str, int]:
    return {field.name: len(getattr(history, field.name)) for field in fields(history)}


def long_history() -> History:
    base = sample_history(30, population=6, recent=40, moves=30)
    return replace(base, notes=("Layer 3 was a mistake.",) * 30, failed=base.failed * 20, best=base.best * 5)


def test_a_history_that_fits_is_shown_whole():
    history = long_history()
    fitted = fit(lambda h: "x" * sum(entries(h).values()), history, len, sum(entries(history).values()))
    assert fitted.history == history
    assert fitted.dropped == 0


def test_the_oldest_candidates_are_forgotten_first_and_the_best_last():
    steps = shortenings(long_history())
    names = [
        next(name for name, size in entries(old).items() if entries(new)[name] != size) for old, new in pairwise(steps)
    ]
    order = [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    assert order == ["recent", "failed", "moves", "notes", "answers", "yields", "lessons", "curve", "best"] + [
        "answers",
        "population",
        "best",
        "user_notes",
    ]
    assert shortenings(long_history())[-1] == History()


def test_entries_leave_from_the_end_of_a_list():
    history = long_history()
    fitted = fit(lambda h: h.recent, history, len, 7)
    assert fitted.prompt == history.recent[:7]
    assert fitted.dropped == len(history.recent) - 7


@pytest.mark.parametrize("limit", range(0, 171, 5))
def test_no_more_is_dropped_than_needed(limit):
    history = long_history()
    fitted = fit(lambda h: sum(entries(h).values()), history, lambda n: n, limit)
    assert fitted.tokens == min(limit, sum(entries(history).values()))


def test_a_length_that_is_not_monotone_still_ends_below_the_limit():
    lengths = {id_: 100 - i + 7 * (i % 3) for i, id_ in enumerate(map(repr, shortenings(long_history())))}
    fitted = fit(repr, long_history(), lengths.__getitem__, 60)
    assert fitted.tokens <= 60


@pytest.mark.parametrize("name", ["default", "paper"])
@pytest.mark.parametrize("kind", ["initialise", "vary", "latency", "survive"])
def test_a_prompt_fits_a_model_of_2048_tokens_and_keeps_its_task(name, kind):
    prompts = PromptSet(name)
    variables = replace(sample_variables(kind, prompts.actions), history=long_history())

    def render(history):
        return prompts.render(replace(variables, history=history))

    limit = 2048 - 300  # the rest is the reply
    assert count(render(variables.history)) > 2048
    fitted = fit(render, variables.history, count, limit)
    assert fitted.tokens <= limit
    assert fitted.dropped > 0
    bare = render(History()).turn
    task = bare[bare.index("Used:") :]
    assert "Task:" in task
    assert fitted.prompt.turn.endswith(task)
    assert fitted.prompt.system == render(History()).system
    assert fitted.history.best[:1] == variables.history.best[:1]


def test_a_task_that_alone_is_too_long_is_an_error_that_says_how_much_room_there_is():
    prompts = PromptSet("default")
    variables = sample_variables("vary", prompts.actions)
    with pytest.raises(SettingsError, match=r"needs \d+ tokens without any history.*room for 200"):
        fit(lambda h: prompts.render(replace(variables, history=h)), variables.history, count, 200)
