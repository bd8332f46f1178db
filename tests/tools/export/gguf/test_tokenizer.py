"""The tokenizer's part of a GGUF file."""

from __future__ import annotations

import gguf
import pytest

from self_pruner.memory.errors import ExportError
from self_pruner.tools.export.gguf.tokenizer import add_tokenizer
from tests.tiny import bundled_tokenizer


def test_a_vocabulary_larger_than_the_embedding_is_one_sentence():
    with pytest.raises(ExportError, match=r"is token 512, and the model knows 512: llama\.cpp takes no token"):
        add_tokenizer(gguf.GGUFWriter(None, "llama"), bundled_tokenizer(600), 512)
