"""What the tests of tasks ask a tiny model with."""

from tests.tools.evaluation.tasks.conftest import elastic, folder, suite, tokenizer  # noqa: F401
