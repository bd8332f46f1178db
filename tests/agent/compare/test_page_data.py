"""The document of a comparison's page: every figure, of any comparison, and nothing that leads elsewhere."""

import json
import math

import pytest

from self_pruner.agent.compare.figures import ComparedArms
from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.compare.page import render, write_finished
from self_pruner.agent.compare.page_data import chosen, comparison_data, curves, of_folder
from self_pruner.agent.compare.sentences import sentences
from self_pruner.agent.compare.tables import (
    cost,
    generalisation,
    operator_yields,
    paired_differences,
    quality,
    table_rows,
)
from self_pruner.agent.settings.arms import ARM_NAMES
from self_pruner.memory.errors import SettingsError
from self_pruner.prompts.files import USUAL
from self_pruner.prompts.templates import PromptSet
from tests.agent.compare.invented import FULL, results, run_result, searched

SHAPES = {
    "full": FULL,
    "one run": [searched("hybrid", 30.0)],
    "no runs": [],
    "closed forms": [run_result("owl", 30.0), run_result("uniform", 40.0)],
    "runs missing": [run for run in FULL if (run.arm, run.sparsity, run.seed) != ("hybrid", 0.5, 1)][1:-1],
    "all arms": [searched(arm, 30.0 + place, seed) for place, arm in enumerate(ARM_NAMES) for seed in range(2)],
    "no perplexity": [
        FULL[0],
        FULL[1].model_copy(
            update={"texts": [one.model_copy(update={"perplexity": math.inf}) for one in FULL[1].texts]}
        ),
    ],
    "nothing measured": [FULL[0].model_copy(update={"texts": [], "recalibrated": [], "curve": [], "fitness": None})],
    "one layer": [FULL[0].model_copy(update={"attention": [1], "mlp": [1]})],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_comparison_has_a_page_of_its_own_that_needs_nothing_else(shape):
    found = results(SHAPES[shape])
    text = render(found)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "connect-src 'none'" in text
    assert sentences(found)[0].partition(" ")[0] in text
    data = json.loads(json.dumps(comparison_data(found)))
    assert data["sentences"] == sentences(found) and len(data["runs"]) == len(found.runs)


def test_no_figure_of_the_tables_is_left_out():
    found = results(FULL)
    compared, data = ComparedArms(found), comparison_data(found)
    rows = table_rows(compared)
    tables = {
        "quality": quality(rows, compared.texts),
        "differences": paired_differences(compared, "hybrid"),
        "operators": operator_yields(compared),
        "generalisation": generalisation(compared),
        "costs": cost(rows),
    }
    for name, table in tables.items():
        assert data["tables"][name]["rows"] == [list(row) for row in table.rows] and table.rows
    assert [arm for arm, _ in data["worths"]] == ["hybrid", "self"]
    assert {one["arm"]: one["meaning"] for one in data["arms"]} == found.arms
    assert (data["reproduce"]["command"], data["reproduce"]["machine"]) == (found.command, found.machine)
    assert ["fidelity", "512,2048"] in data["reproduce"]["settings"]


def test_what_there_is_none_of_is_left_out():
    data = comparison_data(results([run_result("owl", 30.0, fitness=None)], units={}))
    assert set(data["tables"]) == {"brief", "quality", "costs"}
    assert data["curves"] == data["profiles"] == data["worths"] == []


def test_curves_are_those_of_each_run_their_mean_and_levels():
    found = ComparedArms(results([searched("hybrid", 30.0, seed) for seed in range(2)] + [run_result("owl", 45.0)]))
    ((sparsity, series),) = [(one["sparsity"], one["series"]) for one in curves(found)]
    assert sparsity == "30%" and [one["arm"] for one in series] == ["hybrid", "owl"]
    assert [len(run) for run in series[0]["runs"]] == [3, 3] and series[0]["level"] is None
    assert series[0]["mean"][-1] == (3000.0, pytest.approx(0.805))
    assert series[1]["runs"] == [] and series[1]["level"] == pytest.approx(math.log(45 / 20))
    assert curves(ComparedArms(results([run_result("owl", 30.0)]))) == []


def test_arms_whose_fitness_is_of_other_tokens_are_not_drawn_in_one_chart():
    arms = ("hybrid", "evolution", "evolution+fidelity=1024,4096", "hybrid+fitness-text=a/b.txt")
    found = curves(ComparedArms(results([*(searched(arm, 30.0) for arm in arms), run_result("owl", 45.0)])))
    assert [(one["on"], [each["arm"] for each in one["series"]]) for one in found] == [
        ("on 2,048 tokens of passages,papers", ["hybrid", "evolution", "owl"]),
        ("on 4,096 tokens of passages,papers", ["evolution+fidelity=1024,4096"]),
        ("on 2,048 tokens of b.txt", ["hybrid+fitness-text=a/b.txt"]),
    ]
    assert [one["on"] for one in curves(ComparedArms(results(FULL)))] == ["", "", ""]


def test_the_run_that_is_kept_is_chosen_without_the_reported_figures():
    good = run_result("hybrid", 20.5, seed=0, holdout=0.5)
    lucky = run_result("hybrid", 22.0, seed=1, holdout=0.4)
    unknown = run_result("hybrid", 20.1, seed=2, holdout=None)
    assert chosen([good, lucky, unknown]).seed == 1
    assert chosen([unknown]).seed == 2


def test_only_runs_that_are_there_are_linked(tmp_path):
    folder = tmp_path / "compared"
    for place in (folder / "runs" / "here", tmp_path / "outside"):
        place.mkdir(parents=True)
        (place / "settings.toml").touch()
    places = ("runs/here", "runs/gone", "../outside", str(tmp_path / "outside"), "javascript:alert(1)")
    found = results([run_result("owl", 30.0, seed=seed, directory=place) for seed, place in enumerate(places)])
    assert [run["directory"] for run in comparison_data(found, folder)["runs"]] == ["runs/here", None, None, None, None]
    assert not any(run["directory"] for run in comparison_data(found)["runs"])


def test_a_folder_that_has_come_to_nothing_yet_has_a_document_and_a_damaged_one_a_sentence(planned):
    data = of_folder(planned)
    assert data["sentences"][0] == "No run is finished yet." and len(data["missing"]) == 3
    (diff,) = data["prompts"].values()
    assert "-Plan this generation." in diff and "+Task: be brave." in diff
    assert list(data["prompts"]) == [f"hybrid:{planned.parent / 'brave'}"]
    (planned / "plan.json").write_text("{")
    with pytest.raises(SettingsError, match="damaged"):
        of_folder(planned)


def test_why_a_run_failed_is_said_while_the_comparison_goes_on(planned):
    slugs = [run.slug for run in ComparisonFolder.open(planned).planned()]
    write_finished(planned, {slugs[0]: "the GPU is out of memory"})
    assert of_folder(planned)["missing"][:2] == [f"{slugs[0]}: the GPU is out of memory", f"{slugs[1]}: not finished"]


def test_the_templates_that_a_run_used_are_compared_and_not_what_became_of_the_folder_since(planned):
    brave = planned.parent / "brave"
    (run,) = [run for run in ComparisonFolder.open(planned).planned() if "prompts" in run.spec.overrides]
    PromptSet(USUAL, brave).copy_to(planned / "runs" / run.slug / "tiny-20260102-000000" / "prompts")
    (brave / "ask_plan.j2").write_text("Task: be careful.")
    (diff,) = of_folder(planned)["prompts"].values()
    assert "+Task: be brave." in diff and "+Task: be careful." not in diff
