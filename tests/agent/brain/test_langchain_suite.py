"""LangChain's own standard tests of chat models, which both brains pass: in process, and behind a real HTTP server.

A tiny random model answers where it does not matter what is said, the bundled one where it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from self_pruner.agent.brain.chat import TargetBrain
from self_pruner.agent.brain.endpoint import Endpoint, Served
from self_pruner.agent.brain.remote import EndpointBrain
from tests.brain_tiny import tiny_tokenizer
from tests.endpoint import Server
from tests.model_server import serving_model
from tests.tiny import tiny_model

# These look at what the model says: arguments that it must take from the question.
WORDS_MATTER = ("test_tool_calling", "test_tool_calling_async", "test_unicode_tool_call_integration")
GREEDY = {"temperature": 0, "thought_tokens": 8, "max_call_tokens": 120}
LUCKY = {"temperature": 0.3, "thought_tokens": 0, "max_call_tokens": 48, "seed": 4}  # 135M parameters need some luck


@pytest.fixture(scope="module")
def tiny_served() -> Iterator[Server]:
    with serving_model(tiny_model("llama"), tiny_tokenizer(), "target", "other") as server:
        yield server


@pytest.fixture(scope="module")
def bundled_served(bundled) -> Iterator[Server]:
    with serving_model(bundled.model, bundled.tokenizer) as server:
        yield server


class InProcess:
    chat_model_class: type[BaseChatModel] = TargetBrain
    supports_json_mode = True  # structured output keeps to the schema whatever the method is called
    supports_anthropic_inputs = True
    supports_model_override = False  # one model: the one that is pruned
    chat_model_params: dict[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _model(self, request: pytest.FixtureRequest) -> None:
        if request.node.originalname in WORDS_MATTER:
            loaded = request.getfixturevalue("bundled")
            self.chat_model_params = {"model": loaded.model, "tokenizer": loaded.tokenizer, **LUCKY}
        else:
            self.chat_model_params = {"model": tiny_model("llama"), "tokenizer": tiny_tokenizer(), **GREEDY}


class TestUnitInProcess(InProcess, ChatModelUnitTests):
    pass


class TestIntegrationInProcess(InProcess, ChatModelIntegrationTests):
    pass


class BehindAnEndpoint:
    chat_model_class: type[BaseChatModel] = EndpointBrain
    supports_json_mode = True
    supports_anthropic_inputs = True
    model_override_value = "other"
    chat_model_params: dict[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _model(self, request: pytest.FixtureRequest) -> None:
        words_matter = request.node.originalname in WORDS_MATTER
        server = request.getfixturevalue("bundled_served" if words_matter else "tiny_served")
        tokenizer = request.getfixturevalue("bundled").tokenizer if words_matter else tiny_tokenizer()
        served = Served("target", None if words_matter else 2048)
        self.chat_model_params = {"endpoint": Endpoint(server.url), "served": served, "tokenizer": tokenizer}
        self.chat_model_params |= LUCKY if words_matter else GREEDY


class TestUnitBehindAnEndpoint(BehindAnEndpoint, ChatModelUnitTests):
    pass


class TestIntegrationBehindAnEndpoint(BehindAnEndpoint, ChatModelIntegrationTests):
    pass
