"""The plan of a comparison: what can be written, what it means, and what is refused."""

import json

import pytest

from self_pruner.agent.compare.folder import DEFAULTS, PLAN, RESULTS, ComparisonFolder, known_failures
from self_pruner.agent.compare.joining import begin
from self_pruner.agent.compare.plan import parse_arm, parse_arms, parse_seeds, parse_sparsities, plan
from self_pruner.agent.settings.arms import ARM_NAMES
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import SettingsError
from tests.agent.compare.invented import results

BASE = Settings()


def test_every_arm_can_be_named():
    assert [spec.arm.name for spec in parse_arms(ARM_NAMES)] == list(ARM_NAMES)


def test_an_arm_may_bring_its_prompts_and_settings(tmp_path):
    spec = parse_arm("hybrid:paper+temperature=0.3+fidelity=1024,4096+fitness-text=passages,mine.txt")
    texts = {"fitness_text": "passages,mine.txt"}
    assert spec.overrides == {"prompt_set": "paper", "temperature": "0.3", "fidelity": (1024, 4096), **texts}
    assert parse_arm(f"self:{tmp_path}").overrides == {"prompts": tmp_path.resolve()}
    (run,) = plan(BASE, [spec], [0.3], [0])
    assert run.settings.temperature == 0.3 and run.settings.prompts_of_arm == "paper"


def test_closed_forms_run_once_a_sparsity_and_first():
    runs = plan(BASE, parse_arms(["hybrid", "owl"]), [0.2, 0.3], [0, 1, 2])
    assert [(run.spec.text, run.sparsity, run.seed) for run in runs[:2]] == [("owl", 0.2, 0), ("owl", 0.3, 0)]
    assert len(runs) == 2 + 6
    assert len({run.slug for run in runs}) == len(runs)


def test_runs_share_a_preparation_unless_the_model_is_cut_or_measured_otherwise():
    settings = ("temperature=0.3", "compensation=none", "calibration_sequences=4")
    specs = parse_arms(["hybrid", *(f"hybrid+{setting}" for setting in settings)])
    keys = [run.preparation for run in plan(BASE, specs, [0.3], [0])]
    assert keys[0] == keys[1] and len(set(keys)) == 3


BAD_ARMS = {
    "": "at least one",
    "hybrd": "did you mean 'hybrid'",
    "hybrid hybrid": "twice",
    "owl+fitness-text=a/b owl+fitness-text=a_b": "would share the folder owl\\+fitness-text=a_b",
    "owl:paper": "reads no prompts",
    "hybrid:nowhere": "no prompt set and no folder",
    "hybrid+temprature=1": "did you mean 'temperature'",
    "hybrid+temperature": "no setting=value",
    "hybrid+seed=1": "same for all arms",
    "evolution+fidelity=a": "whole numbers",
}


@pytest.mark.parametrize("text", BAD_ARMS)
def test_a_wrong_arm_is_one_sentence(text):
    with pytest.raises(SettingsError, match=BAD_ARMS[text]):
        parse_arms(text.split(" "))


def test_a_setting_out_of_range_is_refused_in_the_words_of_the_command_line():
    with pytest.raises(SettingsError, match="--temperature"):
        plan(BASE, parse_arms(["hybrid+temperature=9"]), [0.3], [0])


@pytest.mark.parametrize("text", ["x", "0", "1.0", "0.3,0.3", "-0.2", ""])
def test_wrong_sparsities_are_refused(text):
    with pytest.raises(SettingsError, match="--sparsity"):
        parse_sparsities(text)


def test_seeds_are_a_count_or_a_list():
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("4,7") == (4, 7)
    assert parse_seeds("4,") == (4,)


@pytest.mark.parametrize("text", ["0", "-1", "a", "1,1", "1,-2", ""])
def test_wrong_seeds_are_refused(text):
    with pytest.raises(SettingsError, match="--seeds"):
        parse_seeds(text)


def test_a_seed_that_is_taken_for_a_count_is_refused_with_how_it_is_written():
    assert len(parse_seeds("1000")) == 1000
    with pytest.raises(SettingsError, match="20260101 is a count, of at most 1,000; .* with a comma: 20260101,$"):
        parse_seeds("20260101")
    assert parse_seeds("20260101,") == (20260101,)


@pytest.mark.parametrize(("sparsities", "seeds"), [("", None), (None, ""), ("0.3", "")])
def test_an_empty_option_is_not_one_that_is_left_out(tmp_path, sparsities, seeds):
    with pytest.raises(SettingsError, match="--seeds" if seeds == "" else "--sparsity"):
        begin({}, ["owl"], sparsities, seeds, tmp_path / "new", (), View())
    assert not (tmp_path / "new").exists()
    begin({}, ["owl"], "0.2", "0,7", tmp_path / "begun", (), View())
    with pytest.raises(SettingsError, match="--seeds" if seeds == "" else "--sparsity"):
        begin({}, ["cma"], sparsities, seeds, tmp_path / "begun", (), View())


def test_sparsities_that_would_share_a_folder_are_refused_also_when_a_comparison_grows(tmp_path):
    assert len({run.slug for run in plan(BASE, parse_arms(["owl"]), [0.3, 0.3001], [0])}) == 2
    match = "--sparsity: 0.3 and 0.30000001 would share folders"
    with pytest.raises(SettingsError, match=match):
        plan(BASE, parse_arms(["owl"]), [0.3, 0.30000001], [0])
    begin({}, ["owl"], "0.3", "1", tmp_path / "compared", (), View())
    with pytest.raises(SettingsError, match=match):
        begin({}, ["owl"], "0.30000001", "1", tmp_path / "compared", (), View())
    assert ComparisonFolder.open(tmp_path / "compared").sparsities == (0.3,)


def test_the_command_of_a_comparison_removes_the_very_shares(tmp_path):
    shares = (0.3, 0.123456789, 1 / 3)
    command = ComparisonFolder(tmp_path, ("owl",), shares, (0,), make_settings(DEFAULTS)).command()
    assert parse_sparsities(command.split("--sparsity ")[1]) == shares


def test_a_plan_is_read_as_it_was_written_and_so_is_one_of_before_with_all_arms_in_one_text(tmp_path):
    made = ComparisonFolder(tmp_path, ("owl", "hybrid+fidelity=1024,4096"), (0.2, 0.3), (0, 7), BASE)
    made.save()
    assert ComparisonFolder.open(tmp_path) == made and ComparisonFolder.open(tmp_path).sealed
    content = json.loads((tmp_path / PLAN).read_text())
    (tmp_path / PLAN).write_text(json.dumps({**content, "arms": "owl,hybrid:paper"}))
    older = ComparisonFolder.open(tmp_path)
    assert older.arms == ("owl", "hybrid:paper") and not older.sealed


def test_arms_share_a_preparation_unless_their_brains_take_room_of_their_own(tmp_path):
    arms = ["hybrid", "hybrid+brain=uniform", "evolution", "hybrid+brain=vllm", "hybrid+brain=qwen2.5-1.5b"]
    runs = plan(BASE, parse_arms(arms), [0.3], [0])
    first, control, without, served, other = (run.preparation for run in runs)
    assert first == control == without and len({first, served, other}) == 3
    shared = make_settings({"brain": "qwen2.5-1.5b"})  # named for all arms, and some ask nobody or another
    own, asking = plan(shared, parse_arms(["hybrid+brain=self", "hybrid"]), [0.3], [0])
    assert own.settings.other_brain is None and asking.settings.other_brain == "qwen2.5-1.5b"
    assert own.preparation == first and asking.preparation == other


def test_relative_paths_of_an_arm_are_where_it_was_written_from_wherever_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ask_plan.j2").write_text("Plan.")
    (tmp_path / "mine.txt").write_text("A text. " * 20_000)
    monkeypatch.chdir(tmp_path)
    arms = ["hybrid:mine", "hybrid+fitness-text=mine.txt", "evolution"]
    made = begin({"runs": tmp_path}, arms, "0.3", "1", tmp_path / "compared", (), View())
    monkeypatch.chdir("/")
    planned = {run.spec.text: run.settings for run in ComparisonFolder.open(made.path).planned()}
    assert planned["hybrid:mine"].prompts == tmp_path / "mine"
    assert planned["hybrid+fitness-text=mine.txt"].fitness_text == str(tmp_path / "mine.txt")
    grown = begin({"runs": tmp_path}, ["hybrid:mine", "owl"], "0.3", "1", made.path, (), View())
    assert {run.spec.text: run.settings.prompts for run in grown.planned()}["hybrid:mine"] == tmp_path / "mine"


def test_an_arm_that_is_added_runs_where_the_others_do_unless_told_otherwise(tmp_path):
    into = tmp_path / "compared"
    begin({}, ["owl"], "0.2,0.5", "0,7", into, (), View())
    grown = begin({}, ["cma"], None, None, into, (), View())
    assert (grown.sparsities, grown.seeds) == ((0.2, 0.5), (0, 7))
    assert begin({}, ["cma"], "0.3", None, into, (), View()).sparsities == (0.2, 0.5, 0.3)
    new = begin({}, ["cma"], None, None, tmp_path / "new", (), View())
    assert (new.sparsities, new.seeds) == ((0.3,), (0, 1, 2))


def test_what_two_processes_add_to_one_plan_is_all_in_it(tmp_path):
    ComparisonFolder(tmp_path, ("owl",), (0.2,), (0,), BASE).save()
    first, second = (ComparisonFolder(tmp_path, (arm,), (0.3,), (0,), BASE) for arm in ("flap", "uniform"))
    whole = [one.saved() for one in (first, second)]  # each knew nothing of the other
    assert whole[1] == ComparisonFolder.open(tmp_path)
    assert whole[1].arms == ("owl", "flap", "uniform") and whole[1].sparsities == (0.2, 0.3)


def test_why_runs_are_missing_is_known_from_the_results_that_were_written_last(tmp_path):
    assert known_failures(tmp_path) == {}
    missing = ["hybrid-30-seed0: every candidate failed: it is too small", "owl-30-seed0: not finished"]
    (tmp_path / RESULTS).write_text(results([], missing=missing).model_dump_json())
    assert known_failures(tmp_path) == {
        "hybrid-30-seed0": "every candidate failed: it is too small",
        "owl-30-seed0": "not finished",
    }
    (tmp_path / RESULTS).write_text("{")
    assert known_failures(tmp_path) == {}


def test_a_comparison_grows_from_any_folder(tmp_path):
    made = ComparisonFolder(tmp_path, ("owl",), (0.2,), (0,), make_settings({"runs": "/one/runs"}))
    other = ComparisonFolder(tmp_path, ("flap",), (0.2,), (0,), make_settings({"runs": "/other/runs"}))
    assert made.grown(other).settings == made.settings
    with pytest.raises(SettingsError, match="that comparison has dtype auto, not float32"):
        made.grown(ComparisonFolder(tmp_path, ("flap",), (0.2,), (0,), make_settings({"dtype": "float32"})))


def test_the_command_of_a_comparison_has_an_option_for_each_arm_where_one_has_a_comma(tmp_path):
    def command(*arms, seeds):
        return ComparisonFolder(tmp_path, arms, (0.2, 0.35), seeds, make_settings(DEFAULTS)).command()

    start = "python main.py compare"
    assert command("owl", "hybrid", seeds=(0, 1)) == f"{start} --arms owl,hybrid --seeds 2 --sparsity 0.2,0.35"
    assert f"{start} --arms 'owl,hybrid:my prompts' --seeds" in command("owl", "hybrid:my prompts", seeds=(0, 1))
    assert f"{start} --arm owl --arm hybrid+fidelity=8,9 --seeds 7, --sp" in command(
        "owl", "hybrid+fidelity=8,9", seeds=(7,)
    )
