"""Which brain a run has: the target model or another one here, one that a server has, or a control."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import SecretStr

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.chat_template import takes_system, unusable
from self_pruner.agent.brain.endpoint import KEY, Endpoint, checked_url, obeys_schemas, served_model
from self_pruner.agent.brain.page import context_length
from self_pruner.agent.brain.remote import EndpointBrain
from self_pruner.agent.brain.scripted import FirstBrain, UniformBrain
from self_pruner.agent.prepare.bill import parameters_of
from self_pruner.agent.prepare.devices import device_of, dtype_of
from self_pruner.agent.run_files.conditions import tokenizer_digest
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import ModelError
from self_pruner.prompts.templates import Messages
from self_pruner.tools.engines.installed import VLLM
from self_pruner.tools.engines.server import LONGEST, served
from self_pruner.tools.models.checkpoint import digest_of, read_config
from self_pruner.tools.models.source import LoadedModel, fetched, load, load_tokenizer, resolve
from self_pruner.tools.text.quantities import size

if TYPE_CHECKING:  # the workbench asks for the fingerprint of the brain
    from self_pruner.agent.prepare.workbench import Prepared

SELF = "self"
SERVER_LOG = "vllm.log"


def check_brain(settings: Settings, view: View) -> None:
    """Find out before anything expensive whether the brain can be asked.

    Raises:
        SelfPrunerError: it can't; one sentence says why and what would help.
    """
    if settings.own_vllm:
        VLLM.python(settings.vllm_python)
    if settings.own_vllm or settings.brain != "vllm" or not ARMS[settings.arm].asks_brain:
        return
    endpoint = endpoint_of(settings)
    model = served_model(endpoint, settings.brain_model)
    if not obeys_schemas(endpoint, model.name):
        view.warn(
            f"{endpoint.url} takes schemas but does not keep to them: replies that are not legal are counted, and the "
            "tool stands in after several in a row"
        )


def endpoint_of(settings: Settings, url: str | None = None) -> Endpoint:
    """The endpoint that the settings name, or the one at `url`, with the key that the environment holds."""
    key = os.environ.get(KEY, "").strip() if url is None else ""
    address = checked_url(url or settings.brain_url or "")
    return Endpoint(address, SecretStr(key) if key else None, settings.brain_seconds)


@contextmanager
def brain_of(prepared: Prepared, settings: Settings, folder: Path, view: View) -> Iterator[BaseChatModel]:
    """The brain that the settings name, for as long as a search takes; `folder` is the run's.

    Raises:
        SelfPrunerError: vLLM does not start, or the endpoint cannot be asked.
    """
    if settings.brain == "uniform":
        yield UniformBrain(seed=settings.seed)
    elif settings.brain == "first":
        yield FirstBrain(seed=settings.seed)
    elif settings.other_brain is not None:
        gc.collect()  # that of a run before this one, in a comparison: one at a time
        other = load_dense(settings.other_brain, settings, view)
        given = sampling(other.tokenizer, parameters_of(other.model), settings)
        yield TargetBrain(model=other.model, time_limit=settings.brain_seconds, **given)
    elif settings.brain == SELF or not ARMS[settings.arm].asks_brain:
        yield TargetBrain(
            model=prepared.loaded.model, time_limit=settings.brain_seconds, **_sampling(prepared, settings)
        )
    elif settings.brain_url is not None:
        yield _behind(endpoint_of(settings), prepared, settings)
    else:
        model = prepared.loaded.model
        source = resolve(settings.model, settings.revision)
        share = prepared.placement.share
        if share is None:
            weights = sum(parameter.nbytes for parameter in model.parameters())
            view.warn(f"vLLM holds the dense weights a second time, {size(weights)}")
        with ExitStack() as stack:
            with view.phase("Starting vLLM"):
                server = served(
                    VLLM.python(settings.vllm_python),
                    str(fetched(source, trust_remote_code=settings.trust_remote_code, cache=settings.cache)),
                    folder / SERVER_LOG,
                    dtype=str(model.dtype).removeprefix("torch."),
                    max_model_len=min(context_length(model.config) or LONGEST, LONGEST),
                    share=share,
                    cache=prepared.placement.sizes.served_cache,
                )
                url = stack.enter_context(server)
            yield _behind(
                endpoint_of(settings, url), prepared, settings, system=_system_role(prepared.loaded.tokenizer)
            )


def load_dense(name: str, settings: Settings, view: View) -> LoadedModel:
    """A model by alias, hub id or folder, or as `SELF` the target model; dense, whole, on the run's device.

    Raises:
        SelfPrunerError: it cannot be loaded.
    """
    source = resolve(settings.model, settings.revision) if name == SELF else resolve(name)
    device = device_of(settings)
    with view.phase(f"Loading {source.name}", unit="bytes") as progress:
        return load(
            source,
            device=device,
            dtype=dtype_of(settings, device),
            trust_remote_code=settings.trust_remote_code,
            cache=settings.cache,
            progress=progress,
        )


def fingerprint_of_brain(settings: Settings, view: View) -> str | None:
    """Hex digest of config, weights and tokenizer of another model that is asked here, which is fetched for it.

    None where none is.

    Raises:
        SelfPrunerError: it cannot be fetched or read, or its tokenizer does not fit it.
    """
    if settings.other_brain is None:
        return None
    source = resolve(settings.other_brain)
    with view.phase(f"Weights of {source.name}", unit="bytes") as progress:
        folder = fetched(source, trust_remote_code=settings.trust_remote_code, cache=settings.cache, progress=progress)
    tokenizer = load_tokenizer(folder, settings.trust_remote_code)
    words, known = tokenizer("A word.")["input_ids"], read_config(folder / "config.json")["vocab_size"]
    if not words or max(words) >= known:  # transformers makes an empty one where its files are missing
        raise ModelError(f"--brain {settings.other_brain}: its folder has no tokenizer for its {known} tokens")
    if reason := unusable(tokenizer):
        view.warn(f"the chat template of {source.name} cannot be used ({reason}): prompts are plain text")
    return hashlib.sha256(f"{digest_of(folder)} {tokenizer_digest(tokenizer)}".encode()).hexdigest()


def asks_itself(settings: Settings) -> bool:
    """Whether the brain is the target model in this process."""
    return settings.brain == SELF and ARMS[settings.arm].asks_brain


def quantises_nothing(settings: Settings) -> str | None:
    """Why nobody heeds --brain-quantization where the brain has no share of a GPU; None where it asks for nothing."""
    if settings.brain_quantization is None or not ARMS[settings.arm].asks_brain:
        return None
    if settings.own_vllm:
        return "--brain-quantization is for a vLLM on a GPU, and none can be used here: leave it out"
    return "--brain-quantization is for a vLLM, and this brain is asked in this process: give --brain vllm with it"


def asking(settings: Settings, searches: bool) -> Settings:
    """The settings of what is left to do: what is done with a result needs no brain, which may be gone by then."""
    return settings if searches else settings.model_copy(update={"brain": SELF, "brain_url": None})


def _system_role(tokenizer: Any) -> str:
    """The role in which a server with this tokenizer's chat template reads what the system says."""
    known = tokenizer.chat_template and not unusable(tokenizer)
    return "user" if known and not takes_system(tokenizer) else "system"


def _behind(endpoint: Endpoint, prepared: Prepared, settings: Settings, system: str = "system") -> EndpointBrain:
    return EndpointBrain(
        endpoint=endpoint,
        served=served_model(endpoint, settings.brain_model),
        system=system,
        **_sampling(prepared, settings),
    )


def _sampling(prepared: Prepared, settings: Settings) -> dict[str, Any]:
    space = prepared.bench.budget.space
    return sampling(prepared.loaded.tokenizer, space.dense_params, settings)


def sampling(tokenizer: Any, parameters: int, settings: Settings) -> dict[str, Any]:
    """How any brain that is a language model is sampled, wherever it runs; `parameters` are its own."""
    return {
        "tokenizer": tokenizer,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "thought_tokens": settings.thought_limit(parameters),
        "max_call_tokens": settings.call_tokens,
        "seed": settings.seed,
    }


def counter_of(brain: BaseChatModel) -> Callable[[Messages], int]:
    """How the tokens of a prompt are counted for `brain`; controls read nothing."""

    def count(messages: Messages) -> int:
        return brain.get_num_tokens_from_messages([SystemMessage(messages.system), HumanMessage(messages.turn)])

    return count if isinstance(brain, TargetBrain | EndpointBrain) else lambda messages: 0


def room_of(brain: BaseChatModel, context: int) -> int:
    """Tokens that a prompt may have for `brain`, where the target model's context is `context`."""
    limit = brain.prompt_limit if isinstance(brain, TargetBrain | EndpointBrain) else None
    return context if limit is None else limit
