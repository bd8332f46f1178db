"""The runs of an arm are of one prompt set: what its brain read is kept, and another one is refused."""

from pathlib import Path

import pytest

from main import main
from self_pruner.agent.compare import runner
from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.compare.joining import begin, check_prompts
from self_pruner.agent.compare.results import Results
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest
from tests.agent.compare.invented import results, run_result
from tests.agent.compare.test_runner import SMALL


def sentence(capfd):
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


@pytest.fixture
def mine(tmp_path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "ask_plan.j2").write_text("Plan well.")
    return folder


def comparison(path: Path, *arms: str, seeds=(0, 1)) -> ComparisonFolder:
    made = ComparisonFolder(path, arms, (0.3,), seeds, Settings(model="tiny"))
    made.save()
    return made


def finish(made: ComparisonFolder, arm: str, seed: int, prompts: str | None) -> None:
    (planned,) = [run for run in made.planned() if (run.spec.text, run.seed) == (arm, seed)]
    made.keep(planned, run_result(arm, 30.0, seed=seed, prompts=prompts))


def test_the_digest_is_of_the_set_that_the_brain_reads_and_none_where_nothing_is_asked(tmp_path, mine):
    arms = ("hybrid", f"hybrid:{mine}", "hybrid+brain=uniform", "evolution", "hybrid+plan=rule")
    found = {run.spec.text: run.prompts() for run in comparison(tmp_path / "it", *arms, seeds=(0,)).planned()}
    (own,) = [run for run in comparison(tmp_path / "that", f"hybrid:{mine}", seeds=(0,)).planned()]
    assert found[f"hybrid:{mine}"] == digest(PromptSet(own.settings.prompts_of_arm, mine)) != found["hybrid"]
    assert found["hybrid"] and [found[arm] for arm in arms[2:]] == [None] * 3
    PromptSet(own.settings.prompts_of_arm, mine).copy_to(tmp_path / "copy")
    assert own.prompts(tmp_path / "copy") == found[f"hybrid:{mine}"]


def test_a_new_seed_with_other_prompts_than_the_finished_ones_is_refused_before_it_starts(tmp_path, mine, monkeypatch):
    arm = f"hybrid:{mine}"
    made = comparison(tmp_path / "compared", arm, "evolution")
    finish(made, arm, 0, next(run.prompts() for run in made.planned() if run.spec.text == arm))
    monkeypatch.setattr(runner, "share", lambda *_: pytest.fail("a model is loaded"))
    check_prompts(made)
    (mine / "ask_plan.j2").write_text("Plan badly.")
    with pytest.raises(
        RunDirectoryError, match="the prompts of hybrid:.*mine are others in hybrid_.*seed1 than in hyb"
    ):
        runner.carry_out_all(made, View())
    finish(made, arm, 1, None)  # nothing is left to be started, and what is not known contradicts nothing
    check_prompts(made)


def test_the_templates_that_are_there_are_digested_once_an_arm_and_anew_in_the_next_check(tmp_path, mine, monkeypatch):
    made = comparison(tmp_path / "compared", f"hybrid:{mine}", "hybrid", "evolution", seeds=(0, 1, 2, 3))
    digested = []

    def counted(prompts):
        digested.append(digest(prompts))
        return digested[-1]

    monkeypatch.setattr("self_pruner.agent.compare.plan.digest", counted)
    check_prompts(made)
    assert len(digested) == len(set(digested)) == 2
    (mine / "ask_plan.j2").write_text("Plan badly.")
    check_prompts(made, arm=f"hybrid:{mine}")
    assert len(digested) == len(set(digested)) == 3


def test_a_run_that_was_begun_goes_on_with_its_own_copy(tmp_path, mine):
    arm = f"hybrid:{mine}"
    made = comparison(tmp_path / "compared", arm)
    first, second = made.planned()
    made.keep(first, run_result(arm, 30.0, prompts=first.prompts()))
    PromptSet(second.settings.prompts_of_arm, mine).copy_to(made.folder_of(second) / "tiny-20260102-000000" / "prompts")
    (mine / "ask_plan.j2").write_text("Plan badly.")
    check_prompts(made)
    with pytest.raises(RunDirectoryError, match="seed2 than in"):
        check_prompts(comparison(made.path, arm, seeds=(0, 1, 2)))


def test_runs_from_elsewhere_are_of_the_prompts_of_those_that_are_there(tmp_path, model):
    settings = {"model": str(model), "runs": tmp_path}

    def kept(name: str, *runs) -> Path:
        base = begin(settings, ["hybrid"], "0.3", "1", tmp_path / f"base-{name}", (), View())
        path = tmp_path / f"{name}.json"
        stated = results(list(runs), settings=results_settings(base))
        path.write_text(stated.model_dump_json())
        return path

    one = kept(
        "one", run_result("hybrid", 30.0, seed=0, prompts="1a"), run_result("hybrid", 31.0, seed=1, prompts="1a")
    )
    other = kept("other", run_result("hybrid", 32.0, seed=2, prompts="2b"))
    older = kept("older", run_result("hybrid", 32.0, seed=2))
    with pytest.raises(RunDirectoryError, match="the prompts of hybrid are others in hybrid-30-seed2 than in"):
        begin(settings, ["hybrid"], "0.3", "3", tmp_path / "new", [one, other], View())
    assert not (tmp_path / "new").exists()
    begun = begin(settings, ["hybrid"], "0.3", "3", tmp_path / "new", [one, older], View())
    assert [begun.record_of(run).prompts for run in begun.planned()] == ["1a", "1a", None]
    with pytest.raises(RunDirectoryError, match="are others in hybrid-30-seed3 than in hybrid-30-seed0"):
        begin(settings, ["hybrid"], "0.3", "4", tmp_path / "new", (), View())  # the templates of now are neither


def results_settings(made: ComparisonFolder) -> dict[str, object]:
    from self_pruner.agent.settings.stated import without_places

    return without_places(made.settings)


def test_what_the_brain_of_a_run_read_is_in_its_record(tmp_path, model, cache, mine, capfd):
    words = ["compare", "--model", model, "--cache", cache, "--runs", tmp_path, *SMALL, "--into", tmp_path / "compared"]
    words = [*map(str, words), "--arm", f"hybrid:{mine}+brain=self", "--tokens", "2000"]
    assert main(words) == 0
    (run,) = Results.model_validate_json((tmp_path / "compared" / "results.json").read_text()).runs
    assert run.prompts == digest(PromptSet("terse", mine))
    (mine / "ask_plan.j2").write_text("Plan badly.")
    capfd.readouterr()
    assert main([*words, "--seeds", "2"]) == 2
    assert "the prompts of hybrid:" in sentence(capfd)
