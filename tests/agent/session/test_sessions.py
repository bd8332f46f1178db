"""A run over several sessions: its brain is asked for anew, and its time goes on where it was."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from main import main
from self_pruner.agent import session
from self_pruner.agent.prepare import bill, workbench
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.search.judge import Judgement
from self_pruner.agent.search.state import first_state
from self_pruner.agent.settings.settings import make_settings
from self_pruner.memory.records import Generation
from tests.processes import silent_port
from tests.stopped import SMALL


@pytest.fixture
def down():
    """An address at which nobody answers."""
    with silent_port() as port:
        yield f"http://127.0.0.1:{port}/v1"


def test_a_brain_that_is_gone_is_found_on_resume_before_anything_is_loaded(tmp_path, monkeypatch, capfd, down):
    monkeypatch.delattr(session, "prepare")
    settings = make_settings({"brain_url": down, "memory": tmp_path / "memory.sqlite"})
    with RunDirectory.create(tmp_path, "tiny", settings.to_toml(), device="cpu", seed=0) as run:
        run.set_status("stopped", "stopped by the user")
    assert main(["resume", str(run.path)]) == 2
    error = capfd.readouterr().err
    assert down in error and error.count("\n") == 1


@pytest.mark.parametrize(("before", "stop"), [(30.0, ""), (61.0, "1 minutes are used up")])
def test_minutes_of_earlier_sessions_count(before, stop):
    found = SimpleNamespace(kl=1.0)
    closed = Generation("run", 0, ("c1",), "c1", "", 1)
    bench = SimpleNamespace(
        run="run",
        memory=SimpleNamespace(recall=lambda kind, run: [closed]),
        fidelity=(128,),
        candidate=lambda name: SimpleNamespace(id=name, profile=None),
        fitness=lambda *of: found,
        walks={"fitness": SimpleNamespace(parallelism={})},
    )
    lines = []
    judge = Judgement(bench, make_settings({"minutes": 1}), lines.append)  # as at the beginning of a session
    state = replace(first_state(["c1"], 0), seconds=before)
    update = judge(state)
    assert before <= update["seconds"] < before + 29
    assert update["ending"] == stop and not update["stop"]  # the open generation is closed first
    assert judge(replace(state, offspring=[]))["stop"] == stop
    assert lines[0].spent["minutes"] >= round(before / 60, 3)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cublas"],
)
def test_memory_that_another_process_takes_after_the_plan_is_one_sentence(carried_out, tmp_path, monkeypatch, fault):
    def filled(*_, **__):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(workbench, "calibrate", filled)
        status, _, said = carried_out(*SMALL)
    assert status == 2 and said.count("\n") == 1 and "if another process has taken memory since" in said
    assert not list((tmp_path / "runs").glob("tiny-*"))


def test_a_run_whose_free_memory_is_gone_after_the_plan_goes_on_without_what_it_would_remember(
    carried_out, monkeypatch
):
    monkeypatch.setattr(bill, "free_memory", lambda device: 0)
    status, said, errors = carried_out(*SMALL)
    assert status == 0 and not errors and "Best" in said
