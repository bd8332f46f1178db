"""Which brains are asked: the target model, another one in this process, an endpoint, or a control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.endpoint import obeys_schemas, served_model
from self_pruner.agent.brain.remote import EndpointBrain
from self_pruner.agent.brain.scripted import FirstBrain, ScriptedBrain, UniformBrain
from self_pruner.agent.decisions.choosers import Chooser, ExactChooser, SampledChooser
from self_pruner.agent.prepare.brain import SELF, endpoint_of, load_dense
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.models.source import LoadedModel, resolve

CONTROLS: dict[str, Callable[..., ScriptedBrain]] = {"uniform": UniformBrain, "first": FirstBrain}
DRAWS = 16  # replies an order of a brain that is sampled


def names_of(brains: Sequence[str], settings: Settings) -> list[str]:
    """The brains that are asked for: `self`, a control, or a model by alias, hub id or folder.

    Without any it is the endpoint that the settings name, or else the target model.

    Raises:
        SelfPrunerError: one is unknown or named twice.
    """
    names = [name.strip() for text in brains for name in text.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"--brain names {name!r} twice")
        if name == "vllm":
            raise SettingsError("--brain vllm has no server here: start one and give its --brain-url")
        if name != SELF and name not in CONTROLS:
            resolve(name)
    return names or ([] if settings.brain_url else [SELF])


def open_brain(name: str, settings: Settings, target: LoadedModel | None, view: View) -> Chooser:
    """The brain of that name; `target` is the target model where it is loaded.

    Raises:
        SelfPrunerError: it cannot be loaded.
    """
    if name in CONTROLS:
        return SampledChooser(name, CONTROLS[name](), DRAWS)
    found = target if name == SELF and target is not None else load_dense(name, settings, view)
    brain = TargetBrain(model=found.model, **_sampling(found.tokenizer, settings))
    place = Path(found.location).parent.name or None
    return ExactChooser(found.name, brain, fingerprint=found.fingerprint, place=place)


def open_endpoint(settings: Settings, tokenizer: Any, view: View) -> Chooser:
    """The brain at `--brain-url`, which is sampled.

    Raises:
        EndpointError: it cannot be asked.
    """
    endpoint = endpoint_of(settings)
    served = served_model(endpoint, settings.brain_model)
    view.line(
        f"{endpoint.url} has no log-probabilities of given replies: {served.name} is scored by {DRAWS} samples an order"
    )
    if not obeys_schemas(endpoint, served.name):
        view.warn(f"{endpoint.url} takes schemas but does not keep to them: replies that are no option are counted")
    brain = EndpointBrain(endpoint=endpoint, served=served, **_sampling(tokenizer, settings))
    return SampledChooser(served.name, brain, DRAWS)


def _sampling(tokenizer: Any, settings: Settings) -> dict[str, Any]:
    """A brain says what it decides, without a thought; top-p would give some options no probability at all."""
    return {
        "tokenizer": tokenizer,
        "temperature": settings.temperature,
        "top_p": 1.0,
        "thought_tokens": 0,
        "max_call_tokens": settings.call_tokens,
        "seed": settings.seed,
    }
