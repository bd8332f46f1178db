"""What the brain reads first and what it may answer, before anything is measured.

The prompt is rendered by the run's own prompt set; figures that only a measurement gives are left open. The brain is
asked for whole vectors first in all arms but those whose first population the tool makes: these ask about candidates
that are not there yet, so of their prompts only the part that never changes is known.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage

from self_pruner.agent.brain.page import context_length, render
from self_pruner.agent.dry_run.plan import Plan
from self_pruner.agent.prepare.checks import Target
from self_pruner.agent.search.legal_calls import Situation, legal_calls
from self_pruner.agent.search.prompt_variables import SENSITIVITIES, unmeasured
from self_pruner.agent.settings.settings import Settings
from self_pruner.prompts.fit import fit
from self_pruner.prompts.sample import sample_run
from self_pruner.prompts.templates import Messages, PromptSet
from self_pruner.prompts.variables import Ask, History, RunVariables, Spent, Variables

CHARACTERS = 4  # of a token, where no tokenizer is here to tell


@dataclass(frozen=True, slots=True)
class FirstPrompt:
    """The brain's first prompt and the calls it may answer with."""

    system: str
    turn: str | None  # None where it is about candidates of a later generation
    tools: tuple[dict[str, Any], ...]
    replies: int  # sampled at once
    tokens: int  # of the prompt, with figures in all places; 0 for a control, which reads none


def first_prompt(settings: Settings, target: Target, prompts: PromptSet, plan: Plan) -> FirstPrompt:
    """Render the first prompt and make sure that it has room.

    Raises:
        SettingsError: it has none in the model's context.
    """
    space, config = target.budget.space, target.outline.model.config
    open_ = unmeasured(target.budget, target.outline.name, target.outline.family.model_type, config.hidden_size)
    example = sample_run(space.n_layers, min(SENSITIVITIES, plan.probes))
    full = replace(open_, dense=example.dense, uniform=example.uniform, sensitivities=example.sensitivities)
    asked = plan.initial.get("brain", 0)
    legal = legal_calls(
        Situation(
            space=space,
            missing=max(1, asked),
            fidelity=settings.fidelity[0],
            survivors=settings.population,
            step=settings.mutation_step,
            samples=settings.samples,
        ),
        prompts.actions,
    )
    read_by = (target.brain or target.outline).model.config
    context = context_length(read_by) or read_by.max_position_embeddings
    spent = plan.tokens_before(settings)
    thought = settings.thought_limit(target.budget.space.dense_params)
    share = min(1.0, spent / settings.tokens) if settings.tokens else 0.0

    def rendered(run: RunVariables) -> Messages:
        ask = Ask("initialise", legal.replies, ("initialise",), thought=thought > 0)
        return prompts.render(Variables(run, 0, Spent(0, settings.evaluations, spent, 0.0, share), ask))

    fitted = fit(
        lambda history: rendered(full),
        History(),
        lambda prompt: _count(settings, target, prompt),
        context - thought - settings.call_tokens,
    )
    shown = rendered(open_)
    return FirstPrompt(
        system=_open(shown.system),
        turn=_open(shown.turn) if asked else None,
        tools=legal.tools if asked else (),
        replies=legal.replies,
        tokens=fitted.tokens,
    )


def _open(text: str) -> str:
    """The text with a question mark in the place of what is not measured yet."""
    return re.sub(r"\bnan\b", "?", text)


def _count(settings: Settings, target: Target, prompt: Messages) -> int:
    """Tokens of a prompt, the chat template's own included; a control reads none."""
    if not settings.reads:
        return 0
    tokenizer = (target.brain or target.outline).tokenizer
    if tokenizer is None:
        return math.ceil(len(prompt.system + prompt.turn) / CHARACTERS)
    return len(render(tokenizer, [SystemMessage(prompt.system), HumanMessage(prompt.turn)]))
