"""The prompts of a run are its own once it has begun, whatever becomes of the folder that they came from."""

import shutil

from main import main
from self_pruner.agent import session
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.prompts.templates import PromptSet
from tests.agent.session.test_resume import SETTINGS


def test_a_run_is_resumed_without_the_folder_of_its_prompts(carried_out, tmp_path, monkeypatch):
    def stopped(run, state):
        raise session.Stopped(run.directory.path)

    mine = tmp_path / "mine"
    PromptSet("terse").copy_to(mine)
    words = ["--arm", "evolution", "--no-recalibrate", "--no-export", "--prompts", str(mine), *SETTINGS.split()]
    with monkeypatch.context() as patch:
        patch.setattr(session, "choose", stopped)
        assert carried_out(*words)[0] == 130
    run = RunDirectory.latest(tmp_path / "runs")
    assert RunDirectory.open(run).status == "stopped"
    shutil.rmtree(mine)
    assert main(["resume", str(run)]) == 0
    assert RunDirectory.open(run).status == "finished"
