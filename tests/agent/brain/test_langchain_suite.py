"""LangChain's own standard tests of chat models, on the brain in process."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from self_pruner.agent.brain.chat import TargetBrain


class OnTheBundledModel:
    @pytest.fixture(scope="class", autouse=True)
    def _bundled(self, request: pytest.FixtureRequest, bundled) -> None:
        request.cls.loaded = bundled

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return TargetBrain

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.loaded.model, "tokenizer": self.loaded.tokenizer, "temperature": 0, "thought_tokens": 8, "max_call_tokens": 64}


class TestUnit(OnTheBundledModel, ChatModelUnitTests):
    pass


class TestIntegration(OnTheBundledModel, ChatModelIntegrationTests):
    pass
