"""What other contexts of a file know, for whoever says what they are to have in common."""

import sqlite3
from contextlib import closing

import pytest

from self_pruner.memory.errors import MemoryFileError
from self_pruner.memory.records import Candidate
from self_pruner.memory.store import Memory
from tests.memory.test_store import candidate


def test_other_contexts_are_read_by_what_they_have_in_common(tmp_path):
    path = tmp_path / "memory.sqlite"
    told = {"a": ("qwen2", "Small"), "b": ("llama", "Other"), "c": ("qwen2", "Large")}
    for context, (family, model) in told.items():
        with Memory(path, context, {"family": family, "model": model}) as memory:
            memory.record(candidate(run=context))
    with Memory(path, "c", {"family": "qwen2", "model": "Large"}) as memory:
        assert memory.recall_elsewhere(Candidate, "family") == [
            ({"family": "qwen2", "model": "Small"}, [candidate(run="a")])
        ]
        assert [told["model"] for told, _ in memory.recall_elsewhere(Candidate)] == ["Small", "Other"]
        assert memory.recall_elsewhere(Candidate, "depth") == []


def test_what_a_context_is_said_to_be_is_what_was_said_last(tmp_path):
    path = tmp_path / "memory.sqlite"
    Memory(path, "a", {"model": "tiny"}).close()
    Memory(path, "a", {"model": "tiny", "family": "llama"}).close()
    with Memory(path, "b", {"family": "llama"}) as memory:
        assert memory.recall_elsewhere(Candidate, "family") == [({"model": "tiny", "family": "llama"}, [])]


@pytest.mark.parametrize("text", ["{", "[]", '"llama"'])
def test_a_description_that_no_program_wrote_is_refused_or_passed_over(tmp_path, text):
    path = tmp_path / "memory.sqlite"
    Memory(path, "a", {"family": "llama"}).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE context SET description = ?", [text])
    with Memory(path, "b", {"family": "llama"}) as memory:
        if text == "{":
            with pytest.raises(MemoryFileError, match="is corrupt"):
                memory.recall_elsewhere(Candidate, "family")
        else:
            assert memory.recall_elsewhere(Candidate, "family") == []
