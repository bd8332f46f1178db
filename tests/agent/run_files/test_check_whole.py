"""A run of which only half is left does not go on, nor does it begin its search anew over its own story."""

import pytest

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.run_memory import check_whole
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate
from self_pruner.memory.store import Memory


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create(tmp_path, "tiny", {"model": "tiny"}, device="cpu", seed=0) as run:
        yield run


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "memory.sqlite", "context", {}) as memory:
        yield memory


def made(run, step):
    return Candidate(run.id, f"c{step}", Profile((1,), (2,)), (), "mutation", "switch", 1, step, 0, 0, 9, "")


@pytest.mark.parametrize(("content", "what"), [(None, "is gone"), (b"", "is empty")])
def test_without_the_place_of_its_search_a_run_that_searched_does_not_begin_anew(run, memory, content, what):
    if content is not None:
        run.checkpoint.write_bytes(content)  # as LangGraph Studio leaves it
    check_whole(memory, run)
    memory.record(made(run, 0))
    check_whole(memory, run)  # nothing was searched yet
    memory.record(made(run, 3))
    with pytest.raises(RunDirectoryError, match=f"which says where the search was, {what}; start a new run"):
        check_whole(memory, run)


def test_a_run_with_its_place_and_what_it_made_goes_on_and_with_its_place_alone_does_not(run, memory):
    run.checkpoint.write_bytes(b"some state")
    with pytest.raises(RunDirectoryError, match="has its candidates"):
        check_whole(memory, run)
    memory.record(made(run, 3))
    check_whole(memory, run)
