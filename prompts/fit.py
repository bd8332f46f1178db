"""A prompt that outgrows the context forgets, oldest first; it never forgets the task.

The order says what a brain can best do without: candidates seen lately, failed ones, the effects of moves, notes,
answers, yields, lessons, the curve, the best beyond the first, the population from its worst member, and last what a
person told the run. Every list has what matters most first, so entries leave from the end. What is asked and what the
run is about are not part of the history and always stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import History, Variables

T = TypeVar("T")

Section = Literal[
    "recent", "failed", "moves", "notes", "answers", "yields", "lessons", "curve", "best", "population", "user_notes"
]

# (section, entries that stay in this pass)
FORGETTING: tuple[tuple[Section, int], ...] = (
    ("recent", 0),
    ("failed", 0),
    ("moves", 0),
    ("notes", 0),
    ("answers", 1),
    ("yields", 0),
    ("lessons", 0),
    ("curve", 0),
    ("best", 1),
    ("answers", 0),
    ("population", 0),
    ("best", 0),
    ("user_notes", 0),
)


@dataclass(frozen=True, slots=True)
class Fitted(Generic[T]):
    """A prompt that fits, and what it cost."""

    prompt: T
    history: History  # what was shown
    dropped: int  # entries left out
    tokens: int


def fit(render: Callable[[History], T], history: History, count_tokens: Callable[[T], int], limit: int) -> Fitted[T]:
    """Render `history`, or as much of it as fits.

    Args:
        render: Makes the prompt for a history.
        history: All there is to tell.
        count_tokens: Tokens of a rendered prompt, chat template included.
        limit: Tokens a prompt may have: the context less what the reply needs.

    Returns:
        The prompt with the fewest entries dropped that the search meets; it certainly fits.

    Raises:
        SettingsError: When the bare task is longer than `limit`.
    """
    steps = shortenings(history)

    def attempt(dropped: int) -> Fitted[T]:
        prompt = render(steps[dropped])
        return Fitted(prompt, steps[dropped], dropped, count_tokens(prompt))

    whole = attempt(0)
    if whole.tokens <= limit:
        return whole
    fitting = attempt(len(steps) - 1)
    if fitting.tokens > limit:
        raise SettingsError(
            f"the prompt needs {fitting.tokens} tokens without any history but the model has room for {limit}; "
            "use a prompt set with shorter files, a smaller --thought-tokens or a model with a longer context"
        )
    # Bisection: a dozen renderings instead of one for each entry. The upper end has been rendered and fits, always.
    too_long = 0
    while fitting.dropped - too_long > 1:
        middle = attempt((too_long + fitting.dropped) // 2)
        if middle.tokens <= limit:
            fitting = middle
        else:
            too_long = middle.dropped
    return fitting


def prompt_of(
    prompts: PromptSet, variables: Variables, count_tokens: Callable[[Messages], int], limit: int
) -> Fitted[Messages]:
    """The prompt of a turn, shortened to `limit` tokens; raises PromptError, and SettingsError as `fit` does."""
    return fit(
        lambda history: prompts.render(replace(variables, history=history)), variables.history, count_tokens, limit
    )


def shortenings(history: History) -> list[History]:
    """The whole history first, then one entry less each time, down to none."""
    steps = [history]
    for section, kept in FORGETTING:
        while len(getattr(steps[-1], section)) > kept:
            steps.append(replace(steps[-1], **{section: getattr(steps[-1], section)[:-1]}))
    return steps
