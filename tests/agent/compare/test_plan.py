"""The plan of a comparison: what can be written, what it means, and what is refused."""

import pytest

from self_pruner.agent.arms import ARM_NAMES
from self_pruner.agent.compare.plan import PlanError, parse_arm, parse_arms, parse_seeds, parse_sparsities, plan
from self_pruner.agent.settings import Settings, SettingsError

BASE = Settings()


def test_every_arm_can_be_named():
    assert [spec.arm.name for spec in parse_arms(",".join(ARM_NAMES))] == list(ARM_NAMES)


def test_an_arm_may_bring_its_prompts_and_settings(tmp_path):
    spec = parse_arm("hybrid:paper+temperature=0.3+fidelity=1024,4096")
    assert spec.overrides == {"prompt_set": "paper", "temperature": "0.3", "fidelity": (1024, 4096)}
    assert parse_arm(f"self:{tmp_path}").overrides == {"prompts": tmp_path.resolve()}
    (run,) = plan(BASE, [spec], [0.3], [0])
    assert run.settings.temperature == 0.3 and run.settings.prompts_of_arm == "paper"


def test_a_comma_before_a_number_belongs_to_the_setting():
    texts = [spec.text for spec in parse_arms("evolution+fidelity=512,2048+offspring=6,random")]
    assert texts == ["evolution+fidelity=512,2048+offspring=6", "random"]


def test_a_comma_between_texts_belongs_to_the_setting():
    specs = parse_arms("hybrid+fitness-text=passages,mine.txt+slopes=0,hybrid:paper,random")
    assert [spec.text for spec in specs] == ["hybrid+fitness-text=passages,mine.txt+slopes=0", "hybrid:paper", "random"]
    assert specs[0].overrides == {"fitness_text": "passages,mine.txt", "slopes": "0"}


def test_closed_forms_run_once_a_sparsity_and_first():
    runs = plan(BASE, parse_arms("hybrid,owl"), [0.2, 0.3], [0, 1, 2])
    assert [(run.spec.text, run.sparsity, run.seed) for run in runs[:2]] == [("owl", 0.2, 0), ("owl", 0.3, 0)]
    assert len(runs) == 2 + 6
    assert len({run.slug for run in runs}) == len(runs)


def test_runs_share_a_preparation_unless_the_model_is_cut_or_measured_otherwise():
    specs = parse_arms("hybrid,hybrid+temperature=0.3,hybrid+compensation=none,evolution+calibration_sequences=4")
    keys = [run.preparation for run in plan(BASE, specs, [0.3], [0])]
    assert keys[0] == keys[1] and len(set(keys)) == 3


BAD_ARMS = {
    "": "at least one",
    "hybrd": "did you mean 'hybrid'",
    "hybrid,hybrid": "twice",
    "owl:paper": "reads no prompts",
    "hybrid:nowhere": "no prompt set and no folder",
    "hybrid+temprature=1": "did you mean 'temperature'",
    "hybrid+temperature": "no setting=value",
    "hybrid+seed=1": "same for all arms",
    "evolution+fidelity=a": "whole numbers",
}


@pytest.mark.parametrize("text", BAD_ARMS)
def test_a_wrong_arm_is_one_sentence(text):
    with pytest.raises(PlanError, match=BAD_ARMS[text]):
        parse_arms(text)


def test_a_setting_out_of_range_is_refused_in_the_words_of_the_command_line():
    with pytest.raises(SettingsError, match="--temperature"):
        plan(BASE, parse_arms("hybrid+temperature=9"), [0.3], [0])


@pytest.mark.parametrize("text", ["x", "0", "1.0", "0.3,0.3", "-0.2", ""])
def test_wrong_sparsities_are_refused(text):
    with pytest.raises(PlanError, match="--sparsity"):
        parse_sparsities(text)


def test_seeds_are_a_count_or_a_list():
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("4,7") == (4, 7)
    assert parse_seeds("4,") == (4,)


@pytest.mark.parametrize("text", ["0", "-1", "a", "1,1", "1,-2", ""])
def test_wrong_seeds_are_refused(text):
    with pytest.raises(PlanError, match="--seeds"):
        parse_seeds(text)
