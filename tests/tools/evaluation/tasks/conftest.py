"""The bundled model's tokenizer on a tiny random model, and seven tiny tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.evaluation.tasks.seven import write_tasks


@pytest.fixture(scope="session")
def tokenizer(bundled_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bundled_folder)


@pytest.fixture(scope="session")
def elastic(tokenizer: Any) -> ElasticModel:
    """A tiny elastic model that reads what the tokenizer writes; nobody may change it."""
    model = tiny_model("llama", tied=True, vocab_size=len(tokenizer))
    text = torch.randint(len(tokenizer), (4, 64), generator=torch.Generator().manual_seed(7))
    return ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seven files, five rows each."""
    return write_tasks(tmp_path_factory.mktemp("tasks"), 5)


@pytest.fixture
def suite(tokenizer: Any, folder: Path) -> TaskSuite:
    """The first three rows of each task."""
    return TaskSuite(tokenizer, folder, 3)
